"""The rooms of the house, as each says of itself: what it is for, what does not belong there, what is in it."""

from __future__ import annotations

import ast
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

HALVES = {
    "garcon_jupyter/": "What the notebook imports",
    "backend/garcon_backend/": "What runs beside the model",
}
"""Folder of each half, from the root of the repository, and what it is."""

NOT_HERE = "Not here:"


@dataclass(frozen=True)
class Room:
    """A folder with one subject.

    Attributes:
        path: from its half.
        subject: what it is for, a sentence.
        not_here: what does not belong there, a sentence.
        modules: what it says that is in it, by name.
    """

    path: str
    subject: str
    not_here: str
    modules: dict[str, str]


def room(folder: Path) -> Room:
    """The room of a folder, read from the docstring of its ``__init__.py``."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    not_here = [part for part in paragraphs if part.startswith(NOT_HERE)]
    listed = re.findall(r"^``(\w+)`` +(.+(?:\n +.+)*)$", text, flags=re.M)
    return Room(
        folder.name,
        paragraphs[0],
        not_here[0].removeprefix(NOT_HERE).strip() if not_here else "",
        {name: " ".join(what.split()) for name, what in listed},
    )


def rooms(half: str) -> list[Room]:
    """The rooms of a half, by name."""
    folders = sorted(file.parent for file in (ROOT / half).glob("*/__init__.py"))
    return [room(folder) for folder in folders]


def flat(half: str) -> list[str]:
    """Modules that lie in no room."""
    return sorted(file.stem for file in (ROOT / half).glob("*.py"))


def section() -> str:
    """The part of ``architecture.md`` about rooms."""
    parts = []
    for half, what in HALVES.items():
        parts += [
            f"### {what}: `{half}`\n",
            "| Room | What it is for | Not here |",
            "|---|---|---|",
        ]
        parts += [
            f"| [`{r.path}/`](../{half}{r.path}/__init__.py) | {_markdown(r.subject)} | {_markdown(r.not_here)} |"
            for r in rooms(half)
        ]
        names = [name for name in flat(half) if not name.startswith("__")]
        if names:
            parts.append(
                "\nBeside the rooms: " + "; ".join(_told(half, name) for name in names) + "."
            )
        parts.append("")
    parts += ["### Who may import what: each from those after it", "", stacks()]
    return "\n".join(parts)


def stacks() -> str:
    """The layers of both halves, as the contracts of ``pyproject.toml`` declare them, the top first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layered = [c for c in contracts["importlinter"]["contracts"] if c["type"] == "layers"]
    rows = [
        f"- `{c['containers'][0]}`: " + " > ".join(f"`{x}`" for x in c["layers"]) for c in layered
    ]
    return "\n".join(row.replace(" | ", "` · `") for row in rows) + "\n"


def _told(half: str, name: str) -> str:
    text = ast.get_docstring(ast.parse((ROOT / half / f"{name}.py").read_text(encoding="utf-8")))
    first = (text or "").split("\n")[0].rstrip(".")
    return f"[`{name}.py`](../{half}{name}.py) ({_markdown(first)})"


def _markdown(text: str) -> str:
    """Docstrings write code in double backquotes."""
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text).replace("``", "`")
