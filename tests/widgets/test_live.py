"""The live view, on a function in place of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import Edit, LiveWidget, Outcome


def compute(text: str, edits: Sequence[Edit]) -> Outcome:
    """Every token a letter; activations 1, times the strengths of all edits."""
    if not text:
        raise BadRequest("'' has no tokens.", "Give at least one character.")
    before = np.ones((len(text), 1000), dtype=np.float32)
    after = before * float(np.prod([edit.strength for edit in edits], initial=1.0))
    after[0, 999] = -7
    return Outcome(list(text), [(" a", 0.75, 0.25), ("\n", 0.5, 1.0)], {"point": (after, before)})


def test_a_text_and_a_slider_change_what_is_shown() -> None:
    widget = LiveWidget(compute, "abc", ["point"], [Edit("point", "scale", 3.0)])
    assert widget.pieces == ["a", "b", "c"]
    assert widget.predictions == [["·a", 0.75, 0.25], ["⏎", 0.5, 1.0]]
    strip = widget.strips[0]
    assert (strip["tokens"], strip["units"], strip["pooled"]) == (3, 1000, 2)
    values = np.frombuffer(strip["values"], "<f4").reshape(3, 500)
    assert values[0, 499] == -7 and (values[1] == 3).all()
    changed = np.frombuffer(strip["changed"], "<f4").reshape(3, 500)
    assert changed[0, 499] == -8 and (changed[1] == 2).all()
    widget.edits = [{**widget.edits[0], "strength": -2.0}]
    widget.text = "ab"
    assert widget.worker.wait()
    values = np.frombuffer(widget.strips[0]["values"], "<f4").reshape(2, 500)
    assert widget.pieces == ["a", "b"] and (values[1] == -2).all()
    widget.edits = [{**widget.edits[0], "on": False}]
    assert widget.worker.wait()
    assert np.frombuffer(widget.strips[0]["values"], "<f4").reshape(2, 500)[1, 0] == 1


def test_an_error_leaves_the_old_picture_and_goes_away() -> None:
    widget = LiveWidget(compute, "abc")
    widget.text = ""
    assert widget.worker.wait() and "has no tokens" in widget.trouble
    assert widget.pieces == ["a", "b", "c"]
    widget.text = "x"
    assert widget.worker.wait() and (widget.trouble, widget.pieces) == ("", ["x"])


def test_the_still_picture_and_mistakes() -> None:
    html = LiveWidget(compute, "abc", edits=[Edit("point", unit=3)]).still()
    assert html.count("<img") == 1 and "with 1 edits" in html
    with pytest.raises(BadRequest, match="There is no edit 'zero'"):
        Edit("point", "zero")  # type: ignore[arg-type]
