"""Notebooks that are executed where nobody looks: what is saved is whole, or says that it is not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from numpy.typing import NDArray

from garcon_jupyter.widgets import headless

pytestmark = pytest.mark.processes

SETUP = """
import threading, numpy as np
from garcon_jupyter.widgets import PatchingWidget, Sheet
values = np.linspace(-1, 1, 12).reshape(4, 3)
ended = threading.Event()

def picture(wait):
    sheet = Sheet("sweep", np.full((4, 3), np.nan), range(4), ["a", "b", "c"], limit=1.0)
    widget = PatchingWidget([sheet], title="a sweep")
    def pieces():
        for row in range(4):
            if row == 2:
                wait()
            widget.fill(0, row, values[row])
            yield
    widget.later("sweep", pieces())
    return widget

over = threading.Event()

def until_the_cell_is_over():
    assert over.wait(60)
"""

CODES = 128 + np.round(127 * np.linspace(-1, 1, 12).reshape(4, 3))[::-1]


def executed(*cells: str, **environment: str) -> list[Any]:
    """The cells of a notebook that nbclient has executed."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in (SETUP, *cells)]
    )
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.execute(env={**os.environ, "PYTHONPATH": path, **environment})
    return notebook.cells


def still_of(cell: Any) -> str:
    return next(o.data["text/html"] for o in cell.outputs if "garcon-still" in str(o.get("data")))


def told(cell: Any) -> str:
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")


def test_the_last_cell_waits_for_its_picture(
    read_svg: Callable[[str], str], read_rasters: Callable[[str], list[NDArray[np.uint8]]]
) -> None:
    # This hook runs before that of the pictures: what is drawn then is drawn after the last line of the cell.
    _, cell = executed(
        "get_ipython().events.register('post_run_cell', lambda _: over.set())\n"
        "picture(until_the_cell_is_over)"
    )
    svg = read_svg(still_of(cell))
    assert np.array_equal(read_rasters(svg)[0], CODES)
    assert "missing" not in svg and "not finished" not in svg and told(cell) == ""


def test_what_takes_too_long_is_saved_as_it_is_and_says_so(
    read_svg: Callable[[str], str], read_rasters: Callable[[str], list[NDArray[np.uint8]]]
) -> None:
    cells = executed(
        "first = picture(ended.wait)\nfirst",
        "ended.set(), first.wait()\npicture(threading.Event().wait)",
        GARCON_DRAWING_TIME="0.5",
    )
    late, never = cells[1:]
    # It had its time; then it was finished by a later cell, while something was taken.
    assert re.search(r"<PatchingWidget a sweep.* is saved as it is.*0\.5 seconds", told(late))
    svg = read_svg(still_of(late))
    assert np.array_equal(read_rasters(svg)[0], CODES) and "not finished" not in svg
    svg = read_svg(still_of(never))
    cells_drawn = read_rasters(svg)[0]
    assert np.array_equal(cells_drawn[2:], CODES[2:]) and (cells_drawn[:2] == 128).all()
    assert "not finished" in svg and "not computed yet" in svg and 'class="missing"' in svg


def shell(**metadata: Any) -> Any:
    """As much of a shell as a cell's end asks for."""
    hooks: list[Callable[[], None]] = []
    events = SimpleNamespace(register=lambda _event, hook: hooks.append(hook))
    kernel = SimpleNamespace(get_parent=lambda _channel: {"metadata": metadata})
    return SimpleNamespace(events=events, kernel=kernel, hooks=hooks)


class Slow:
    """A picture that is asked whether it is finished."""

    def __init__(self) -> None:
        self.asked = 0
        self.worker = self

    def wait(self, _seconds: float) -> bool:
        self.asked += 1
        return True


@pytest.mark.parametrize("where", ["page", "nobody", "terminal", "seen"])
def test_a_cell_waits_only_where_nobody_looks(where: str) -> None:
    waiting, slow = headless._Displayed(), Slow()
    there = shell(cellId="c") if where == "page" else shell()
    if where == "terminal":
        there.kernel = None
    waiting.shown(slow, there)  # type: ignore[arg-type]
    waiting.watched = where == "seen"  # a picture in a browser has sent word
    (after_cell,) = there.hooks
    after_cell()
    assert slow.asked == (where == "nobody")
