"""What only a GPU can show: the same numbers, and memory that ends on a device. Skipped where torch sees none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import ProbeError, RemoteModel, Server
from garcon_jupyter.errors import OutOfMemory
from garcon_jupyter.servers import control
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close
from tests.unharmed import OUT, unharmed

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")

NEAR = 1e-4
"""As close as two devices come in float32."""

CHUNK = 1 << 28
"""Bytes that a hoarder asks for at a time."""

LAYOUTS = [words for words in ({}, {"tp": 2}, {"pp": 2}) if len(words) < torch.cuda.device_count()]
"""One GPU, and both ways over two of them, by NCCL, where there are two."""


@pytest.fixture(scope="module", params=LAYOUTS, ids=str)
def on_gpus(request: pytest.FixtureRequest, llama_path: Path) -> Iterator[Server]:
    server = garcon.launch(llama_path, "gpus", device="cuda", progress=quiet, **request.param)
    yield server
    control.stop(server, force=True)


@pytest.fixture
def model(on_gpus: Server, plain: Plain) -> Iterator[RemoteModel]:
    """A session on it."""
    with unharmed(on_gpus, plain, NEAR) as mine:
        yield mine


def near(mine: Tensor, theirs: Tensor) -> bool:
    return close(mine.cpu(), theirs, NEAR)


def run(model: RemoteModel, function: Any) -> Any:
    return model.forward(PROMPT, probes=[model.probe_points[OUT].probe(function)])


def test_values_are_where_the_model_is(model: RemoteModel, plain: Plain) -> None:
    def where(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.device, save_ctx.tensor = tensor.device.type, tensor

    assert near(run(model, where), plain.logits(PROMPT))
    assert model.recordings()[OUT].device == "cuda"
    assert near(model.recordings()[OUT].tensor, plain.output("model.layers.2.mlp", PROMPT))


def test_asking_a_device_for_too_much_at_once(model: RemoteModel) -> None:
    def greedy(save_ctx: Any, tensor: Tensor) -> None:
        torch.ones(1 << 40, device=tensor.device)  # the line that is to blame

    with pytest.raises(OutOfMemory, match=r"Memory of cuda:\d ended: 4\.0 TiB more") as caught:
        run(model, greedy)
    assert isinstance(caught.value, ProbeError)
    assert "the line that is to blame" in str(caught.value)


def test_a_device_s_memory_comes_back_each_time(model: RemoteModel) -> None:
    def hoards(save_ctx: Any, tensor: Tensor) -> None:
        hoard = []
        while True:
            hoard.append(torch.ones(CHUNK // 4, device=tensor.device))

    def free(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.free = torch.cuda.mem_get_info(tensor.device)[0]

    run(model, free)
    before = model.recordings()[OUT].free
    for _ in range(3):
        with pytest.raises(OutOfMemory, match=r"Memory of cuda:\d ended") as caught:
            run(model, hoards)
        assert "hoard.append" in str(caught.value)
        run(model, free)
        assert model.recordings()[OUT].free > before - 2 * CHUNK
