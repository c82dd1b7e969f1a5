"""Small stores whose rows say their own number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from garcon_jupyter.activation_stores import ActivationStore, from_arrays
from garcon_jupyter.exchanges import ExchangePlan

ROWS = 2000


def rows_of(count: int) -> np.ndarray:
    """Rows of 8 float16 whose bits hold the row's number, and beside it its opposite."""
    numbers = np.arange(count, dtype=np.uint32)
    halves = np.stack([numbers & 0xFFFF, numbers >> 16], 1).astype(np.uint16)
    return np.concatenate([halves, halves ^ 0xFFFF, halves, halves], 1).view(np.float16)


def numbers_in(store: ActivationStore) -> np.ndarray:
    """The numbers that the rows of a store say, after a look at all of their bits."""
    found = next(store.batches(len(store), as_="numpy"))
    halves = found.activations.view(np.uint16).astype(np.uint32)
    numbers = halves[:, 0] | halves[:, 1] << 16
    assert np.array_equal(halves[:, 2], halves[:, 0] ^ 0xFFFF)
    assert np.array_equal(halves[:, 6], halves[:, 0]) and np.array_equal(found.place >> 32, numbers)
    assert np.array_equal(found.token, numbers % 1000)
    return numbers


def make(path: Path, count: int = ROWS, file_bytes: int = 8000) -> ActivationStore:
    tokens = np.arange(count) % 1000
    return from_arrays(path, rows_of(count), token=tokens, point="p", file_bytes=file_bytes)


@pytest.fixture
def source(tmp_path: Path) -> ActivationStore:
    """A store of 2,000 rows in seven files."""
    return make(tmp_path / "acts")


def plan_for(
    source: ActivationStore,
    chunk: int,
    piles: int = 1,
    partitions: int = 1,
    branches: int = 64,
    workers: int = 1,
) -> ExchangePlan:
    """How to go about a small store as if it were large."""
    facts = source.facts["points"]["p"]
    each = source.point_rows().layout.row_bytes
    rows = facts["rows_of_a_file"]
    return ExchangePlan(source.rows, each, workers, chunk, rows, piles, partitions, branches)


def content(store: ActivationStore) -> dict[str, bytes]:
    """All files of a store."""
    return {path.name: path.read_bytes() for path in store.path.iterdir() if path.name != ".lock"}
