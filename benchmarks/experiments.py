"""Experiments: patching beside a loop of forwards, attribution beside patching, and connectivity from the weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import attribution, connectivity, patching
from benchmarks.harness import Row


def rows(folder: Path) -> Iterator[Row]:
    yield from patching.rows(folder)
    yield from attribution.rows(folder)
    yield from connectivity.rows(folder)
