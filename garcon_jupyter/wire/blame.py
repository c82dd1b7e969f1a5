"""Whose code an error is from: the user's, the model's, or Garçon's own.

What raised says little: most errors come from torch, called by somebody who gave it what it cannot do. So
libraries are passed over, from the innermost frame outwards, and the first one left is to blame. Where there is
none, it is open, and said so.
"""

from __future__ import annotations

import sysconfig
import traceback
from types import TracebackType

OURS, MODEL, USER, OPEN = "ours", "model", "user", "open"

_OURS = ("/garcon_backend/", "/garcon_jupyter/")
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
    """Whether a file is of Garçon."""
    path = file.replace("\\", "/")
    return any(part in path for part in _OURS)


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
        if is_ours(path):
            return OURS
        if any(part in path for part in _MODEL):
            return MODEL
        if not is_library(path):
            return USER
    return OPEN
