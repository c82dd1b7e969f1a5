"""Numbers with named axes: indexed as arrays, or by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from garcon_jupyter import BadRequest, Values

ARRAY = np.arange(24.0).reshape(2, 3, 4)
TOKENS = (" a", " b", " a", " c")


@pytest.fixture
def values() -> Values:
    return Values(ARRAY, ("layer", "head", "position"), {"position": TOKENS}, "score")


def test_they_are_indexed_as_their_array_and_numpy_takes_them(values: Values) -> None:
    assert values.shape == (2, 3, 4) and len(values) == 2
    assert values[1, 2, -1] == 23 and np.array_equal(values[:, 0], ARRAY[:, 0])
    assert np.array_equal(np.asarray(values), ARRAY) and np.asarray(values) is not None
    assert float(np.mean(values)) == ARRAY.mean()
    half = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    assert np.asarray(Values(half, ("unit",))).dtype == np.float32


def test_places_are_named_by_axis_and_by_label(values: Values) -> None:
    assert values.at(layer=1, head=2, position=" c") == 23.0
    row = values.at(head=-1, position=slice(1, 3))
    assert row.axes == ("layer", "position") and row.labels == {"position": (" b", " a")}
    assert np.array_equal(row.array, ARRAY[:, -1, 1:3]) and row.name == "score"
    assert repr(row) == "<Values score: layer 2 × position 2>"


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"heads": 0}, "no axis 'heads'.*layer, head, position"),
        ({"position": " a"}, "2 places labelled ' a'"),
        ({"position": "a"}, "no place labelled 'a'"),
        ({"layer": 2}, "no place 2.*0 to 1"),
        ({"layer": [0, 1]}, "no place"),
    ],
)
def test_what_is_not_there_is_told(values: Values, places: dict, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        values.at(**places)


def test_names_and_labels_must_fit() -> None:
    for axes, labels in (
        (("a",), {}),
        (("a", "a", "b"), {}),
        (("a", "b", "c"), {"d": ("x",)}),
        (("a", "b", "c"), {"c": ("x",)}),
    ):
        with pytest.raises(BadRequest):
            Values(ARRAY, axes, labels)
