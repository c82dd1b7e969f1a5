"""A person before a screen: a real JupyterLab in a real browser, on real servers.

One JupyterLab and one Chromium serve all tests of this package. Whatever a page asks of any other
host is refused and noted, so that a widget that needs a network cannot pass.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser.lab import Lab

expect.set_options(timeout=20_000)  # milliseconds; a machine may be busy with other things

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # there is no other host
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def browser_path() -> str:
    """Where Chromium is; on CI its absence is a failure, elsewhere the reason of a skip."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    message = "There is no Chromium: install it (apt-get install chromium) to test in a browser."
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


# Of the package and not of the session: while Playwright runs, its event loop is the thread's,
# and other tests bring loops of their own.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    path = browser_path()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def lab(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running JupyterLab with an empty directory of notebooks."""
    with Lab.started(tmp_path_factory.mktemp("lab"), browser) as running:
        yield running


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: with GARCON_WRITE_IMAGES=1 to the documentation, else nowhere."""
    if os.environ.get("GARCON_WRITE_IMAGES"):
        return Path(__file__).parents[2] / "docs" / "images"
    return tmp_path_factory.mktemp("images")


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Tests in a browser come last, so that no other test meets Playwright's event loop."""
    here = Path(__file__).parent
    items.sort(key=lambda item: here in Path(item.path).parents)
