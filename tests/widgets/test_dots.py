"""A map: where dots are in its still picture, and which are selected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from garcon_jupyter import BadRequest
from garcon_jupyter.widgets import DotsWidget, TokensWidget, link

PLACES = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0]])
TEXTS = ["⟨a⟩ b", "a⟨\n⟩", "<b>", "d"]


def four(**options: Any) -> DotsWidget:
    return DotsWidget(
        PLACES, TEXTS, [f"text {n}" for n in range(4)], "a point", "by PCA", **options
    )


def drawn(svg: str) -> list[ElementTree.Element]:
    """The circles of a picture, from the lowest."""
    return [each for each in ElementTree.fromstring(svg).iter() if each.tag.endswith("circle")]


def test_its_still_has_each_dot_at_its_place(read_svg: Callable[[str], str]) -> None:
    """One scale for both axes, the second upwards."""
    circles = drawn(read_svg(four().still()))
    x, y = (np.array([float(each.get(word)) for each in circles]) for word in ("cx", "cy"))
    across, up = x[1] - x[0], y[0] - y[2]
    assert across > 0 and across == pytest.approx(2 * up, abs=0.2)
    assert x.tolist() == [x[0], x[1], x[0], x[1]] and y.tolist() == [y[0], y[0], y[2], y[2]]


def test_shades_go_from_the_smallest_to_the_largest() -> None:
    codes = np.frombuffer(four(shades=[3.0, 1.0, 2.0, 5.0]).codes, np.uint8)
    assert [*np.argsort(codes)] == [1, 2, 0, 3] and len(set(codes)) == 4
    assert len({*four().codes}) == 1


def test_what_is_selected_is_known_with_its_texts(read_svg: Callable[[str], str]) -> None:
    widget = four()
    assert widget.selected == [] and widget.summary == "4 dots"
    told: list[Any] = []
    widget.observe(lambda change: told.append(change["new"]), "selected")
    widget.selected = [2, 1, 2, 9, -1]  # there is no dot 9
    assert widget.selected == [1, 2] and told == [[1, 2]]
    assert widget.selected_texts == ["a⟨\n⟩", "<b>"] and "2 selected" in repr(widget)
    circles = drawn(read_svg(widget.still()))
    strengths = [each.get("fill-opacity") for each in circles]
    assert strengths == ["0.2", "0.2", "1.0", "1.0"]  # those that are selected lie above


def test_maps_are_tied_to_maps() -> None:
    link(four(), four())
    with pytest.raises(TypeError, match="several dots"):
        link(four(), TokensWidget(["a"], {"loss": [1.0]}))


def test_no_dots_and_wrong_ones() -> None:
    assert "svg" in DotsWidget(np.zeros((0, 2)), [], []).still()
    for places, texts in ((np.zeros((2, 3)), ["a", "b"]), (np.zeros((2, 2)), ["a"])):
        with pytest.raises(BadRequest, match="texts and 2 names"):
            DotsWidget(places, texts, ["x", "y"])
