"""Experiments: patching beside loops and TransformerLens, attribution beside patching, lenses beside bare backwards, and composition."""
"""Experiments: patching beside a loop of forwards, attribution beside patching, and connectivity from the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

import garcon_jupyter as garcon
from benchmarks import attribution, lens_patching, lenses, patching
from benchmarks.harness import Row, told
from benchmarks.servers import smollm2
from garcon_backend.in_process import open_here

FORWARDS = 400
"""As many forwards of 14 tokens may all compositions of a model's heads cost."""
from benchmarks import attribution, connectivity, patching
from benchmarks.harness import Row


def rows(folder: Path) -> Iterator[Row]:
    yield from patching.rows(folder)
    yield from attribution.rows(folder)
    yield from lens_patching.rows(folder)
    yield from lenses.rows(folder)
    yield _composition()


def _composition(rounds: int = 5) -> Row:
    """All of them, Q, K and V, beside forwards of 14 tokens: CPU time, one thread, model and client in one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = garcon.connect(open_here(smollm2(), name="bench-composition"))
    try:
        began = time.process_time()
        for kind in "QKV":
            model.experiments.composition(kind)
        whole, forwards = time.process_time() - began, []
        ids = torch.arange(14)[None] * 37 + 11
        for _ in range(rounds):
            began = time.process_time()
            model.forward(ids, logits="last", probes=[])
            forwards.append(time.process_time() - began)
    finally:
        torch.set_num_threads(threads)
        model.close()
    ratio = whole / min(forwards)
    return Row(
        "Q, K and V compositions of all pairs of SmolLM2's 270 heads (CPU time)",
        f"{told(whole)}, as much as {ratio:.0f} forwards of 14 tokens",
        f"≤ {FORWARDS} forwards",
        ratio <= FORWARDS,
        ratio / FORWARDS,
    )
    yield from connectivity.rows(folder)
