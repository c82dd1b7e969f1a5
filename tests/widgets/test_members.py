"""Several models side by side: one scale, one selection, and the selected value over steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from garcon_jupyter import BadRequest
from garcon_jupyter.widgets import MembersWidget, colours
from garcon_jupyter.widgets.members import places_of

STEPS = (0, 8, 64, 512)
ONE = np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5
ERROR = RuntimeError("it was killed")


def four() -> MembersWidget:
    members = {f"step{n}": ONE * n / 512 for n in STEPS}
    members["step64"] = ERROR  # type: ignore[assignment]
    return MembersWidget(members, ["a", " b"], title="a point", steps=STEPS, row_name="token")


def test_all_columns_have_one_scale_of_colour() -> None:
    widget = four()
    assert widget.limit == 2.5
    codes = colours.codes(widget.values.array, widget.limit)
    assert codes[3].max() == 255 and codes[1].max() < 140  # alone, it would be full colour too


def test_the_selected_value_is_a_line_over_the_members() -> None:
    widget = four()
    widget.selected_row, widget.selected_column = 1, 2
    line = widget.line
    assert line.array.tolist()[:2] == [0.0, pytest.approx(2.5 * 8 / 512)]
    assert math.isnan(line.array[2]) and line.array[3] == 2.5
    assert line.name == "token ·b, column 2" and line.labels["member"][3] == "step512"
    widget.selected_row = -1
    with pytest.raises(BadRequest, match="No cell"):
        _ = widget.line


def test_what_differs_most_is_selected_first() -> None:
    later = np.zeros((3, 4), np.float32)
    later[2, 1] = -5
    widget = MembersWidget({"a": np.zeros((3, 4)), "b": later})
    assert (widget.selected_row, widget.selected_column) == (2, 1)


def test_steps_stand_by_their_logarithm_at_their_real_places() -> None:
    assert places_of([1, 10, 100], 3) == pytest.approx([0, 0.5, 1])
    assert places_of([0, 8, 64, 512], 4) == pytest.approx([0, 1 / 7, 4 / 7, 1])
    assert places_of(None, 3) == [0, 0.5, 1] and places_of([5], 1) == [0]
    assert places_of([7, 7], 2) == [0, 1]
    assert four().ticks == ["0", "8", "64", "512"] and four().axis == "step"
    assert MembersWidget({"base": ONE, "tuned": ONE}).ticks == ["base", "tuned"]


def test_a_selection_beyond_the_picture_is_the_nearest_that_there_is() -> None:
    widget = four()
    widget.selected_row, widget.selected_column, widget.sheet = 9, -7, 4
    assert (widget.selected_row, widget.selected_column, widget.sheet) == (1, -1, 0)


def test_a_member_that_failed_says_so_in_its_column(
    read_svg: Callable[[str], str], read_rasters: Callable[[str], Any]
) -> None:
    widget = four()
    still = widget.still()
    words = read_svg(still)
    for said in ("step0", "step64", "RuntimeError: it was killed", "a point", "512", "step"):
        assert said in words
    assert widget.errors == ["", "", "RuntimeError: it was killed", ""]
    assert "1 failed" in widget.summary
    pictures = read_rasters(words)
    assert len(pictures) == 3 + 1  # of those that did not fail, and the scale


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({}, "no members"),
        ({"a": ERROR}, "shapes {}"),
        ({"a": ONE, "b": ONE.T}, r"\(2, 3\).*\(3, 2\)"),
        ({"a": np.zeros(3)}, "of the shapes"),
        ({"a": np.zeros((0, 3))}, "cannot be drawn"),
        ({"a": np.zeros((3000, 3000))}, "9,000,000 values"),
    ],
)
def test_what_cannot_be_drawn_is_refused(members: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        MembersWidget(members)


def test_labels_must_fit() -> None:
    with pytest.raises(BadRequest, match="3 labels for 2 tokens"):
        MembersWidget({"a": ONE}, ["x", "y", "z"], row_name="token")
