"""Experiments: patching beside loops and TransformerLens, attribution beside patching, lenses beside bare backwards, and connectivity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks import attribution, connectivity, lens_patching, lenses, patching
from benchmarks.harness import Row


def rows(folder: Path) -> Iterator[Row]:
    yield from patching.rows(folder)
    yield from attribution.rows(folder)
    yield from lens_patching.rows(folder)
    yield from lenses.rows(folder)
    yield from connectivity.rows(folder)
