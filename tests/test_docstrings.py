"""The examples in docstrings are true: each is run on a real server, line by line."""

from __future__ import annotations

import doctest
import inspect
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import recorders

WITH_EXAMPLES: dict[str, Any] = {
    "launch": garcon.launch,
    "Probe": garcon.Probe,
    "Handle": garcon.Handle,
    "forward": garcon.RemoteModel.forward,
    "recordings": garcon.RemoteModel.recordings,
    "TopK": recorders.TopK,
}

OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.REPORT_ONLY_FIRST_FAILURE


def tried(docstring: str, name: str, names: dict[str, Any]) -> tuple[int, str]:
    """(how many lines there were, what was wrong; "" where nothing was)."""
    test = doctest.DocTestParser().get_doctest(docstring, names, name, None, None)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    return len(test.examples), "".join(said)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_an_example_shows_what_it_says(name: str, smollm2: garcon.RemoteModel) -> None:
    names = {"__name__": "__main__", "garcon": garcon, "torch": torch, "recorders": recorders}
    docstring = inspect.getdoc(WITH_EXAMPLES[name]) or ""
    lines, wrong = tried(docstring, name, {**names, "rmodel": smollm2})
    assert wrong == "" and lines >= 3


def test_a_wrong_example_is_seen() -> None:
    lines, wrong = tried(">>> 1 + 1\n3\n", "wrong", {})
    assert lines == 1 and "Expected:\n    3\nGot:\n    2" in wrong
    assert tried(">>> [][1]\nTraceback (most recent call last):\nKeyError: ...\n", "wrong", {})[1]
