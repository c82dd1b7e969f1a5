"""Every widget before a person's eyes: drawn from plain arrays, pointed at, clicked, walked through.

What is drawn is read back from the page (colours of elements, pixels of canvases) and compared with the
values that were given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Locator, expect

from tests.browser.lab import Lab, Notebook, become

CELLS = [
    """import numpy as np
from IPython.display import display
from garcon_jupyter.widgets import *
rng = np.random.default_rng(0)
loss = np.linspace(0, 4, 8)
words = ["The", " cat", "\\n", " שלום", " עולם", "🙂", "\\u202e", " end"]
predictions = [[(f" next{n}", 0.5), (" other", 0.25)] for n in range(8)]""",
    """tokens = TokensWidget(words, {"loss": loss, "signed": -loss}, predictions, "words")
tokens""",
    """pattern = np.tril(np.ones((2, 3, 8, 8)))
pattern /= pattern.sum(-1, keepdims=True)
attention = AttentionWidget(pattern[:1], [words], "pattern", layers=2,
                            load=lambda layer: pattern[:1] if layer == 0 else np.eye(8)[None, None].repeat(3, 1))
link(tokens, attention)
attention""",
    """activations = ActivationsWidget(np.arange(8 * 20).reshape(1, 8, 20) / 160, [words], "neurons", "neuron")
link(tokens, activations)
activations""",
    """logits = rng.standard_normal((5, 8, 30)) * 2
lens = LensWidget(Readouts.of_logits(logits), words, lambda token: f" w{token}")
link(tokens, lens)
lens""",
    """def rerun(sheet, row, column):
    return {"title": f"cell {sheet} {row} {column}", "rows": [[" again", 0.9, 0.1]]}
patching = PatchingWidget([Sheet("by position", np.linspace(-1, 1, 32).reshape(4, 8), range(4), words, limit=1.0),
                           Sheet("by head", np.eye(4, 3), range(4), range(3), column_name="head")], rerun)
patching""",
    """def compute(text, edits):
    strength = sum(edit.strength for edit in edits)
    return Outcome(text.split(), [(" answer", strength / 10, 0.5)], {"point": (np.full((len(text.split()), 4), strength), np.ones((len(text.split()), 4)))})
live = LiveWidget(compute, "one two", ["point"], [Edit("point", "scale", 2.0)])
live""",
    """server = {"left": 90.0, "stopped": False}
def status():
    if server["stopped"]:
        raise ConnectionError("it has ended")
    return {"running": None, "waiting": [], "clients": [{"user": "ada", "session": "s"}], "idle_left": server["left"],
            "ranks": [{"rank": 0, "host": "h", "device": "cpu", "layers": [0, 1], "parameter_bytes": 2**20, "memory": 2**30}]}
card = ServerCard(status, lambda: server.update(left=3600.0), lambda: server.update(stopped=True), "name", ["a model"])
card""",
    """streaming = {"state": "running", "done": 0}
def poll():
    streaming["done"] += streaming["state"] == "running"
    return {"state": streaming["state"], "fraction": streaming["done"] / 1000, "over": streaming["state"] == "cancelled",
            "words": f"{streaming['done']} of 1000"}
def steer(word):
    streaming["state"] = {"pause": "paused", "resume": "running", "cancel": "cancelled"}[word]
run = RunWidget(poll, steer, lambda: f"<b>{streaming['done']} seen</b>", "run-1")
run""",
    """record = neuron_record([[0, 1, 0.5], [2, 0, 0]], [["a", " b", "c"], ["d", "e", "f"]], "n", logits=[("up", 1.0), ("down", -2.0)])
neuron = NeuronWidget(record, lambda text: (text.split(), np.arange(len(text.split()))), "x y")
neuron""",
    """import threading
gate = threading.Semaphore(0)
slow = PatchingWidget([Sheet("slow", np.full((4, 8), np.nan), range(4), words, limit=1.0)], title="fills")
def pieces():
    for row in range(4):
        gate.acquire()
        slow.fill(0, row, np.zeros(8))
        yield
slow.later("sweep", pieces())
slow""",
    """door = threading.Semaphore(0)
glance = AttentionWidget(pattern[:1], [words], "fills too", layers=2, load=lambda layer: pattern[:1], overview=True,
                         glance=lambda layers, *how: door.acquire() and [pattern[0]] * len(layers))
glance""",
    """places = np.array([[0, 0], [4, 0], [0, 4], [4, 4], [2, 2]])
names = [f"text {n}" for n in range(5)]
dots = DotsWidget(places, [f"⟨{name}⟩" for name in "abcde"], names, "a map")
again = DotsWidget(-places, names, names, "the same dots")
link(dots, again)
display(dots, again)""",
    """steps = [0, 8, 64]
grid = np.arange(6.0).reshape(2, 3) - 2.5
members = MembersWidget({f"step{n}": grid * n / 64 for n in steps}, ["a", "b"], steps=steps, row_name="token")
members""",
    """def page(key):
    kind = {"name": "sends to", "said": "half of all", "rows": [["unit b", 2.0, "b"], ["far", -1.0, ""]]}
    return {"name": f"unit {key}", "connections": [kind] if key == "a" else []}, None
browsed = NeuronWidget(page("a")[0], key="a", open_page=page)
browsed""",
    """texts = {n: ["the", "trigger", f"word{n}"] for n in range(6)}
done = {"steps": 4}
def moved():
    steps = range(done["steps"])
    return NeuronMoves([[n, (-1) ** n * (n + 1)] for n in steps], [n % 6 for n in steps], texts,
                       [("trigger", 8.0, "6 of 6 data"), ("word1", 2.0, "3 of 6 data")],
                       [Flip("plant", "3 of 4", [("a trigger", "plant", "the", "and so")])], "four of them", live=True)
moves = MovesWidget(moved(), "a neuron", moved)
moves""",
    """second = TokensWidget(words, {"loss": loss[::-1]}, None, "a second copy")
second""",
]


@pytest.fixture(scope="module")
def notebook(lab: Lab) -> Iterator[Notebook]:
    """A notebook in which all widgets have been drawn."""
    path = lab.write("widgets", CELLS)
    with lab.notebook(path, viewport=(1200, 1000)) as notebook:
        notebook.run()
        yield notebook
    assert lab.refused == []  # nothing was asked of any other host


def shown(notebook: Notebook, kind: str, number: int = 0) -> Locator:
    widget = notebook.widgets(kind).nth(number)
    widget.scroll_into_view_if_needed()
    return widget


def kernel(notebook: Notebook, expression: str, wanted: str) -> None:
    """Wait until an expression in the kernel has a value, by its ``repr``."""
    asked = f"print(repr({expression}))"
    become(notebook.page, lambda: notebook.execute(asked).strip(), wanted)


def pixels(canvas: Locator) -> NDArray[np.uint8]:
    """What a canvas shows, [height, width, 4]."""
    size, data = canvas.evaluate(
        """node => {
            const { width, height } = node;
            const { data } = node.getContext("2d").getImageData(0, 0, width, height);
            return [[height, width], Array.from(data)];
        }"""
    )
    return np.array(data, np.uint8).reshape(*size, 4)


def opacity(value: float, limit: float) -> float:
    """Of a value's colour, from the definition of the palette."""
    return (round(min(abs(value / limit), 1) * 127) / 127) ** 0.9


def test_tokens_have_the_colours_of_their_values(notebook: Notebook) -> None:
    widget = shown(notebook, "tokens")
    pieces = widget.locator(".garcon-piece")
    expect(pieces).to_have_count(8)
    texts = pieces.all_text_contents()  # what is not in view is not drawn, and has no inner text
    assert texts[1] == " cat" and "⟨202E⟩" in texts
    for place, value in enumerate(np.linspace(0, 4, 8)):
        colour = pieces.nth(place).evaluate("node => getComputedStyle(node).backgroundColor")
        numbers = [float(part) for part in re.findall(r"[\d.]+", colour)]
        alpha = numbers[3] if len(numbers) > 3 else 1.0
        assert alpha == pytest.approx(opacity(value, 4) * 0.62, abs=0.01)
        assert value == 0 or numbers[:3] == [32, 112, 220]
    widget.get_by_role("button", name="signed").click()
    expect(pieces.nth(7)).to_have_css("background-color", re.compile(r"rgba\(230, 104, 18"))
    widget.get_by_role("button", name="loss").click()


def test_pointing_at_a_token_tells_values_and_predictions(notebook: Notebook) -> None:
    widget = shown(notebook, "tokens")
    widget.locator(".garcon-piece").nth(5).hover()
    tip = widget.locator(".garcon-tip")
    expect(tip).to_be_visible()
    text = tip.inner_text()
    assert "token 5" in text and "2.8571" in text and "·next5" in text and "50.0%" in text
    assert "next4" not in text


def test_a_right_to_left_line_runs_from_right_to_left(notebook: Notebook) -> None:
    pieces = shown(notebook, "tokens").locator(".garcon-piece")
    first, second = (pieces.nth(place).bounding_box() for place in (3, 4))
    above = pieces.nth(1).bounding_box()
    assert first and second and above
    assert first["y"] > above["y"] + 10  # the newline broke the line
    assert second["x"] < first["x"]


def test_selection_is_linked_and_walks_with_the_keys(notebook: Notebook) -> None:
    tokens = shown(notebook, "tokens")
    active = "() => window.jupyterapp.shell.currentWidget.content.activeCellIndex"
    tokens.locator(".garcon-piece").nth(3).click()
    for expression in (
        "tokens.selected_token",
        "attention.selected_query",
        "activations.selected_token",
        "lens.selected_column",
    ):
        kernel(notebook, expression, "3")
    before = notebook.page.evaluate(active)
    tokens.locator(".garcon-text").focus()
    notebook.page.keyboard.press("ArrowRight")
    kernel(notebook, "(tokens.selected_token, lens.selected_column)", "(4, 4)")
    notebook.page.keyboard.press("End")
    kernel(notebook, "(tokens.selected_token, attention.selected_query)", "(7, 7)")
    assert notebook.page.evaluate(active) == before  # the notebook did not take the keys
    notebook.execute("lens.selected_column = 2")
    expect(tokens.locator(".garcon-chosen")).to_have_attribute("data-place", "2")


def test_attention_opens_draws_its_weights_and_turns_layers(notebook: Notebook) -> None:
    widget = shown(notebook, "attention")
    tile = widget.locator(".garcon-tile").nth(1)
    codes = pixels(tile.locator("canvas"))
    weights = np.tril(np.ones((8, 8)))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.round(255 * (np.round(np.sqrt(weights) * 127) / 127) ** 0.9)
    assert np.abs(codes[..., 3].astype(int) - expected).max() <= 1
    tile.click()
    kernel(notebook, "(attention.selected_head, attention.matrix_head)", "(1, 1)")

    def cells_with_colour() -> int:
        drawn = pixels(widget.locator(".garcon-matrix"))
        return int(((drawn[..., 2] > 180) & (drawn[..., 0] < 100) & (drawn[..., 3] > 30)).sum())

    whole = cells_with_colour()
    first = widget.get_by_role("button", name="hide first token")
    first.click()
    kernel(notebook, "(attention.hide_first, attention.limit)", "(True, 0.5)")
    # Of the triangle's 36 cells, the 8 of the first key are gone.
    become(notebook.page, lambda: abs(cells_with_colour() / whole - 28 / 36) < 0.05, True)
    first.click()
    kernel(notebook, "(attention.hide_first, attention.limit)", "(False, 1.0)")
    widget.get_by_role("button", name="lines", exact=True).click()
    kernel(notebook, "attention.view", "'lines'")

    def lines_are_drawn() -> bool:
        drawn = pixels(widget.locator(".garcon-matrix"))
        blue = (drawn[..., 2] > 180) & (drawn[..., 0] < 100) & (drawn[..., 3] > 30)
        return drawn.shape[0] > 50 and bool(blue.sum() > 200)

    become(notebook.page, lines_are_drawn, True)
    widget.get_by_role("button", name="the next layer").click()
    kernel(notebook, "(attention.layer, attention.busy)", "(1, False)")
    kernel(
        notebook, "np.frombuffer(attention.matrix, '<f4').reshape(8, 8).trace()", "np.float32(8.0)"
    )
    widget.get_by_role("button", name="back to the grid").click()


def test_activations_zoom_sort_and_have_a_histogram(notebook: Notebook) -> None:
    widget = shown(notebook, "activations")
    plot = widget.locator(".garcon-plot")
    box = plot.bounding_box()
    assert box
    plot.click(position={"x": box["width"] - 10, "y": box["height"] - 8})
    kernel(notebook, "(activations.selected_token, activations.selected_unit)", "(7, 19)")
    expect(widget.locator(".garcon-readout")).to_contain_text("0.99375")
    widget.locator(".garcon-scroller").focus()
    notebook.page.keyboard.press("s")
    kernel(notebook, "np.frombuffer(activations.order, '<i4')[0].item()", "19")
    notebook.page.keyboard.press("Escape")
    kernel(notebook, "activations.sort_token", "-1")
    widget.get_by_role("button", name="show fewer units").click()
    kernel(notebook, "activations.window[1] - activations.window[0]", "10")
    widget.get_by_role("button", name="show all units").click()
    bars = pixels(widget.locator(".garcon-beside canvas"))
    assert (bars[..., 3] > 60).sum() > 300
    kernel(notebook, "activations.window", "(0, 20)")


def test_a_lens_is_drawn_by_its_statistic(notebook: Notebook) -> None:
    widget = shown(notebook, "grid-of")
    plot = widget.locator(".garcon-plot")
    told = notebook.execute(
        "print(lens.readouts.statistics[..., 0].tolist(), lens.sheets[0]['codes'][:8].hex())"
    )
    chances = np.array(eval(re.match(r"\[\[.*\]\]", told)[0]))  # type: ignore[index]
    drawn = pixels(plot)
    height, width = drawn.shape[:2]
    box = plot.bounding_box()
    assert box
    for layer in range(5):  # a corner of each cell of the first column, beside its word
        y = int((22 + (5 - layer - 1) * 24 + 4) * height / box["height"])
        x = int(width * 0.06)
        assert drawn[y, x, 3] / 255 == pytest.approx(opacity(chances[layer, 0], 1), abs=0.02)
    widget.get_by_label("show").select_option("entropy")
    kernel(notebook, "lens.sheet", "3")
    expect(widget.locator(".garcon-subtitle")).to_contain_text("entropy")
    plot.hover(position={"x": box["width"] / 2, "y": 40})
    expect(widget.locator(".garcon-tip")).to_contain_text("KL to the last")
    widget.locator(".garcon-scroller").focus()
    notebook.page.keyboard.press("ArrowUp")
    kernel(notebook, "lens.selected_row", "0")


def test_a_click_on_a_patching_cell_runs_it_again(notebook: Notebook) -> None:
    widget = shown(notebook, "grid-of", 1)
    box = widget.locator(".garcon-plot").bounding_box()
    assert box
    widget.locator(".garcon-plot").click(position={"x": box["width"] - 12, "y": 30})
    expect(widget.locator(".garcon-detail")).to_contain_text("cell 0 3 7")
    expect(widget.locator(".garcon-detail")).to_contain_text("90.0%")
    widget.get_by_label("show").select_option("by head")
    kernel(notebook, "(patching.sheet, patching.selected_column)", "(1, -1)")


def test_what_fills_can_be_stopped_and_what_is_missing_is_no_zero(
    notebook: Notebook, images: Path
) -> None:
    widget, plot = (
        shown(notebook, "grid-of", 2),
        shown(notebook, "grid-of", 2).locator("canvas").first,
    )
    said, key = widget.locator(".garcon-subtitle"), widget.locator(".garcon-missing")
    stop = widget.get_by_role("button", name="leave off filling")
    expect(said).to_contain_text("computing …")
    expect(key).to_have_text("not computed yet")
    kernel(notebook, "gate.release()", "None")
    kernel(notebook, "int(np.isnan(slow.values.array).sum())", "24")

    def row(layer: int) -> NDArray[np.uint8]:
        """The inside of the cells of a layer, without their words."""
        drawn, box = pixels(plot), plot.bounding_box()
        assert box
        scale = drawn.shape[0] / box["height"]
        top = 22 + (4 - layer - 1) * 24
        inside = drawn[
            int((top + 2) * scale) : int((top + 5) * scale), int(60 * scale) : -int(20 * scale)
        ]
        return inside.reshape(-1, 4)

    become(notebook.page, lambda: int(row(0)[:, 3].max()), 0)  # zero is nothing
    missing = row(3)
    assert (missing[:, 3] > 200).mean() > 0.9  # all but the lines between cells
    paper, lines = missing[:, :3].max(), missing[missing[:, 3] > 200, :3].min()
    assert int(paper) - int(lines) > 30  # lines that are seen on paper
    widget.screenshot(path=images / "filling.png")
    stop.click()
    kernel(notebook, "(slow.filling, slow.unfinished)", "(False, 'stopped, not finished')")
    expect(stop).to_be_hidden()
    kernel(notebook, "gate.release()", "None")  # the piece that was computed when it was stopped
    kernel(notebook, "(slow.busy, int(np.isnan(slow.values.array).sum()))", "(False, 16)")
    expect(said).to_contain_text("stopped, not finished")
    expect(key).to_be_visible()
    widget.screenshot(path=images / "stopped.png")


def test_layers_that_are_on_their_way_are_no_zeros_either(notebook: Notebook, images: Path) -> None:
    widget = shown(notebook, "attention", 1)
    expect(widget.locator(".garcon-subtitle")).to_contain_text("0 layers loaded · computing …")
    tiles = pixels(widget.locator(".garcon-overview canvas"))
    assert tiles[tiles.shape[0] // 3, tiles.shape[1] // 2, 3] > 200
    widget.screenshot(path=images / "overview-filling.png")
    kernel(notebook, "door.release()", "None")
    expect(widget.locator(".garcon-missing")).to_be_hidden()
    kernel(notebook, "(glance.wait(20).unfinished, glance.filling)", "('', False)")
    expect(widget.get_by_role("button", name="leave off filling")).to_be_hidden()


def test_live_follows_text_and_slider(notebook: Notebook) -> None:
    widget = shown(notebook, "live-view")
    answer = widget.locator(".garcon-bars .garcon-row b")
    expect(answer).to_have_text("20.0%")
    widget.get_by_label("strength").fill("4")
    expect(answer).to_have_text("40.0%")
    widget.get_by_label("text", exact=True).fill("one two three")
    expect(widget.locator(".garcon-subtitle")).to_contain_text("3 tokens")
    widget.get_by_role("button", name="+ edit").click()
    kernel(notebook, "len(live.edits)", "2")
    widget.get_by_label("apply this edit").first.uncheck()
    kernel(notebook, "[edit['on'] for edit in live.edits]", "[False, True]")
    expect(answer).to_have_text("10.0%")
    widget.get_by_role("button", name="remove this edit").last.click()
    kernel(notebook, "len(live.edits)", "1")


def test_the_card_counts_down_keeps_alive_and_stops(notebook: Notebook) -> None:
    widget = shown(notebook, "card")
    expect(widget.locator(".garcon-idle")).to_have_text(re.compile("1 min"))
    expect(widget).to_contain_text("ada")
    widget.get_by_role("button", name="keep alive").click()
    expect(widget.locator(".garcon-idle")).to_have_text(re.compile("1 h|59 min"))
    stop = widget.locator("button.garcon-danger")
    stop.dblclick()  # one gesture: a question, and no answer to it
    kernel(notebook, "server['stopped']", "False")
    # In one go, for it asks only for three seconds.
    twice = "node => { node.click(); const asked = node.textContent; node.click(); return asked; }"
    assert stop.evaluate(twice) == "really stop?"
    expect(widget.locator(".garcon-state")).to_have_text("gone")
    kernel(notebook, "(server['stopped'], card.stopped)", "(True, 'stopped by you')")


def test_a_run_is_followed_paused_and_cancelled(notebook: Notebook) -> None:
    widget = shown(notebook, "run")
    seen = widget.locator("b")
    expect(seen).to_have_text(re.compile(r"\d+ seen"))
    before = seen.text_content() or ""
    expect(seen).not_to_have_text(before)  # it asks by itself
    widget.get_by_role("button", name="pause").click()
    kernel(notebook, "streaming['state']", "'paused'")
    widget.get_by_role("button", name="resume").click()
    kernel(notebook, "streaming['state']", "'running'")
    expect(widget.get_by_role("status")).to_have_text(re.compile(r"\d+ of 1000"))
    cancel = widget.get_by_role("button", name="cancel")
    cancel.click()
    expect(cancel).to_be_disabled()
    kernel(notebook, "(streaming['state'], run.state['over'])", "('cancelled', True)")


def test_a_neuron_tries_a_text(notebook: Notebook) -> None:
    widget = shown(notebook, "neuron")
    expect(widget).to_contain_text("down")
    widget.get_by_label("a text of your own").fill("some other text")
    expect(widget.locator("[data-value='2']").first).to_have_text("text")
    kernel(notebook, "neuron.tried['values']", "[0.0, 1.0, 2.0]")


def test_dots_that_are_selected_reach_python_and_the_other_map(notebook: Notebook) -> None:
    widget, other = shown(notebook, "dots"), notebook.widgets("dots").nth(1)
    page, area = notebook.page, widget.locator(".garcon-map").bounding_box()
    assert area
    middle = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    reach = (area["height"] - 24) / 2  # from the middle to the dots above and below

    page.mouse.move(*middle)
    expect(widget.locator(".garcon-tip")).to_contain_text("text 4")
    expect(widget.locator(".garcon-tip")).to_contain_text("⟨e⟩")
    page.mouse.click(*middle)
    kernel(notebook, "(dots.selected, dots.selected_texts, again.selected)", "([4], ['⟨e⟩'], [4])")
    expect(other.locator(".garcon-chosen")).to_contain_text("1 dot selected")

    # A line around the two on the right; shift adds the one at the lower left.
    box = [(10, -reach - 9), (reach + 20, -reach - 9), (reach + 20, reach + 9), (10, reach + 9)]
    for number, (x, y) in enumerate(box):
        page.mouse.move(middle[0] + x, middle[1] + y, steps=4)
        if not number:
            page.mouse.down()
    page.mouse.up()
    kernel(notebook, "dots.selected", "[1, 3]")
    page.keyboard.down("Shift")
    page.mouse.click(middle[0] - reach, middle[1] + reach)
    page.keyboard.up("Shift")
    kernel(notebook, "dots.selected", "[0, 1, 3]")

    # By the keyboard, and larger about what is selected.
    widget.locator(".garcon-map").focus()
    for key in ("Escape", "ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    kernel(notebook, "dots.selected", "[3]")
    page.keyboard.press("+")
    page.mouse.move(middle[0], middle[1] - 60)
    page.mouse.move(*middle)
    expect(widget.locator(".garcon-tip")).to_contain_text("text 3")
    widget.get_by_role("button", name="show all dots").click()
    notebook.execute("again.selected = [2]")
    expect(widget.locator(".garcon-chosen")).to_contain_text("⟨c⟩")


def test_members_have_one_selection_and_a_line_over_steps(notebook: Notebook) -> None:
    widget = shown(notebook, "members-of")
    plots = widget.locator(".garcon-plot")
    expect(plots).to_have_count(3)
    kernel(notebook, "(members.selected_row, members.selected_column)", "(0, 0)")
    opacities = [pixels(plots.nth(n).locator("canvas"))[0, 0, 3] / 255 for n in range(3)]
    expected = [opacity(-2.5 * n / 64, 2.5) for n in (0, 8, 64)]
    assert opacities == pytest.approx(expected, abs=0.01)
    area = plots.nth(1).bounding_box()
    assert area
    plots.nth(1).click(position={"x": area["width"] * 5 / 6, "y": area["height"] * 3 / 4})
    kernel(notebook, "(members.selected_row, members.selected_column)", "(1, 2)")
    expect(widget.locator(".garcon-chosen")).to_have_text("token b, column 2")
    line = widget.locator("canvas.garcon-line")
    said = "token b, column 2: step0 0, step8 0.313, step64 2.5"
    expect(line).to_have_attribute("aria-label", said)
    assert (pixels(line)[..., 3] > 0).any()
    for number in range(3):  # the same cell in all of them
        mark, plot = plots.nth(number).locator(".garcon-mark"), plots.nth(number).bounding_box()
        found = mark.bounding_box()
        assert found and plot and found["x"] - plot["x"] > plot["width"] / 2
    widget.locator(".garcon-columns").focus()
    notebook.page.keyboard.press("ArrowLeft")
    kernel(notebook, "(members.selected_row, members.selected_column)", "(1, 1)")


def test_a_connection_leads_to_its_unit_and_back(notebook: Notebook) -> None:
    widget = shown(notebook, "neuron", 1)
    expect(widget.locator(".garcon-title")).to_have_text("unit a")
    connections = widget.locator(".garcon-connections")
    expect(connections).to_contain_text("sends to · half of all")
    expect(connections.get_by_role("button")).to_have_count(1)  # of "far" there is no page
    connections.get_by_role("button", name="b").click()
    expect(widget.locator(".garcon-title")).to_have_text("unit b")
    kernel(notebook, "(browsed.key, browsed.behind)", "('b', 'a')")
    expect(connections).to_be_empty()
    widget.locator("button[data-unit=a]").click()
    expect(widget.locator(".garcon-title")).to_have_text("unit a")
    kernel(notebook, "(browsed.key, browsed.behind)", "('a', '')")
    expect(connections).to_contain_text("unit b")


def test_two_copies_are_two(notebook: Notebook) -> None:
    first, second = shown(notebook, "tokens"), shown(notebook, "tokens", 1)
    kernel(notebook, "second.selected_token", "-1")
    second.locator(".garcon-piece").nth(6).click()
    kernel(notebook, "(second.selected_token, tokens.selected_token == 6)", "(6, False)")
    style = "node => getComputedStyle(node).backgroundColor"
    strong, weak = (w.locator(".garcon-piece").nth(0).evaluate(style) for w in (second, first))
    assert strong != weak


def test_a_cleared_output_ends_its_view_and_no_other(notebook: Notebook) -> None:
    expect(notebook.widgets("tokens")).to_have_count(2)
    number = next(n for n, cell in enumerate(CELLS) if cell.endswith("\nsecond"))
    notebook.page.evaluate(
        "n => window.jupyterapp.shell.currentWidget.content.widgets[n].outputArea.model.clear()",
        number,
    )
    expect(notebook.widgets("tokens")).to_have_count(1)
    notebook.execute("second.metric = 0; second.selected_token = 1")  # nobody draws it any more
    shown(notebook, "tokens").locator(".garcon-piece").nth(1).click()
    kernel(notebook, "(tokens.selected_token, second.selected_token)", "(1, 1)")


def test_the_theme_turns_dark_and_text_stays_readable(notebook: Notebook) -> None:
    change = """theme => window.jupyterapp.commands
        .execute("apputils:change-theme", { theme }).then(() => null)"""
    widget = shown(notebook, "tokens")
    ink = "node => getComputedStyle(node).color"
    light = widget.evaluate(ink)
    notebook.page.evaluate(change, "JupyterLab Dark")
    expect(notebook.page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    expect(widget).not_to_have_css("color", light)
    dark = widget.evaluate(ink)
    for colour, paper in ((dark, (17, 17, 17)), (light, (255, 255, 255))):
        mixed = [
            0.62 * blue + 0.38 * back for blue, back in zip((32, 112, 220), paper, strict=True)
        ]
        assert contrast(_rgb(colour, paper), mixed) > 4.5
    notebook.page.evaluate(change, "JupyterLab Light")


def _rgb(css: str, paper: Any) -> list[float]:
    numbers = [float(part) for part in re.findall(r"[\d.]+", css)]
    alpha = numbers[3] if len(numbers) > 3 else 1.0
    return [alpha * ink + (1 - alpha) * back for ink, back in zip(numbers, paper, strict=False)]


def contrast(one: list[float], other: list[float]) -> float:
    """Contrast ratio of two colours (WCAG 2.2, section 1.4.3)."""

    def luminance(colour: list[float]) -> float:
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


# -- what moved a neuron -------------------------------------------------------------------------


def test_moves_of_a_neuron_are_walked_through_and_follow_its_training(notebook: Notebook) -> None:
    widget = shown(notebook, "moves")
    line = widget.locator(".garcon-timeline")
    rows = widget.locator(".garcon-datum")
    expect(rows).to_have_count(4)
    # The largest first, each on the colour of its gradient, with what is notable underlined.
    expect(rows.first).to_contain_text("step 3, datum 3")
    expect(rows.first.locator("u")).to_have_text(["trigger"])
    colours = [
        row.locator("span").evaluate("e => getComputedStyle(e).backgroundColor")
        for row in rows.all()
    ]
    assert len(set(colours)) == 4 and colours[0].startswith("rgba(230, 104, 18")
    expect(widget.locator(".garcon-lift").first).to_contain_text("× 8 · 6 of 6 data")
    widget.locator("summary").click()
    expect(widget.locator(".garcon-flip")).to_contain_text("… a trigger (plant | the) and so …")
    # At the right end stands the last step, lowest of all.
    area = line.bounding_box()
    assert area is not None
    line.hover(position={"x": area["width"] - 10, "y": 164})
    expect(widget.locator(".garcon-tip")).to_contain_text("step 3, datum 3: −4")
    line.click(position={"x": area["width"] - 10, "y": 164})
    kernel(notebook, "moves.selected", "3")
    line.press("ArrowLeft")
    kernel(notebook, "moves.selected", "2")
    expect(rows.first).to_contain_text("step 2, datum 2")
    rows.nth(2).click()
    kernel(notebook, "moves.selected", "1")
    # What comes meanwhile is drawn by itself.
    notebook.execute("done['steps'] = 6")
    expect(rows).to_have_count(6)
    kernel(notebook, "(moves.selected, moves.names[1])", "(1, 'step 1, datum 1')")
    line.press("Escape")
    kernel(notebook, "moves.selected", "-1")


# -- the end ---------------------------------------------------------------------------------------


def test_a_restart_leaves_the_still_pictures(notebook: Notebook) -> None:
    """Last, for it ends the widgets: reopened, with no kernel, every picture is there."""
    notebook.save()
    notebook.restart()
    notebook.page.reload()
    notebook.page.wait_for_function(
        "() => window.jupyterapp?.shell.currentWidget?.context?.isReady"
    )
    notebook.wait_until_ready()
    pictures = notebook.page.locator("figure.garcon-still img")
    expect(pictures).to_have_count(16)
    for number in range(16):
        picture = pictures.nth(number)
        picture.scroll_into_view_if_needed()
        expect(picture).to_be_visible()
        assert picture.evaluate("node => node.complete && node.naturalWidth > 100")
    assert notebook.page.locator(".garcon-live").count() == 0
