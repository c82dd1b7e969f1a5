"""What this process has imported already: looked for, never imported.

``sys.modules`` holds a module from the first moment of its import on, and torch takes a second to become whole,
often on a thread of its own (:mod:`garcon_jupyter.client.preload`). Whoever finds it there meanwhile finds half of it. So
nothing here looks into ``sys.modules`` itself: :func:`whole` does.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def whole(name: str) -> ModuleType | None:
    """A module that was imported to its end; None where it was not, or is still being imported.

    It does not wait: what is not whole has given nobody an object that could be asked about.
    """
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", False) else module


def shell() -> Any:
    """The IPython shell of this process: of a notebook's kernel, or of a terminal; None where there is none."""
    ipython = whole("IPython")
    return ipython.get_ipython() if ipython else None
