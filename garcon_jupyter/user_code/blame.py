"""Whose code an error is from: the user's, the model's, or Garçon's own.

What raised says little: most errors come from torch, called by somebody who gave it what it cannot do. So
libraries are passed over, from the innermost frame outwards, and the first one left is to blame. Where there is
none, it is open, and said so.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

OURS, MODEL, USER, OPEN = "ours", "model", "user", "open"

_PACKAGES = ("garcon_jupyter", "garcon_backend")
_MODEL = (
    "/transformers/",
    "/transformers_modules/",
)  # the latter: code that came with a checkpoint
_LIBRARIES = (
    *(sysconfig.get_path(name).replace("\\", "/") + "/" for name in ("stdlib", "platstdlib")),
    "/site-packages/",
    "/dist-packages/",
    "<frozen ",
    "<__array_function__",
    "<attrs generated",
)


def is_ours(file: str) -> bool:
    """Whether a file is of Garçon: of its packages as they are loaded here, not of a directory of that name."""
    return any(directory in Path(file).parents for directory in _directories())


def _directories() -> list[Path]:
    modules = (sys.modules.get(name) for name in _PACKAGES)
    return [Path(m.__file__).parent for m in modules if m is not None and m.__file__]


def is_library(file: str) -> bool:
    """Whether a file is of Python or of an installed package."""
    path = file.replace("\\", "/")
    return any(part in path for part in (*_LIBRARIES, *_MODEL))


def whose(trace: TracebackType | None) -> str:
    """Whose code an error is from, by its traceback: OURS, MODEL, USER or OPEN."""
    for frame in reversed(
        traceback.StackSummary.extract(traceback.walk_tb(trace), lookup_lines=False)
    ):
        path = frame.filename.replace("\\", "/")
        if is_ours(frame.filename):
            return OURS
        if any(part in path for part in _MODEL):
            return MODEL
        if not is_library(path):
            return USER
    return OPEN
