"""Each kind of request has one handler, which knows all that is special of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch

from garcon_backend.execution.requests import HANDLERS
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.save_contexts.merging import RankPart
from garcon_jupyter.errors import BadRequest, CannotTravel, NoRecording
from garcon_jupyter.wire import requests as wire
from tests import checkpoints
from tests.backend.bare_rank import BareRank

POINT = "layers.0.resid_post"
IDS = torch.tensor([[3, 4, 5], [6, 7, 8]])
NUMBER, NAME = 7, "unembed.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BareRank:
    return BareRank(checkpoints.make("llama", tmp_path_factory.mktemp("llama")))


def code(function: Any, name: str = "function") -> wire.Code:
    payload = cloudpickle.dumps(function)
    return wire.Code(payload, f"{hash(payload)}", name)


def test_what_can_be_asked_is_what_is_handled() -> None:
    assert set(HANDLERS) == set(wire.REQUESTS.values())


def test_a_handler_stands_in_a_file_of_its_own() -> None:
    files = [handler.__module__ for handler in HANDLERS.values()]
    assert len(set(files)) == len(files) == len(wire.REQUESTS)


def test_a_handler_without_preparation_cannot_be_made(model: BareRank) -> None:
    class Lazy(RequestHandler[wire.Clear]):
        def run(self) -> None:
            pass

    with pytest.raises(TypeError, match="abstract method.* prepare"):
        Lazy(wire.Clear(), model.tools)  # type: ignore[abstract]


def test_a_request_that_nobody_handles_is_refused(model: BareRank) -> None:
    @dataclass
    class Unheard(wire.Request):
        pass

    with pytest.raises(BadRequest, match="no request of the kind Unheard"):
        model.run(Unheard("test"))


def test_recordings_from_a_pass_to_the_answer(model: BareRank) -> None:
    def probe(save_ctx: Any, tensor: Any) -> None:
        save_ctx.kept = tensor

    asked = wire.ProbeSpec(POINT, code(probe, "probe"), name="mine")
    logits = model.run(wire.Forward("s", batch=wire.Batch(IDS), probes=(asked,)))
    layers: list[Any] = []
    hook = model.model.model.layers[0].register_forward_hook(
        lambda module, args, output: layers.append(output)
    )
    with torch.no_grad():
        expected = model.model(IDS).logits
    hook.remove()
    assert torch.allclose(logits, expected, atol=1e-6)
    index = model.run(wire.Snapshot("s", number=NUMBER))
    assert list(index.contexts) == [(POINT, "mine")]
    assert index.contexts[POINT, "mine"]["kept"].shape == tuple(layers[0].shape)
    ref = wire.RecordingRef(NUMBER, POINT, "mine")
    wanted = ((ref, "kept", ()), (ref, "kept", (("item", 1),)))
    whole, row = model.run(wire.Fetch("s", wanted=wanted))
    assert torch.allclose(whole, layers[0], atol=1e-6) and torch.equal(row, whole[1])
    model.run(wire.Clear("s"))
    assert model.run(wire.Snapshot("s", number=NUMBER + 1)).contexts == {}
    with pytest.raises(NoRecording, match="kept2"):
        model.run(wire.Fetch("s", wanted=((ref, "kept2", ()),)))


def test_a_checkpoint_brings_back_what_it_has(model: BareRank, tmp_path: Path) -> None:
    def count(save_ctx: Any, tensor: Any) -> None:
        save_ctx.count = getattr(save_ctx, "count", 0) + len(tensor)

    contexts = ((POINT, None),)
    forward = wire.Forward(
        "c", batch=wire.Batch(IDS), probes=(wire.ProbeSpec(POINT, code(count)),), logits="none"
    )

    def counted(number: int) -> Any:
        model.run(wire.Snapshot("c", number=number))
        wanted = ((wire.RecordingRef(number, POINT), "count", ()),)
        return model.run(wire.Fetch("c", wanted=wanted))[0]

    model.run(forward)
    model.run(wire.Checkpoint("c", contexts=contexts, directory=str(tmp_path)))
    model.run(forward)
    assert counted(1) == 4
    model.run(wire.Restore("c", contexts=contexts, directory=str(tmp_path)))
    assert counted(2) == 2
    model.run(wire.Drop("c"))
    with pytest.raises(NoRecording):
        counted(3)


def test_a_loss_and_gradients_of_all_stages_are_one_answer(model: BareRank) -> None:
    request = wire.Backward("b", batch=wire.Batch(IDS), loss=code(torch.Tensor.sum))
    handler = model.executor.handler(request)
    parts = [(None, {"a": 1}), (2.0, {"b": 3}), (None, {})]
    assert handler.combine(parts) == (2.0, {"a": 1, "b": 3})
    with pytest.raises(BadRequest, match="needs a loss"):
        model.run(wire.Backward("b", batch=wire.Batch(IDS)))


def test_a_loss_of_the_last_logits_has_the_gradients_of_one_of_all(model: BareRank) -> None:
    """Of rows padded on either side; and no others are computed."""
    mask = torch.tensor([[True, True, False], [False, True, True]])

    def last(logits: torch.Tensor) -> torch.Tensor:
        assert logits.shape[:2] == (2, 1)
        return logits[:, -1, 5] ** 2

    def of_all(logits: torch.Tensor) -> torch.Tensor:
        return (logits[[0, 1], [1, 2], 5] ** 2).sum()

    def run(loss: Any, **options: Any) -> Any:
        one = wire.Backward("b", batch=wire.Batch(IDS, mask), parameters=(NAME,), **options)
        one.loss = code(loss, loss.__name__)
        return model.run(one)

    (rows, mine), (whole, theirs) = run(last, logits="last", each_row=True), run(of_all)
    assert rows.shape == (2,) and torch.allclose(rows.sum(), whole)
    assert torch.allclose(mine[NAME], theirs[NAME], atol=1e-6) and theirs[NAME].any()
    with pytest.raises(BadRequest, match="not one number for each row"):
        run(of_all, each_row=True)
    with pytest.raises(BadRequest, match="no logits 'none'"):
        run(last, logits="none")


def test_a_weight_that_travels_by_and_by_has_memory_of_its_own(model: BareRank) -> None:
    request = wire.GetParameter("p", name=NAME, index=slice(0, 2))
    handler = model.executor.handler(request)
    value = handler.combine([model.executor.prepare(handler)()])
    assert torch.equal(value, model.parameter(NAME)[:2])
    apart, shared = (handler.pack(value, by_socket=way) for way in (True, False))
    assert torch.equal(apart, value) and apart.data_ptr() != value.data_ptr()
    assert shared.data_ptr() == value.data_ptr()


def test_code_on_ranks_is_compiled_before_any_runs_it(model: BareRank) -> None:
    source = "model.garcon_was_here = (rank, world_size)"
    assert model.run(wire.RunOnRanks("r", source=source)) == [0]
    assert model.model.garcon_was_here == (0, 1)
    del model.model.garcon_was_here
    with pytest.raises(BadRequest, match="does not compile"):
        model.run(wire.RunOnRanks("r", source="1 +"))


def test_what_cannot_travel_is_named() -> None:
    error = CannotTravel("A generator cannot travel.", "Make a list.")
    ref = wire.RecordingRef(NUMBER, POINT)
    fetch = HANDLERS[wire.Fetch](
        wire.Fetch(wanted=((ref, "fine", ()), (ref, "broken", ()))), _NO_TOOLS
    )
    of_rank = {0: RankPart(1), 1: RankPart(iter_of())}
    assert f"{POINT}.broken cannot be fetched" in str(fetch.name_culprit(of_rank, error))
    assert f"{POINT}.broken cannot be fetched" in str(fetch.name_culprit([1, iter_of()], error))
    reduced = wire.Forward(logits=code(len, "my_function"))
    named = HANDLERS[wire.Forward](reduced, _NO_TOOLS).name_culprit(iter_of(), error)
    assert str(named).startswith("What my_function returned cannot be fetched.")
    plain = HANDLERS[wire.Forward](wire.Forward(), _NO_TOOLS).name_culprit(iter_of(), error)
    assert plain is error


def iter_of() -> Any:
    return (n for n in range(3))


class _NoTools:
    rank = None


_NO_TOOLS: Any = _NoTools()
