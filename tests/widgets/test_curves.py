"""Curves are where their values are."""

from __future__ import annotations

import re

import numpy as np
import pytest

from garcon_jupyter.errors import WrongValue
from garcon_jupyter.widgets.curves import NamedCurve, curves


def drawn(picture: str) -> list[np.ndarray]:
    """The points of each curve, [n, 2]."""
    paths = re.findall(r'class="curve" d="M([^"]*)"', picture)
    return [np.array([p.split() for p in path.split("L")], dtype=float) for path in paths]


def test_points_are_at_their_values_and_the_last_is_said() -> None:
    x, y = [100, 200, 400], [0.5, 0.25, 0.125]
    picture = curves(
        [NamedCurve("unexplained", x, y, percent=True), NamedCurve("L0", x, [4, 4, np.nan])],
        "a <b> dictionary",
        "done",
    )
    (one, other) = drawn(picture)
    assert len(one) == 3 and len(other) == 2  # what is not finite is left out
    across, down = one.T
    np.testing.assert_allclose(np.diff(across)[1] / np.diff(across)[0], 2, rtol=2e-3)
    # Down from the top: half of the largest is half-way to the floor.
    floor = down[0] + 2 * (down[1] - down[0])
    np.testing.assert_allclose(down[2], floor - (floor - down[0]) / 4, atol=0.11)
    assert "12.5%" in picture and "a &lt;b&gt; dictionary" in picture and "400 tokens" in picture


def test_first_steps_that_are_far_off_do_not_flatten_the_rest() -> None:
    y = np.full(100, 1.0)
    y[0] = 1e6
    (one,) = drawn(curves([NamedCurve("loss", np.arange(100), y)], "", ""))
    assert np.ptp(one[:, 1]) > 10


def test_nothing_yet_is_said_and_unequal_lengths_are_refused() -> None:
    assert "not yet" in curves([NamedCurve("loss", [], [])], "", "")
    with pytest.raises(WrongValue, match=r"x \[2\] and y \[1\]"):
        curves([NamedCurve("loss", [1, 2], [1])], "", "")
