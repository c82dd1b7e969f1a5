"""What is read from the weights of SmolLM2, beside forwards of 14 tokens: CPU time, one thread, model and client in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import garcon_jupyter as garcon
from benchmarks.harness import Row, told
from benchmarks.servers import smollm2
from garcon_backend.in_process import open_here

FORWARDS = 400
"""As many forwards of 14 tokens may all compositions of a model's heads cost."""

LAYERS = 8
"""Layers of the connectome that is made: 28 of the 435 pairs of layers, in both directions."""

FORWARDS_A_PAIR = 4
"""As many may all connections of a pair of layers cost: of 1,536 neurons by gate and by linear part, and of nine heads."""


def rows(folder: Path, rounds: int = 5) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = garcon.connect(open_here(smollm2(), name="bench-connectivity"))
    ids = torch.arange(14)[None] * 37 + 11
    try:
        forward = min(
            _took(lambda: model.forward(ids, logits="last", probes=[])) for _ in range(rounds)
        )
        whole = _took(lambda: [model.experiments.composition(kind) for kind in "QKV"])
        path, layers = folder / "bench.connectome", range(LAYERS)
        some = _took(lambda: model.experiments.connectome(path, layers=layers, tokens=False))
    finally:
        torch.set_num_threads(threads)
        model.close()
    ratio, pairs = whole / forward, LAYERS * (LAYERS - 1) // 2
    yield Row(
        "Q, K and V compositions of all pairs of SmolLM2's 270 heads (CPU time)",
        f"{told(whole)}, as much as {ratio:.0f} forwards of 14 tokens",
        f"≤ {FORWARDS} forwards",
        ratio <= FORWARDS,
        ratio / FORWARDS,
    )
    each = some / pairs / forward
    yield Row(
        f"the connectome of {LAYERS} layers of SmolLM2, {pairs} pairs of layers, without tokens (CPU time)",
        f"{told(some)}; a pair as much as {each:.1f} forwards of 14 tokens",
        f"≤ {FORWARDS_A_PAIR} forwards a pair",
        each <= FORWARDS_A_PAIR,
        each / FORWARDS_A_PAIR,
    )


def _took(run: Callable[[], object]) -> float:
    """CPU seconds."""
    began = time.process_time()
    run()
    return time.process_time() - began
