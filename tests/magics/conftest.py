"""A real shell in this process, with the magics loaded."""

from __future__ import annotations

import atexit
import re
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import garcon_jupyter as garcon


class Notebook:
    """Runs cells as a notebook does, and keeps what they print."""

    def __init__(self, shell: InteractiveShell, capture: pytest.CaptureFixture[str]) -> None:
        self.shell, self._capture = shell, capture

    def run(self, cell: str) -> str:
        """What a cell prints; raises what it raises."""
        printed, error = self.attempt(cell)
        if error is not None:
            raise error
        return printed

    def attempt(self, cell: str) -> tuple[str, BaseException | None]:
        """What a cell prints, its rendered error included, and the error."""
        self._capture.readouterr()
        result = self.shell.run_cell(cell, store_history=True)
        return self._capture.readouterr().out, result.error_before_exec or result.error_in_exec

    def fails(self, cell: str, kind: type[BaseException]) -> str:
        """What is shown of a cell's error, which is of this type."""
        printed, error = self.attempt(cell)
        assert isinstance(error, kind), (error, printed)
        return printed

    def __getitem__(self, name: str) -> Any:
        return self.shell.user_ns[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.shell.user_ns[name] = value

    def completions(self, text: str) -> list[str]:
        """What tab offers at the end of a text: the whole words."""
        with provisionalcompleter():
            found = list(self.shell.Completer.completions(text, len(text)))
        return [re.split(r"\s", text[: one.start])[-1] + one.text for one in found]


@pytest.fixture
def notebook(capsys: pytest.CaptureFixture[str]) -> Iterator[Notebook]:
    """A fresh notebook with the magics, and no model."""
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "NoColor"
    shell = InteractiveShell.instance(config=config)
    book = Notebook(shell, capsys)
    book.run("%load_ext garcon_jupyter")
    yield book
    book.run("%unload_ext garcon_jupyter")
    InteractiveShell.clear_instance()
    # What a shell does at the end is a garbage collection, and hundreds at the end of the tests are half a minute.
    atexit.unregister(shell.atexit_operations)


@pytest.fixture
def connected(notebook: Notebook, rmodel: garcon.RemoteModel) -> Notebook:
    """A notebook whose rmodel is a fresh session on the small Llama, in this process."""
    notebook["rmodel"] = rmodel
    return notebook


@pytest.fixture
def connected_served(notebook: Notebook, rmodel_served: garcon.RemoteModel) -> Notebook:
    """The same, on a server."""
    notebook["rmodel"] = rmodel_served
    return notebook
