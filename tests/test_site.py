"""The documentation as a site: it builds without a warning, says what there is, and asks nothing of any network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter import recorders, widgets

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
LOADED = {
    "link": "href",
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
}
"""What a browser loads without being asked: tag → attribute."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` does; a warning is an error."""
    if (
        importlib.util.find_spec("mkdocs") is None
        or importlib.util.find_spec("mkdocstrings") is None
    ):
        message = 'The site needs the extra "docs": pip install -e ".[docs]".'
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


class Loads(HTMLParser):
    """Gathers what a page loads, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        said = dict(attributes)
        self.anchors.add(said.get("id") or "")
        if said.get(LOADED.get(tag, "")) is not None:
            self.loaded.append(said[LOADED[tag]] or "")


def remote(text: str, suffix: str) -> list[str]:
    """Addresses of other hosts that a browser would load because of a file."""
    if suffix == ".html":
        styles = re.findall(r"url\(([^)]*)\)|@import ([^;]*);", text)
        loaded = [*Loads(text).loaded, *("".join(found).strip("\"' ") for found in styles)]
        return [address for address in loaded if re.match(r"(https?:)?//", address)]
    return re.findall(r"(?:url\(|@import )[\"' ]*((?:https?:)?//[^)\"';]*)", text)


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    files = [file for file in site.rglob("*") if file.suffix in (".html", ".css")]
    assert len(files) > 25
    asked = {str(file): remote(file.read_text("utf-8"), file.suffix) for file in files}
    assert {file: found for file, found in asked.items() if found} == {}
    # The theme's script would fetch diagrams and versions, where a page had some; none has.
    pages = "".join(file.read_text("utf-8") for file in files)
    assert 'class="mermaid"' not in pages and '"provider": "mike"' not in pages


def test_what_would_be_loaded_is_seen() -> None:
    page = (
        '<link rel="stylesheet" href="https://fonts.test/a.css"><a href="https://right.test">x</a>'
    )
    assert remote(page, ".html") == ["https://fonts.test/a.css"]
    assert remote('<script src="//cdn.test/x.js"></script>', ".html") == ["//cdn.test/x.js"]
    assert remote("@font-face { src: url('https://f.test/a.woff') }", ".css") == [
        "https://f.test/a.woff"
    ]
    assert remote('<img src="images/lens.png"><script src="a.js">', ".html") == []


def test_every_file_that_a_page_loads_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        for address in Loads(page.read_text("utf-8")).loaded:
            if not address.startswith(("data:", "http", "#")) and page.name != "404.html":
                assert (page.parent / address.partition("#")[0].partition("?")[0]).exists(), address


def test_the_reference_has_every_public_name(site: Path) -> None:
    anchors = set[str]()
    for page in (site / "api").glob("*.html"):
        anchors |= Loads(page.read_text("utf-8")).anchors
    last = {anchor.rsplit(".", 1)[-1] for anchor in anchors}
    wanted = (
        set(garcon.__all__) | set(widgets.__all__) | {"forward", "backward", "generate", "lens"}
    )
    wanted |= {name for name in recorders.__all__ if name[0].isupper() and name != "WORDS"}
    assert wanted - last == set()
    assert "nothing_of_this_name" not in last
