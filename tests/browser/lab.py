"""JupyterLab as a process, and a notebook in it as a person has it before them."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request

START = 60.0
"""Seconds in which JupyterLab starts."""

NOTEBOOK_7 = "/notebooks/{}"
"""The page of a notebook in Notebook 7, which the same server has."""


@dataclass
class Lab:
    """A running JupyterLab.

    Attributes:
        directory: of its notebooks.
        address: "http://127.0.0.1:PORT".
        token: what it asks of whoever comes.
        refused: what pages asked of other hosts, in vain.
    """

    directory: Path
    address: str
    token: str
    browser: Browser
    refused: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def started(cls, directory: Path, browser: Browser) -> Iterator[Lab]:
        """JupyterLab with settings, workspaces and notebooks of its own; ended afterwards."""
        notebooks = directory / "notebooks"
        notebooks.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        token = secrets.token_hex(16)
        root = Path(__file__).parents[2]
        # Its own notifications would stand before what a test wants to see.
        quiet = directory / "settings" / "@jupyterlab" / "apputils-extension"
        quiet.mkdir(parents=True)
        settings = '{"checkForUpdates": false, "fetchNews": "false", "doNotDisturbMode": true}'
        (quiet / "notification.jupyterlab-settings").write_text(settings)
        # The side bar of this very checkout comes before one that was installed.
        bundles = directory / "jupyter" / "labextensions"
        bundles.mkdir(parents=True)
        (bundles / "garcon-jupyter").symlink_to(root / "garcon_jupyter" / "labextension")
        own = {
            "JUPYTER_PATH": "jupyter",
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        }
        environment = {
            **os.environ,
            **{name: str(directory / part) for name, part in own.items()},
            "PYTHONPATH": os.pathsep.join([str(root), str(root / "backend")]),
            "LOGNAME": "ada",  # in pictures nobody needs to know who ran the tests
        }
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
            *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={notebooks}"),
            *("--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None"),
            "--JupyterNotebookApp.expose_app_in_browser=True",
        ]
        with (directory / "lab.txt").open("w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        lab = cls(notebooks, f"http://127.0.0.1:{port}", token, browser)
        try:
            lab._wait(process, directory / "lab.txt")
            yield lab
        finally:
            process.terminate()
            process.wait(20)

    def _wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        end = time.monotonic() + START
        while time.monotonic() < end and process.poll() is None:
            try:
                self.get("/api/status")
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")

    def get(self, path: str) -> bytes:
        """What JupyterLab's own interface answers."""
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def write(self, name: str, cells: list[str]) -> Path:
        """A notebook of code cells."""
        code = [nbformat.v4.new_code_cell(cell) for cell in cells]
        notebook = nbformat.v4.new_notebook(cells=code)
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        path = self.directory / f"{name}.ipynb"
        path.write_text(nbformat.writes(notebook))
        return path

    @cached_property
    def window(self) -> BrowserContext:
        """A browser window's worth of state, logged in, with one cache for all its pages."""
        context = self.browser.new_context()
        context.set_default_timeout(40_000)
        context.on("request", self._note)
        return context

    def _note(self, request: Request) -> None:
        """Remember what is asked of another host; Chromium finds none (:data:`tests.browser.conftest.FLAGS`)."""
        if not request.url.startswith((self.address, "data:", "blob:", "file:")):
            self.refused.append(request.url)

    @contextmanager
    def page(
        self, path: str = "/lab?reset", viewport: tuple[int, int] = (1280, 900)
    ) -> Iterator[Page]:
        """A page of JupyterLab, started as far as ``window.jupyterapp.restored``."""
        page = self.window.new_page()
        page.set_viewport_size({"width": viewport[0], "height": viewport[1]})
        joint = "&" if "?" in path else "?"
        page.goto(f"{self.address}{path}{joint}token={self.token}")
        page.wait_for_function("() => window.jupyterapp")
        page.evaluate("() => window.jupyterapp.restored")
        try:
            yield page
        finally:
            page.close()

    @contextmanager
    def notebook(
        self,
        path: Path,
        where: str = "/doc/tree/{}?reset",
        viewport: tuple[int, int] = (1280, 900),
    ) -> Iterator[Notebook]:
        """A notebook, alone in its window, whose kernel is ready. Its kernel is shut down after.

        Args:
            where: the page of a notebook: JupyterLab's, or that of :data:`NOTEBOOK_7`.
            viewport: width and height of the page.
        """
        name = path.relative_to(self.directory).as_posix()
        with self.page(where.format(name), viewport) as page:
            notebook = Notebook(page)
            notebook.wait_until_ready()
            yield notebook
            notebook.command("kernelmenu:shutdown")


@dataclass(frozen=True)
class Paint:
    """Seconds from running a cell.

    Attributes:
        shown: until its picture was on the screen.
        answered: until the kernel had done with it.
    """

    shown: float
    answered: float


class Notebook:
    """The notebook of a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.paints: dict[str, Paint] = {}

    def command(self, name: str) -> None:
        """One of JupyterLab's commands; returns when it has been carried out."""
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute(name).then(() => null)", name
        )

    def wait_until_ready(self) -> None:
        self.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget?.context?.sessionContext"
        )
        self.page.evaluate(
            """async () => {
                const { context } = window.jupyterapp.shell.currentWidget;
                await context.ready;
                await context.sessionContext.ready;
                await context.sessionContext.session?.kernel?.info;
            }"""
        )

    def run(self) -> None:
        """Run all cells, until the last is done; an error in one is an error here."""
        self.command("notebook:run-all-cells")
        self.check()

    def check(self) -> None:
        """Fail where the output of a cell is an error."""
        for cell in self.content()["cells"]:
            for output in cell.get("outputs", ()):
                if output["output_type"] == "error":
                    raise AssertionError(f"{output['ename']}: {output['evalue']}")

    def content(self) -> dict[str, Any]:
        """The notebook as it would be saved."""
        return self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.content.model.toJSON()"
        )

    def start(self) -> None:
        """Run all cells, without waiting for them."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")

    def start_cell(self, number: int) -> None:
        """Run one cell, without waiting for it."""
        self.page.evaluate(
            """number => {
                window.jupyterapp.shell.currentWidget.content.activeCellIndex = number;
                window.jupyterapp.commands.execute("notebook:run-cell");
            }""",
            number,
        )

    def busy(self) -> bool:
        """Whether the kernel is running something."""
        return self.page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel
                .status === "busy" """
        )

    def execute(self, code: str) -> str:
        """Run code in the kernel beside the notebook; what it prints."""
        return self.page.evaluate(
            """async (code) => {
                const { kernel } = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
                const future = kernel.requestExecute({ code, store_history: false });
                let said = "";
                future.onIOPub = ({ header, content }) => {
                    if (header.msg_type === "stream") said += content.text;
                    if (header.msg_type === "error") said += content.traceback.join("\\n");
                };
                await future.done;
                return said;
            }""",
            code,
        )

    def restart(self) -> None:
        """Restart the kernel, as by hand."""
        self.page.evaluate(
            """async () => {
                const { kernel } = window.jupyterapp.shell.currentWidget.context.sessionContext.session;
                await kernel.restart();
                await kernel.info;
            }"""
        )

    def paint(self, number: int) -> Paint:
        """Run one cell, and wait for its widget (of other cells: for their end)."""
        shown, answered = self.page.evaluate(
            """async (number) => {
                const { content } = window.jupyterapp.shell.currentWidget;
                content.activeCellIndex = number;
                const cell = content.activeCell;
                await content.scrollToItem(number);
                const start = performance.now();
                const passed = () => (performance.now() - start) / 1000;
                const frame = () => new Promise(requestAnimationFrame);
                let answered = 0;
                const run = window.jupyterapp.commands.execute("notebook:run-cell");
                run.then(() => (answered = passed()));
                const drawn = () => cell.node.querySelector(".garcon-live[data-drawn]")?.clientWidth;
                const outputs = () => cell.model.sharedModel.getOutputs();
                const widget = "application/vnd.jupyter.widget-view+json";
                const plain = () => answered && !outputs().some((each) => each.data?.[widget]);
                while (!drawn() && !plain() && passed() < 120) await frame();
                await frame();
                const shown = passed();
                await run;
                return [shown, answered];
            }""",
            number,
        )
        return Paint(shown, answered)

    def save(self) -> None:
        self.command("docmanager:save")

    def cell(self, number: int) -> Locator:
        """A cell, by its place."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def widgets(self, kind: str) -> Locator:
        """The living widgets of a kind, such as "tokens", in order, as soon as they are drawn."""
        return self.page.locator(f".garcon-live.garcon-{kind}[data-drawn]")


def become(page: Page, read: Callable[[], Any], wanted: Any, seconds: float = 20.0) -> None:
    """Wait until `read()` is `wanted`; where it never is, fail with what it was instead."""
    end = time.monotonic() + seconds
    while (found := read()) != wanted:
        assert time.monotonic() < end, f"{found!r} is not {wanted!r}"
        page.wait_for_timeout(50)
