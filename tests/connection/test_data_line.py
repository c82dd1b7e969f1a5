"""Large values as for a client of another host, from a real server: over the socket for data, both ways."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.connection import data_line
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire.transfers import CHUNK, Incoming
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

POINT = "layers.1.mlp.post_activation"
DTYPES = [torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.int64, torch.uint8, torch.float64]
LONG = [[5, 9, 3, 7] * 30] * 8


@pytest.fixture
def elsewhere(rmodel: garcon.RemoteModel) -> garcon.RemoteModel:
    """A model whose client sees nothing of the server's host but its sockets."""
    rmodel._channel.same_host = False
    return rmodel


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that was received over the socket for data by this process."""
    sizes: list[int] = []

    def counted(size: int, into: memoryview | None = None) -> Incoming:
        sizes.append(size)
        return Incoming(size, into)

    monkeypatch.setattr(data_line, "Incoming", counted)
    return sizes


def numbers(dtype: torch.dtype, count: int) -> torch.Tensor:
    return (torch.arange(count) % 13).to(dtype)


def test_every_dtype_and_shape_arrives(elsewhere: garcon.RemoteModel, taken: list[int]) -> None:
    def fill(save_ctx: Any, tensor: Any, dtypes: Any = DTYPES) -> None:
        for n, dtype in enumerate(dtypes):
            setattr(save_ctx, f"d{n}", (torch.arange(300_000 + n) % 13).to(dtype))
        save_ctx.empty = torch.empty(0, 5)
        save_ctx.strided = torch.arange(2 * CHUNK).reshape(2, CHUNK).T[::3]
        save_ctx.text = "text"

    probe = elsewhere.probe_points[POINT].probe(fill)
    elsewhere.forward(PROMPT, probes=[probe], logits="none")
    recording = elsewhere.recordings()[POINT]
    names = recording.keys()
    found = elsewhere.fetch(*(recording.handle(name) for name in names))
    values = dict(zip(names, found, strict=True))
    for n, dtype in enumerate(DTYPES):
        expected, value = numbers(dtype, 300_000 + n), values[f"d{n}"]
        assert value.dtype == dtype
        assert torch.equal(value.view(torch.uint8), expected.view(torch.uint8))
    assert values["empty"].shape == (0, 5) and values["text"] == "text"
    assert torch.equal(values["strided"], torch.arange(2 * CHUNK).reshape(2, CHUNK).T[::3])
    assert len(taken) == 1 and taken[0] > 2 * CHUNK * 8 // 3
    values["d0"] += 1  # it is ours to edit
    assert not torch.equal(values["d0"], recording.d0)


def test_small_values_travel_in_messages(
    elsewhere: garcon.RemoteModel, plain: Plain, taken: list[int]
) -> None:
    assert close(elsewhere.forward(PROMPT), plain.logits(PROMPT))
    assert taken == []


def test_inputs_travel_the_same_way(
    elsewhere: garcon.RemoteModel, plain: Plain, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    give = data_line.DataLine.give

    def counted(self: Any, session: str, outgoing: Any) -> str:
        sent.append(outgoing.size)
        return give(self, session, outgoing)

    monkeypatch.setattr(data_line.DataLine, "give", counted)
    weights = torch.linspace(-1, 1, 80 * 5000).reshape(80, 5000)

    def weigh(save_ctx: Any, tensor: Any, weights: Any = weights) -> None:
        save_ctx.value = tensor @ weights

    many = torch.tensor(LONG).repeat(12, 1)  # 96 × 120 ids of eight bytes
    probe = elsewhere.probe_points[POINT].probe(weigh)
    elsewhere.forward(many, probes=[probe], logits="none")
    assert sent == [many.nbytes]
    expected = plain.neurons(1, LONG) @ weights
    assert close(elsewhere.recordings()[POINT].handle("value")[:8].fetch(), expected)
    assert taken == [expected.nbytes]


def test_a_request_that_names_a_transfer_of_nobody_is_refused(
    elsewhere: garcon.RemoteModel, plain: Plain
) -> None:
    channel = elsewhere._channel
    channel._data.give = lambda session, outgoing: "nothing"  # type: ignore[method-assign]
    with pytest.raises(garcon.BadRequest, match="did not come"):
        elsewhere.forward(torch.tensor(LONG).repeat(12, 1))
    del channel._data.give  # type: ignore[method-assign]
    assert close(elsewhere.forward(PROMPT), plain.logits(PROMPT))


def test_parameters_arrive_as_they_were_asked_for(
    elsewhere: garcon.RemoteModel, llama_path: Path, plain: Plain
) -> None:
    name = "layers.1.mlp.down_proj"
    weight = plain.module("model.layers.1.mlp.down_proj").weight.detach()
    assert torch.equal(elsewhere.get_parameter(name), weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_value_comes_into_memory_that_is_there(
    elsewhere: garcon.RemoteModel, taken: list[int], dtype: torch.dtype
) -> None:
    def big(save_ctx: Any, tensor: torch.Tensor) -> None:
        save_ctx.value = torch.arange(3 * CHUNK // 4 + 5).remainder(251).to(dtype).view(-1, 1)

    elsewhere.forward(PROMPT, probes=[elsewhere.probe_points[POINT].probe(big)], logits="none")
    handle = elsewhere.recordings()[POINT].handle("value")
    out = torch.zeros(handle.shape, dtype=dtype)
    place = out.data_ptr()
    assert handle.fetch(out=out) is out
    assert out.data_ptr() == place and torch.equal(out, handle.fetch())
    assert taken == [out.nbytes, out.nbytes]
    elsewhere._channel.same_host = True
    assert torch.equal(handle.fetch(out=torch.zeros_like(out)), out)
    assert torch.equal(handle[:7].fetch(out=torch.zeros(7, 1, dtype=dtype)), out[:7])


def test_memory_that_does_not_fit_is_refused(elsewhere: garcon.RemoteModel) -> None:
    probe = elsewhere.probe_points[POINT].probe(lambda save_ctx, x: setattr(save_ctx, "x", x))
    elsewhere.forward(PROMPT, probes=[probe], logits="none")
    handle = elsewhere.recordings()[POINT].handle("x")
    wide = torch.zeros(2, 6, 80)
    for out, words in [
        (torch.zeros(2, 80, 6), r"is \[2, 6, 80\] torch.float32, out= is \[2, 80, 6\]"),
        (wide.double(), "torch.float64"),
        (wide.transpose(0, 1), "no contiguous tensor"),
        (wide.clone().requires_grad_(), "requires a gradient"),
        (wide.numpy(), "no contiguous tensor"),
    ]:
        with pytest.raises(garcon.BadRequest, match=words):
            handle.fetch(out=out)
    with pytest.raises(garcon.BadRequest, match="one value, not 2"):
        elsewhere.fetch(handle, handle, out=wide)


def test_what_a_client_leaves_behind_is_dropped(
    elsewhere: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection cannot fetch what was meant for one that said goodbye."""
    names: list[tuple[str, int]] = []

    def forget(self: Any, name: str, size: int, into: Any = None) -> Any:
        names.append((name, size))
        raise garcon.Interrupted("", "")

    other = garcon.connect(elsewhere.server.name)
    other._channel.same_host = False
    take = data_line.DataLine.take
    monkeypatch.setattr(data_line.DataLine, "take", forget)
    with pytest.raises(garcon.Interrupted):
        other.forward(LONG)
    monkeypatch.setattr(data_line.DataLine, "take", take)
    assert len(elsewhere._channel._data.take(*names[0])) == names[0][1]  # the key is all it takes
    monkeypatch.setattr(data_line.DataLine, "take", forget)
    with pytest.raises(garcon.Interrupted):
        other.forward(LONG)
    other.close()
    monkeypatch.setattr(data_line.DataLine, "take", take)
    with pytest.raises(garcon.Unreachable, match="no longer has"):
        elsewhere._channel._data.take(*names[1])


def test_a_kept_answer_is_fetched_later(
    elsewhere: garcon.RemoteModel, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a request from which its client detached comes as a transfer too."""
    channel = elsewhere._channel
    packed, buffers = transport.pack(_forward(elsewhere))
    told = {"session": elsewhere.session, "kind": "forward", "same_host": False, "by_socket": True}
    message: Any = channel._session.msg(protocol.REQUEST, {**told, **packed})
    name = message["header"]["msg_id"]
    # The two travel on two sockets, and either may be the first.
    channel.ask(protocol.DETACH, {"request": name, "session": elsewhere.session})
    asked = {"request": name, "session": elsewhere.session, "heard": 0}
    assert channel.ask(protocol.OUTCOME, asked)["state"] == "waiting"
    channel._session.send(channel._shell, message, buffers=list(buffers))
    value = elsewhere.result(name)
    assert close(value, plain.logits(LONG))


def _forward(model: garcon.RemoteModel) -> Any:
    from garcon_jupyter.wire import requests

    def slow(save_ctx: Any, tensor: Any) -> None:
        time.sleep(0.5)

    probe = model.probe_points[POINT].probe(slow)
    batch = requests.Batch(torch.tensor(LONG))
    return requests.Forward(session=model.session, batch=batch, probes=(probe.spec,))


@pytest.mark.processes
def test_two_stages_answer_over_it_too(llama_path: Path, plain: Plain, taken: list[int]) -> None:
    garcon.launch(llama_path, name="staged", pp=2, progress=quiet)
    model = garcon.connect("staged")
    model._channel.same_host = False
    assert close(model.forward(LONG), plain.logits(LONG))
    assert taken == [plain.logits(LONG).nbytes]
    model.shutdown(force=True)
