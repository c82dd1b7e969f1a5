"""Notebook 7 beside JupyterLab: the side bar, and pictures of a real server's data."""

from __future__ import annotations

import numpy as np
from playwright.sync_api import expect

import garcon_jupyter as garcon
from tests.browser.lab import NOTEBOOK_7, Lab, become
from tests.browser.test_side_bar import SideBar
from tests.browser.test_widgets import kernel, pixels, shown

TEXT = "Hello, wide world"

CELLS = [
    f"import garcon_jupyter as garcon\nrmodel = garcon.connect('tiny')\ntext = {TEXT!r}",
    "tokens = rmodel.show_tokens(text)\ntokens",
    "attention = rmodel.show_attention(text)\nattention",
    "view = rmodel.show('layers.2.mlp.post_activation', text)\nview",
    "rmodel",
]


def test_the_side_bar_connects_and_shows(lab: Lab, llama_server: garcon.Server) -> None:
    with lab.notebook(lab.write("seven", [""]), NOTEBOOK_7) as notebook:
        page = notebook.page
        page.get_by_role("menuitem", name="View").click()
        page.get_by_role("menuitem", name="Garçon", exact=True).click()
        bar = SideBar(page)
        bar.server("tiny").get_by_role("button", name="Connect this notebook").click()
        expect(bar.server("tiny").locator(".grc-mine")).to_be_visible()
        bar.search("layers.1.attn.pattern")
        point = bar.point("layers.1.attn.pattern")
        point.hover()
        point.get_by_role("button", name="Show layers.1.attn.pattern").click()
        notebook.widgets("attention").wait_for()
        expect(bar.recordings()).to_contain_text(["layers.1.attn.pattern"])
    assert lab.refused == []


def test_pictures_of_a_server_are_drawn_and_answer(lab: Lab, rmodel: garcon.RemoteModel) -> None:
    look = rmodel.look(TEXT)
    length = rmodel.encode(TEXT).shape[1]
    with lab.notebook(lab.write("pictures", CELLS), NOTEBOOK_7) as notebook:
        page = notebook.page
        notebook.run()

        tokens = shown(notebook, "tokens")
        pieces = tokens.locator(".garcon-piece")
        expect(pieces).to_have_count(length)
        assert "".join(pieces.all_text_contents()) == f"<bos>{TEXT}"
        pieces.nth(3).hover()
        loss = -look.logits[0, 2].float().log_softmax(-1)[rmodel.encode(TEXT).ids[0, 3]]
        expect(tokens.locator(".garcon-tip")).to_contain_text(f"loss {float(loss):.4g}"[:9])
        pieces.nth(3).click()
        kernel(notebook, "tokens.selected_token", "3")

        attention = shown(notebook, "attention")
        expect(attention.locator(".garcon-subtitle")).to_have_text(
            f"4 layers × 6 heads · {length} query × {length} key tokens"
        )
        canvas = attention.locator(".garcon-overview canvas")
        canvas.click(position={"x": 24 + 4 * 64 + 30, "y": 16 + 2 * 64 + 30})
        expect(attention.locator(".garcon-subtitle")).to_contain_text("head 4 of 6")
        kernel(notebook, "(attention.layer, attention.matrix_head)", "(2, 4)")
        attention.get_by_role("button", name="back to the grid").click()
        tile = attention.locator(".garcon-tile").nth(4)
        weights = look["layers.2.attn.pattern"][0, 4].numpy()
        expected = np.round(255 * (np.round(np.sqrt(weights) * 127) / 127) ** 0.9)

        def weights_are_drawn() -> bool:
            drawn = pixels(tile.locator("canvas"))[..., 3]
            return drawn.shape == expected.shape and bool(np.abs(drawn - expected).max() <= 2)

        become(page, weights_are_drawn, True)

        activations = shown(notebook, "activations")
        plot = activations.locator(".garcon-plot")
        box = plot.bounding_box()
        assert box
        plot.click(position={"x": box["width"] - 4, "y": box["height"] - 8})
        value = float(look["layers.2.mlp.post_activation"][0, -1, -1])
        expect(activations.locator(".garcon-readout")).to_contain_text(
            f"{value:.3g}".replace("-", "−")[:5]
        )
        widget = "view.widget"
        kernel(
            notebook, f"({widget}.selected_token, {widget}.selected_unit)", f"({length - 1}, 79)"
        )
        expect(notebook.cell(4).locator(".garcon-table")).to_contain_text("tiny")
    assert lab.refused == []
