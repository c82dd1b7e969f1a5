"""Small stores of known rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from garcon_jupyter.activation_stores import ActivationStore, from_arrays

ROWS, UNITS = 1000, 24


@pytest.fixture
def values() -> np.ndarray:
    """float16 [rows, units]."""
    return np.random.default_rng(0).normal(size=(ROWS, UNITS)).astype(np.float16)


@pytest.fixture
def places() -> np.ndarray:
    """Documents of 1, 2, 3, … tokens."""
    lengths = np.arange(1, 60)
    documents = np.repeat(np.arange(len(lengths)), lengths)[:ROWS]
    offsets = np.concatenate([np.arange(n) for n in lengths])[:ROWS]
    return documents << 32 | offsets


@pytest.fixture
def store(values: np.ndarray, places: np.ndarray, tmp_path: Path) -> ActivationStore:
    """The rows, in files of about 100."""
    tokens = np.arange(ROWS) % 311
    return from_arrays(tmp_path / "acts", values, places, tokens, "a.point", file_bytes=6000)
