"""What is kept is told in short, and read in slices."""

from __future__ import annotations

import numpy as np
import pytest

from garcon_jupyter.agents.kept_arrays import SLICE, KeptArray, Shelf
from garcon_jupyter.errors import BadRequest, UnknownName

VALUES = np.random.default_rng(0).normal(size=(30, 9, 20)).astype(np.float32)


def kept(values: np.ndarray = VALUES) -> KeptArray:
    return Shelf().keep(
        values, {"layer": None, "head": None, "token": [f"t{n}" for n in range(20)]}, "test"
    )


def test_a_large_one_is_told_by_shape_statistics_and_the_strongest() -> None:
    told = kept().told()
    assert told["axes"] == {"layer": 30, "head": 9, "token": 20} and "values" not in told
    wide = VALUES.astype(float)
    for word, number in (("mean", wide.mean()), ("std", wide.std()), ("min", wide.min())):
        assert told["statistics"][word] == pytest.approx(number, rel=1e-5)
    best = np.unravel_index(np.abs(VALUES).argmax(), VALUES.shape)
    first = told["strongest"][0]
    assert (first["layer"], first["head"], first["token"]) == (best[0], best[1], f"t{best[2]}")
    assert first["value"] == pytest.approx(VALUES[best], rel=1e-5)  # with its sign
    sizes = [abs(row["value"]) for row in told["strongest"]]
    assert sizes == sorted(sizes, reverse=True) and len(sizes) == 10


def test_numbers_that_are_none_are_counted_and_never_strongest() -> None:
    values = VALUES.copy()
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    told = kept(values).told()
    assert told["statistics"]["none"] == 3 and np.isfinite(told["statistics"]["max"])
    assert all(row["value"] is not None for row in told["strongest"])


def test_a_slice_has_the_numbers_and_the_labels() -> None:
    told = kept().cut([3, None, [5, 8]]).numbers()
    assert told["axes"] == {"head": [*range(9)], "token": ["t5", "t6", "t7"]}
    assert np.allclose(told["values"], VALUES[3, :, 5:8], rtol=1e-5)
    assert kept().cut([-1, 0, 0]).numbers()["values"] == pytest.approx(VALUES[-1, 0, 0], rel=1e-5)


@pytest.mark.parametrize(
    ("cuts", "says"),
    [
        ([30], "no place 30 along layer"),
        ([None, [3, 3]], "no part of the 9 places"),
        ([None, [0, 10]], "no part of the 9 places"),
        ([0, 0, 0, 0], "cut along 4"),
    ],
)
def test_places_that_there_are_not(cuts: list[object], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        kept().cut(cuts)  # type: ignore[arg-type]


def test_a_slice_is_bounded() -> None:
    with pytest.raises(BadRequest, match=f"5,400 numbers, and one answer has at most {SLICE:,}"):
        kept().numbers()


def test_the_oldest_goes_when_there_is_no_room() -> None:
    shelf = Shelf(room=3 * 400)
    for _ in range(5):
        shelf.keep(np.zeros(100, np.float32), {"n": None}, "")
    assert shelf.bytes == 1200 and shelf["array 5"].values.size == 100
    with pytest.raises(UnknownName) as caught:
        shelf["array 1"]
    assert "array 3" in caught.value.nearest
