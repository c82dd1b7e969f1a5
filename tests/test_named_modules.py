"""What pages, docstrings and comments name by its module is there, under that name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from docs.rooms import ROOT

HALVES = {"garcon_jupyter": ROOT, "garcon_backend": ROOT / "backend"}
"""The packages, and where each lies."""

NAME = re.compile(r"\b(?:garcon_jupyter|garcon_backend)(?:\.[A-Za-z_]\w*)+")

FORMER = "garcon_jupyter/user_code/moved.py"
"""Holds names that are no more."""


def texts() -> Iterator[Path]:
    """Pages, and the source of both packages."""
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md"))
    yield from (ROOT / "docs").rglob("*.md")
    for half, place in HALVES.items():
        yield from (place / half).rglob("*.py")


def named() -> dict[str, str]:
    """Each name, with a file that has it."""
    files = [file for file in texts() if file != ROOT / FORMER]
    return {
        name: str(file.relative_to(ROOT))
        for file in files
        for name in NAME.findall(file.read_text(encoding="utf-8"))
    }


def is_there(name: str) -> bool:
    """Whether a name leads to a file, and from there to something in it."""
    half, *rest = name.split(".")
    place, module = HALVES[half] / half, half
    while rest and ((place / rest[0]).is_dir() or (place / f"{rest[0]}.py").is_file()):
        place, module = place / rest[0], f"{module}.{rest[0]}"
        rest.pop(0)
    found: Any = import_module(module)
    for word in rest:
        if word in getattr(
            found, "__annotations__", {}
        ):  # a dataclass's field is no attribute of it
            return True
        if not hasattr(found, word):
            return False
        found = getattr(found, word)
    return True


def test_what_is_named_is_there() -> None:
    names = named()
    assert len(names) > 100
    assert not {name: file for name, file in names.items() if not is_there(name)}


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("garcon_jupyter.client.tokens.Tokens.lengths", True),
        ("garcon_jupyter.points.Address", True),
        ("garcon_jupyter.client.tokens.Token", False),
        ("garcon_jupyter.tokens.Tokens", False),  # as 0.1.0 called it: an import would be told
        ("garcon_backend.models.gguf_tensors", False),
    ],
)
def test_what_is_not_there_is_seen(name: str, there: bool) -> None:
    assert is_there(name) is there
