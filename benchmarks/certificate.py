"""What a certificate of a real model takes, beside a forward of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.harness import Row, Times, await_rest, told
from benchmarks.servers import served, smollm2

ALLOWED = 5.0
"""Seconds."""

ROUNDS = 3


def rows(folder: Path) -> Iterator[Row]:
    with served(smollm2(), "bench-certificate") as model:
        taken, forwards = [], []
        for _ in range(ROUNDS):
            await_rest()
            start = time.perf_counter()
            model.forward([[1, 2, 3, 4, 5]], probes=[])
            between = time.perf_counter()
            certificate = model.certify(anew=True)
            taken.append(time.perf_counter() - between)
            forwards.append(between - start)
            assert certificate.holds
    times = Times(tuple(taken))
    yield Row(
        "certificate of SmolLM2: values, edits and gradients of all its points",
        f"{times}, as long as {times.median / median(forwards):.0f} forwards of its text, each {told(median(forwards))}",
        f"≤ {ALLOWED:.0f} s",
        times.median <= ALLOWED,
        times.median / ALLOWED,
    )
