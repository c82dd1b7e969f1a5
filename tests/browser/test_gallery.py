"""The gallery on the real SmolLM2: every widget from live requests, painted, saved, and exported.

With GARCON_WRITE_IMAGES=1 the screenshots become those of the documentation, and the notebook that was
saved that of the examples.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import nbconvert
import nbformat
import pytest
from playwright.sync_api import expect

import garcon_jupyter as garcon
from tests.browser.lab import Lab, Notebook

GALLERY = Path(__file__).parents[2] / "examples" / "gallery.ipynb"

SHOTS = {
    "card": ("server-card",),
    "tokens": ("tokens",),
    "attention": ("attention-overview", "attention-layers"),
    "activations": ("activations-histogram", "activations-logits"),
    "grid-of": ("lens", "patching"),
    "live-view": ("live",),
    "neuron": ("neuron",),
}
"""Kind of widget to the names of its pictures, in the order of the gallery."""

TABLES = ("model-table", "recordings-table")
"""Names of the pictures of tables, in the order of the gallery."""

MEGABYTES = 5.0

BUSY = ".garcon-live[aria-busy=true]"
"""Widgets that wait for values."""

SWEEP = 300_000
"""Milliseconds in which a sweep ends on a busy machine."""


@pytest.fixture(scope="module")
def gallery(lab: Lab, smollm2_server: garcon.Server) -> Iterator[Notebook]:
    """The gallery after a run from above, one cell at a time; `paints` has the times of each first paint."""
    path = lab.directory / "gallery.ipynb"
    shutil.copy(GALLERY, path)
    with lab.notebook(path, viewport=(1180, 1300)) as notebook:
        cells = notebook.content()["cells"]
        for number, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                notebook.paints[cell["source"]] = notebook.paint(number)
                # The next is drawn by a server that has nothing else to do.
                expect(notebook.page.locator(BUSY)).to_have_count(0, timeout=SWEEP)
        notebook.check()
        notebook.save()
        yield notebook
    assert lab.refused == []


@pytest.mark.timeout(
    900
)  # with the run of the gallery, which sweeps a real model, beside whatever else runs
def test_every_widget_is_drawn(gallery: Notebook, images: Path) -> None:
    for kind, names in SHOTS.items():
        expect(gallery.widgets(kind)).to_have_count(len(names))
        for number, name in enumerate(names):
            widget = gallery.widgets(kind).nth(number)
            widget.scroll_into_view_if_needed()
            assert widget.locator(".garcon-trouble").count() == 0
            widget.screenshot(path=images / f"{name}.png")
    tables = gallery.page.locator(".garcon-table")
    for number, name in enumerate(TABLES):
        tables.nth(number).screenshot(path=images / f"{name}.png")
    for source, paint in gallery.paints.items():
        print(f"{paint.shown:6.2f} s  {source.splitlines()[-1]}")


def test_it_knows_that_paris_is_in_france(gallery: Notebook) -> None:
    live = gallery.widgets("live-view").first
    live.scroll_into_view_if_needed()
    expect(live.locator(".garcon-row .garcon-token").first).to_have_text("·Paris")
    live.get_by_label("apply this edit").uncheck()
    live.get_by_label("text", exact=True).fill("The capital of Italy is")
    expect(live.locator(".garcon-subtitle")).to_contain_text("computed in", timeout=60_000)
    said = gallery.execute(
        "print(rmodel.decode(rmodel.forward('The capital of Italy is', logits='last')[0].argmax()))"
    )
    expect(live.locator(".garcon-row .garcon-token").first).to_have_text(
        said.rstrip("\n").replace(" ", "·"), timeout=60_000
    )


def pictures_of(saved: str) -> str:
    """A notebook with its still pictures as the text that they are made of."""
    return re.sub(
        r"data:image/svg\+xml;base64,([\w+/=]+)",
        lambda found: base64.b64decode(found[1]).decode(),
        saved,
    )


def test_saved_it_is_small_and_its_page_shows_it_offline(
    gallery: Notebook, lab: Lab, tmp_path: Path
) -> None:
    path = lab.directory / "gallery.ipynb"
    saved = path.read_text().replace(f"{lab.directory}/", "")  # as if it had been run at home
    assert len(saved) < MEGABYTES * 2**20
    assert not re.search(rf"\b{socket.gethostname()}\W{{1,3}}cpu", pictures_of(saved))
    assert str(lab.directory.parent) not in pictures_of(saved)
    if os.environ.get("GARCON_WRITE_IMAGES"):
        GALLERY.write_text(saved)
    page = tmp_path / "gallery.html"
    html, _ = nbconvert.HTMLExporter().from_notebook_node(nbformat.read(path, as_version=4))
    page.write_text(html)
    context = lab.browser.new_context(offline=True)
    try:
        offline = context.new_page()
        offline.goto(page.as_uri())
        pictures = offline.locator("figure.garcon-still img")
        widgets = sum(len(names) for names in SHOTS.values())
        expect(pictures).to_have_count(widgets + 1)  # and the sharding picture
        for number in range(widgets + 1):
            assert pictures.nth(number).evaluate("node => node.complete && node.naturalWidth > 100")
            assert pictures.nth(number).is_visible()
    finally:
        context.close()
