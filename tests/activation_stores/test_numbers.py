"""How activations are stored: every 16-bit pattern comes back, what would become infinite is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import from_arrays, numbers

PATTERNS = np.arange(1 << 16, dtype=np.uint16).reshape(-1, 64)
"""Every pattern of 16 bits: all numbers, infinities, and NaN with every payload."""


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_pattern_of_16_bits_comes_back(dtype: str, tmp_path: Path) -> None:
    given = PATTERNS.view(np.float16) if dtype == "float16" else PATTERNS
    store = from_arrays(tmp_path / "acts", given, given=dtype, file_bytes=30_000)
    rows = store[:]
    assert rows.activations.dtype == getattr(torch, dtype)
    assert np.array_equal(rows.activations.view(torch.int16).numpy().view(np.uint16), PATTERNS)
    files = [load_file(file) for file in sorted((tmp_path / "acts").glob("*.safetensors"))]
    assert len(files) > 2  # and as safetensors itself reads them
    read = torch.cat([file["activations"] for file in files]).view(torch.int16)
    assert np.array_equal(read.numpy().view(np.uint16), PATTERNS)
    assert store.lost == {"activations": 0.0}


def test_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 200_000, np.uint64).astype(np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([0, -0.0, 1.00390625, 1.01171875])])
    ours = numbers.to_bfloat16(values)
    theirs = torch.from_numpy(values).bfloat16().view(torch.int16).numpy().view(np.uint16)
    real = ~np.isnan(values)
    assert np.array_equal(ours[real], theirs[real])
    assert np.isnan(numbers.as_float32(ours[~real], "bfloat16")).all()
    cut = (values.view(np.uint32) >> 16).astype(np.uint16)  # the wrong way: no rounding
    assert not np.array_equal(cut[real], theirs[real])


@pytest.mark.parametrize("value", [70_000.0, -65_520.0, 3.4e38])
def test_what_would_become_infinite_is_refused(value: float, tmp_path: Path) -> None:
    values = np.float32([[1.0, value], [65_504.0, np.inf]])
    with pytest.raises(garcon.BadData, match=r"beyond float16.*65504"):
        from_arrays(tmp_path / "acts", values, point="layers.1.resid_post")
    kept = numbers.encoded(values, "float32", "float32")
    assert np.array_equal(kept.values, values)


def test_infinities_that_the_model_had_stay() -> None:
    rows = numbers.encoded(np.float32([[np.inf, -np.inf, np.nan, 65_504.0]]), "float32", "float16")
    assert np.isinf(rows.values[0, :2]).all() and np.isnan(rows.values[0, 2])


def test_float16_tells_what_it_loses_of_float32() -> None:
    values = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32)
    rows = numbers.encoded(values, "float32", "float16")
    off = rows.values.astype(np.float64) - values
    expected = (
        np.linalg.norm(off, axis=1) / np.linalg.norm(values.astype(np.float64), axis=1)
    ).max()
    assert 0 < rows.lost < 1e-3 and rows.lost == pytest.approx(expected, rel=1e-6)


def test_8_bits_are_taken_only_when_asked_for_and_tell_their_loss(tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(size=(100, 32)).astype(np.float32)
    values[3] = 0
    assert numbers.chosen(None, "float32") == "float16"
    store = from_arrays(tmp_path / "acts", values, dtype="int8")
    back = store[:].activations.numpy()
    assert np.abs(back - values).max() <= np.abs(values).max() / 127 / 2 * 1.001
    assert 0.001 < store.lost["activations"] < 0.03
    with pytest.raises(garcon.BadData, match="not finite"):
        numbers.encoded(np.float32([[np.nan]]), "float32", "int8")


def test_a_way_to_store_that_there_is_not_is_refused() -> None:
    with pytest.raises(garcon.BadRequest, match="float8"):
        numbers.chosen("float8", "float32")
