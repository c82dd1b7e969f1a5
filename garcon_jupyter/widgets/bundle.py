"""The browser side, read from the files beside the Python.

anywidget gives the browser one ES module as text, and such a module cannot import its neighbours.
So the files a widget imports are put in front of it, each once, as one text. No build step, and
nothing is loaded from anywhere. All names of the files are then in one scope: no two may declare the
same (tests/widgets/test_javascript.py looks). The comments that tell types stay behind, for a saved
notebook keeps the text of every widget in it.
"""

from __future__ import annotations

import re
from importlib.resources import files

_IMPORT = re.compile(r"^import \{[^}]*\} from \"\./(\w+)\.js\";\n", flags=re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", flags=re.MULTILINE)
_TYPES = re.compile(r"^ *(?:/\*\*(?:[^*]|\*(?!/))*\*/|// @ts-check)\n", flags=re.MULTILINE)
"""Comments with lines to themselves that begin as those that tell types do."""


def module(name: str) -> str:
    """The ES module of widget `name`, self-contained."""
    parts: dict[str, str] = {}
    _gather(name, parts)
    return "\n".join(parts.values())


def style(name: str) -> str:
    """The style sheet of widget `name`."""
    return f"{_read('common.css')}\n{_read(f'{name}.css')}"


def _gather(name: str, parts: dict[str, str]) -> None:
    """Add module `name` to `parts`, after all that it imports."""
    text = _read(f"{name}.js")
    for needed in _IMPORT.findall(text):
        if needed not in parts:
            _gather(needed, parts)
    for left_out in (_IMPORT, _EXPORT, _TYPES):
        text = left_out.sub("", text)
    parts[name] = text


def _read(filename: str) -> str:
    return files("garcon_jupyter.widgets").joinpath(filename).read_text(encoding="utf-8")
