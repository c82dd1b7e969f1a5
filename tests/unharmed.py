"""A session that is treated badly, while everybody else goes on unharmed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import RemoteModel, Server
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


@contextmanager
def unharmed(server: Server, plain: Plain, tolerance: float = 1e-5) -> Iterator[RemoteModel]:
    """A session; afterwards another has what it saved and the reference's numbers, and no process was lost."""
    mine, other = garcon.connect(server.name), garcon.connect(server.name)
    processes = [psutil.Process(rank["pid"]) for rank in mine.status()["ranks"]]
    other.forward(PROMPT, probes=[other.probe_points[OUT].probe(keep)], logits="none")
    yield mine
    mine.clear_recordings()
    assert close(other.forward(PROMPT), plain.logits(PROMPT), tolerance)
    saved = other.recordings()[OUT].tensor
    assert close(saved, plain.output("model.layers.2.mlp", PROMPT), tolerance)
    assert all(process.is_running() for process in processes)
    mine.close(), other.close()
