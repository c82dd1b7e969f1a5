"""What draws a thing is found by its class, and where nothing does it says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from garcon_jupyter import BadRequest
from garcon_jupyter.client import display_hooks


class Shape:
    """Something to draw."""


class Square(Shape):
    """Something of that kind."""


def test_a_thing_is_drawn_as_its_class_or_the_next_above() -> None:
    display_hooks.register(Shape, html=lambda shape: "a shape", show=lambda shape, size: size * 2)
    assert display_hooks.html(Square()) == "a shape"
    assert display_hooks.drawn(Square(), "show", 21) == 42
    display_hooks.register(Square, html=lambda square: "a square")
    assert (display_hooks.html(Square()), display_hooks.html(Shape())) == ("a square", "a shape")


def test_what_nothing_draws_is_text_or_an_error_with_a_remedy() -> None:
    assert display_hooks.html(object()) is None
    with pytest.raises(BadRequest, match="import garcon_jupyter.display"):
        display_hooks.drawn(object(), "show")


@pytest.mark.processes
def test_importing_the_room_registers_what_it_draws() -> None:
    code = """
import sys
from garcon_jupyter.client import display_hooks
from garcon_jupyter.client.probes import ProbePoints
from garcon_jupyter.points import Catalog
points = object.__new__(ProbePoints)
assert points._repr_html_() is None
import garcon_jupyter.display
assert not {"torch", "plotly", "anywidget"} & set(sys.modules)
assert display_hooks._found(points, "html") is not None
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
