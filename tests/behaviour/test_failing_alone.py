"""A rank that fails alone, where the others wait for it: the request fails, and the ranks go on without a restart."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import OutOfMemory, RemoteModel, Server
from garcon_jupyter.servers import control
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"
LAYOUTS = [{"tp": 2}, {"tp": 2, "pp": 2}]

WITHIN = 5.0
"""Seconds from the failure to the error; a restart takes longer."""

AGAIN = 4

FAULT = """
if rank == {rank}:
    own = [layer for layer in model.model.layers if hasattr(layer, "mlp")]
    mlp, former = own[-1].mlp, own[-1].mlp.__dict__.get("forward")

    def once(*args, **kwargs):
        mlp.__dict__.pop("forward")
        if former is not None:
            mlp.__dict__["forward"] = former
        {what}

    mlp.__dict__["forward"] = once
"""
"""Makes the last layer of a rank fail at its next pass."""

TOO_MUCH = "torch.empty(1 << 45)"


@pytest.fixture(
    scope="module",
    params=LAYOUTS,
    ids=lambda layout: "-".join(f"{k}{v}" for k, v in layout.items()),
)
def cut(request: pytest.FixtureRequest, llama_path: Path) -> Iterator[Server]:
    server = garcon.launch(llama_path, "alone", progress=quiet, **request.param)
    yield server
    control.kill(server)


@pytest.fixture
def model(cut: Server, plain: Plain) -> Iterator[RemoteModel]:
    """A session on it; afterwards its ranks are the same processes, which compute the reference's numbers."""
    mine = garcon.connect(cut.name)
    before = mine.status()["ranks"]
    yield mine
    assert [rank["pid"] for rank in mine.status()["ranks"]] == [rank["pid"] for rank in before]
    assert close(
        mine.forward(PROMPT, probes=[mine.probe_points[OUT].probe(keep)]), plain.logits(PROMPT)
    )
    assert close(mine.recordings()[OUT].tensor, plain.output("model.layers.2.mlp", PROMPT))
    mine.close()


def keep(save_ctx: Any, tensor: torch.Tensor) -> None:
    save_ctx.tensor = tensor


def square(logits: torch.Tensor) -> torch.Tensor:
    return (logits[0, -1] ** 2).sum()


def ranks_of(model: RemoteModel) -> list[int]:
    return [rank["rank"] for rank in model.facts["ranks"]]


def test_memory_that_ends_in_a_layer(model: RemoteModel) -> None:
    for rank in ranks_of(model):
        model.run_on_ranks(FAULT.format(rank=rank, what=TOO_MUCH))
        began = time.monotonic()
        with pytest.raises(OutOfMemory, match=r"128\.0 TiB more were asked for"):
            model.forward(PROMPT)
        assert time.monotonic() - began < WITHIN


def test_memory_that_ends_in_other_requests(model: RemoteModel) -> None:
    last = ranks_of(model)[-1]
    requests = [
        lambda: model.generate(PROMPT, max_new_tokens=3),
        lambda: model.backward(PROMPT, square),
        lambda: model.forward(PROMPT, probes=model.probe_points["layers.*.attn.q"].probes(keep)),
    ]
    for request in requests:
        model.run_on_ranks(FAULT.format(rank=last, what=TOO_MUCH))
        with pytest.raises(OutOfMemory, match=r"128\.0 TiB more were asked for"):
            request()


def test_memory_that_really_ends(model: RemoteModel) -> None:
    """Rank 0 has a limit that its own layers exceed."""

    def takes_the_rest(save_ctx: Any, tensor: torch.Tensor) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (1, hard))

    long = [[5] * 120] * 64
    with pytest.raises(OutOfMemory, match="more were asked for"):
        model.forward(
            long, probes=[model.probe_points["embed.out"].probe(takes_the_rest)], logits="none"
        )


def test_a_fault_of_one_rank_is_told(model: RemoteModel) -> None:
    """Whichever rank has it, and not that the others lost it."""
    for rank in ranks_of(model):
        model.run_on_ranks(FAULT.format(rank=rank, what="raise KeyError('no such expert')"))
        with pytest.raises(KeyError, match="KeyError: 'no such expert'") as caught:
            model.forward(PROMPT)
        error: Any = caught.value
        assert re.search(r"in model\.layers\.\d", error.where)
        assert error.sources[-1] == "raise KeyError('no such expert')"  # of whom installed it


def test_again_and_again(model: RemoteModel) -> None:
    """Connections and threads of groups that were left are gone."""
    processes = [psutil.Process(rank["pid"]) for rank in model.status()["ranks"]]

    def held() -> list[tuple[int, int]]:
        return [(process.num_fds(), process.num_threads()) for process in processes]

    def fails() -> None:
        model.run_on_ranks(FAULT.format(rank=ranks_of(model)[-1], what=TOO_MUCH))
        with pytest.raises(OutOfMemory):
            model.forward(PROMPT)

    fails()
    before = held()
    for _ in range(AGAIN):
        fails()
    assert held() == before
