"""``show``, the still picture, and what remains of both in a converted notebook."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbconvert
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.widgets import ActivationsWidget, AttentionWidget, show, static_html

SVG_TEXT = "{http://www.w3.org/2000/svg}text"
VIEW_MIMETYPE = "application/vnd.jupyter.widget-view+json"
HARD_TOKENS = ["<script>alert(1)</script>", "&amp;", '"', "\n", "🙂", " שלום", "\ud83d", ""]


def test_dims_choose_the_view() -> None:
    def widget(shape: tuple[int, ...], *dims: str) -> Any:
        return show(np.zeros(shape), dims).widget

    assert widget((1, 5, 16), "b", "p", "M").unit_name == "neuron"
    assert widget((1, 5, 16), "b", "p", "D").unit_name == "dimension"
    assert widget((1, 5, 1), "b", "p", "1").units == 1
    assert widget((5, 16), "n", "M").rows == 1
    heads = widget((1, 5, 9, 4), "b", "p", "H", "d")
    assert isinstance(heads, ActivationsWidget) and heads.heads == 9
    assert widget((1, 5, 3, 4), "b", "p", "K", "d").heads == 3
    assert isinstance(widget((1, 9, 5, 5), "b", "H", "p_q", "p_k"), AttentionWidget)
    assert show(np.zeros((1, 5, 16)), ("b", "p", "M"), unit_name="feature").widget.unit_name == (
        "feature"
    )


def test_unknown_dims_draw_the_last_two_axes() -> None:
    values = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    widget = show(values, None, tokens=["does", "not", "fit"]).widget
    assert (widget.rows, widget.units, len(widget.labels)) == (6, 5, 4)
    widget.row = 4
    assert np.array_equal(np.frombuffer(widget.frame, "<f4").reshape(4, 5), values[1, 1])
    assert show(torch.tensor(3.0), ()).widget.units == 1
    assert show(np.arange(7), ("x",)).widget.units == 7


@pytest.mark.parametrize(
    ("shape", "dims", "tokens", "message"),
    [
        ((1, 5, 16), ("b", "p"), None, "dims names 2 axes"),
        ((1, 5, 16), ("b", "p", "M"), [["a"]], "Text 0 has 1 tokens and the array 5"),
    ],
)
def test_mistakes_are_told_by_the_call(
    shape: tuple[int, ...], dims: tuple[str, ...], tokens: Any, message: str
) -> None:
    with pytest.raises(BadRequest, match=message):
        show(np.zeros(shape), dims, tokens)


def test_the_still_picture_has_the_colours_of_the_values(
    read_svg: Callable[[str], str], read_rasters: Callable[[str], list[NDArray[np.uint8]]]
) -> None:
    values = torch.randn(1, 4, 30, dtype=torch.bfloat16, generator=torch.manual_seed(0))
    cells = read_rasters(read_svg(static_html(values, ("b", "p", "M"))))[0]
    exact = values[0].float().numpy()
    assert np.array_equal(cells, 128 + np.round(127 * exact / np.abs(exact).max()))


def test_labels_title_and_scale_are_text_and_escaped(read_svg: Callable[[str], str]) -> None:
    html = static_html(np.ones((1, 8, 3)), "bpM", [HARD_TOKENS], title='<img src="x">')
    svg = read_svg(html)
    texts = [node.text for node in ElementTree.fromstring(svg).iter(SVG_TEXT)]
    assert "<script>" not in svg and "<img" not in svg
    assert '<img src="x">' in texts  # parsed back, it is what was given
    assert {"<script>alert(1…", "&amp;", '"', "⏎", "🙂", "·שלום", "\ufffd", "∅", "neuron"} <= {
        *texts
    }
    assert html.count("<") == 3  # figure, img, /figure: the title did not become markup


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((2, 8, 300), "bpM"), ((1, 8, 9, 4), "bpHd"), ((1, 9, 8, 8), ("b", "H", "p_q", "p_k"))],
)
def test_the_still_picture_loads_nothing(
    shape: tuple[int, ...], dims: Any, read_svg: Callable[[str], str]
) -> None:
    html = static_html(np.random.default_rng(0).random(shape), dims, None, "title")
    inside = read_svg(html)
    for text in (html, inside):
        loads = re.findall(r'(?:src|href)="([^"]{0,20})', text)
        assert loads and all(address.startswith(("data:image/", "#heads")) for address in loads)
        assert "<script" not in text and "url(" not in text and "@import" not in text
    assert re.findall('https?://[^"]+', inside) == ["http://www.w3.org/2000/svg"]  # a name only


@pytest.mark.parametrize("shape", [(1, 0, 5), (1, 5, 0), (0, 5, 5), (1, 1, 1)])
def test_empty_and_single_values_have_a_picture(
    shape: tuple[int, ...], read_svg: Callable[[str], str]
) -> None:
    svg = read_svg(static_html(np.zeros(shape), "bpM"))
    assert ("Nothing to draw" in svg) == (0 in shape)
    empty = read_svg(static_html(np.zeros((*shape[:1], 2, *shape[1:])), ["b", "H", "p_q", "p_k"]))
    assert ("Nothing to draw" in empty) == (0 in shape)


def test_nan_and_infinity_have_a_picture(
    read_svg: Callable[[str], str], read_rasters: Callable[[str], list[NDArray[np.uint8]]]
) -> None:
    svg = read_svg(static_html([[[np.nan, np.inf, -np.inf, 1.0]]], "bpM"))
    assert read_rasters(svg)[0].tolist() == [[0, 255, 1, 255]]
    assert "3 not finite" in svg


def test_a_large_array_has_a_small_picture() -> None:
    noise = np.random.default_rng(0).standard_normal((1, 300, 49_152)).astype(np.float32)
    assert len(static_html(noise, "bpV")) < 120_000
    noise = np.random.default_rng(0).random((1, 32, 200, 200))
    assert len(static_html(noise, ("b", "H", "p_q", "p_k"))) < 150_000


@pytest.fixture(scope="module")
def executed() -> nbformat.NotebookNode:
    """A notebook with two views, run by a real kernel, with the widgets' state stored."""
    cells = [
        "import numpy as np\nfrom garcon_jupyter.widgets import show\n"
        "values = np.random.default_rng(0).standard_normal((1, 5, 1536))",
        "view = show(values, 'bpM', [['The', ' cat', ' sat', '.', '<script>']], 'layers.4')\nview",
        "display(show(np.ones((1, 2, 3, 3)) / 3, ('b', 'H', 'p_q', 'p_k'), title='pattern'))",
        "view.figure",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    client = NotebookClient(notebook, timeout=60, kernel_name="python3")
    client.execute(env={**os.environ, "PYTHONPATH": path})
    return notebook


@pytest.mark.processes
def test_each_view_makes_a_picture_and_then_a_widget(executed: nbformat.NotebookNode) -> None:
    for cell in executed.cells[1:3]:
        picture, widget = cell.outputs
        assert 'class="garcon-still"' in picture.data["text/html"]
        assert VIEW_MIMETYPE not in picture.data
        assert widget.data[VIEW_MIMETYPE]["model_id"]


@pytest.mark.processes
def test_the_saved_notebook_is_small(executed: nbformat.NotebookNode) -> None:
    assert len(nbformat.writes(executed)) < 250_000
    without_state = nbformat.from_dict({**executed, "metadata": {}})
    assert len(nbformat.writes(without_state)) < 60_000


@pytest.mark.parametrize("state_is_stored", [True, False])
def test_the_html_export_shows_the_pictures(
    executed: nbformat.NotebookNode, state_is_stored: bool, read_svg: Callable[[str], str]
) -> None:
    metadata = executed.metadata if state_is_stored else {}
    notebook = nbformat.from_dict({**executed, "metadata": metadata})
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    pictures = re.findall(r'<figure class="garcon-still".*?</figure>', html)
    assert len(pictures) == 3
    texts = [
        {node.text for node in ElementTree.fromstring(read_svg(picture)).iter(SVG_TEXT)}
        for picture in pictures
    ]
    assert {"layers.4", "·cat", "<script>"} <= texts[0]
    assert {"pattern", "head 0", "head 1"} <= texts[1]
    assert {"layers.4", "1", "10", "100"} <= texts[2]
    assert ("unpkg.com" in html) == state_is_stored  # nbconvert's own loader of widgets


def test_one_bundle_for_both_would_lose_the_picture(executed: nbformat.NotebookNode) -> None:
    picture, widget = executed.cells[1].outputs
    together = nbformat.v4.new_output(
        "display_data", {**widget.data, "text/html": picture.data["text/html"]}
    )
    cell = nbformat.v4.new_code_cell("view", outputs=[together])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata=executed.metadata)
    html, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    assert '<figure class="garcon-still"' not in html


def test_words_say_what_the_axes_are(read_svg: Callable[[str], str]) -> None:
    scores = np.array([[0.25, -1.5, np.nan], [3.0, 250.0, -0.001]])
    view = show(scores, rows="layer", columns="head", title="scores")
    assert (view.widget.sheets[0]["row_name"], view.widget.sheets[0]["column_name"]) == (
        "layer",
        "head",
    )
    assert view.widget.sheets[0]["columns"] == ["0", "1", "2"] and view.widget.sheets[0]["signed"]
    assert "2 layers × 3 heads" in repr(view)
    words = [node.text or "" for node in ElementTree.fromstring(read_svg(view.html)).iter(SVG_TEXT)]
    assert {"0.25", "−1.50", "3.00", "250", "0.00"} <= set(words)
    assert "nan" not in "".join(words).lower()
    assert words.count("2") == 1  # head 2; what is tall is labelled at both ends
    tall = read_svg(show(np.zeros((20, 3)), rows="layer", columns=["a", "b", "c"]).html)
    assert tall.count(">b</text>") == 2
    labelled = show([1.0, 2.0], columns=["yes", "no"])
    assert labelled.widget.sheets[0]["columns"] == ["yes", "no"]
    assert not labelled.widget.sheets[0]["signed"]


def test_words_that_do_not_fit() -> None:
    with pytest.raises(BadRequest, match="name two axes, and the array has 3"):
        show(np.zeros((2, 3, 4)), rows="layer", columns="head")
    with pytest.raises(BadRequest, match="so do dims and tokens"):
        show(np.zeros((1, 3, 4)), ("b", "p", "M"), rows="layer")
    with pytest.raises(BadRequest, match="2 rows × 2 columns"):
        show(np.zeros((2, 3)), columns=["yes", "no"])
