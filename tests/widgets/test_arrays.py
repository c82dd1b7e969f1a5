"""Conversion, pooling and scale, against loops that anyone can check."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import arrays


def test_bfloat16_on_the_graph_keeps_its_values() -> None:
    tensor = torch.tensor([1.0, -2.5, 3.140625], dtype=torch.bfloat16, requires_grad=True)
    seen = arrays.as_float32(tensor * 1)
    assert seen.dtype == np.float32
    assert seen.tolist() == [1.0, -2.5, 3.140625]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.uint8])
def test_every_real_dtype_keeps_its_values(dtype: torch.dtype) -> None:
    assert arrays.as_float32(torch.tensor([[0, 1], [2, 100]], dtype=dtype)).tolist() == [
        [0.0, 1.0],
        [2.0, 100.0],
    ]


def test_booleans_are_zero_and_one() -> None:
    assert arrays.as_float32(np.array([True, False])).tolist() == [1.0, 0.0]


def test_a_later_change_of_the_array_does_not_show() -> None:
    source = torch.zeros(3)
    seen = arrays.as_float32(source)
    source += 1
    assert seen.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("array", [np.array([1j]), torch.tensor([1j]), np.array(["a"])])
def test_what_holds_no_real_numbers_is_refused(array: object) -> None:
    with pytest.raises(BadRequest):
        arrays.as_float32(array)


def test_pooling_keeps_the_strongest_with_its_sign() -> None:
    values = np.random.default_rng(0).standard_normal((4, 23)).astype(np.float32)
    pooled = arrays.pool(values, 5)
    assert pooled.shape == (4, 5)
    for row in range(4):
        for run in range(5):
            mine = values[row, run * 5 : run * 5 + 5]
            assert pooled[row, run] == max(mine, key=abs)


def test_one_strong_unit_survives_pooling_and_a_mean_would_lose_it() -> None:
    values = np.zeros((1, 49_152), dtype=np.float32)
    values[0, 31_337] = -7.0
    assert arrays.pool(values, 64).min() == -7.0
    assert values.reshape(1, -1, 64).mean(axis=-1).min() > -0.2


def test_nan_is_never_hidden_by_pooling() -> None:
    values = np.array([[1.0, np.nan, 9.0, np.inf, 2.0, 3.0]], dtype=np.float32)
    pooled = arrays.pool(values, 3)
    assert np.isnan(pooled[0, 0])
    assert pooled[0, 1] == np.inf


def test_pooling_along_another_axis() -> None:
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert arrays.pool(values, 4, axis=0).tolist() == [[6.0, 7.0], [10.0, 11.0]]


def test_head_norms_do_not_overflow() -> None:
    values = np.full((1, 1, 2, 4), 1e25, dtype=np.float32)
    assert np.allclose(arrays.head_norms(values), 2e25)


def test_full_colour_is_the_largest_value_unless_outliers_would_drown_the_rest() -> None:
    even = np.linspace(-2, 1, 1001, dtype=np.float32)
    assert arrays.colour_limit(even) == 2.0
    massive = np.append(even, np.float32(800.0))
    assert 1.9 < arrays.colour_limit(massive) <= 2.0
    assert arrays.colour_limit(np.array([np.nan, np.inf, 0.0], dtype=np.float32)) == 1.0
    assert arrays.colour_limit(np.zeros((0, 5), dtype=np.float32)) == 1.0
