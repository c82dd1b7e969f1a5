"""What the first answer needs is imported before it comes.

Importing torch takes about a second. ``import garcon_jupyter`` does without it, so that listing servers and
completing names are quick; but the first tensor that arrives needs it. So it is imported on a thread of its own
as soon as it is clear that one will, while the notebook waits for the server or its user types.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
from functools import partial

NEEDED = "torch"

LONGEST = 60.0
"""Seconds for which a fork waits for it."""


@functools.cache
def begin() -> None:
    """Begin the import, once; returns without waiting."""
    if NEEDED in sys.modules:
        return
    # Torch imports this, and it locks around forks from then on: not in the midst of one that waits for torch.
    importlib.import_module("concurrent.futures.thread")
    # Not a daemon: a process that ends in the middle of it waits, where it could crash.
    thread = threading.Thread(target=_import, name="garcon-warming")
    thread.start()
    # A fork in the middle of it would have the lock of the import, and not the thread that gives it back.
    os.register_at_fork(before=partial(thread.join, LONGEST))


def _import() -> None:
    with contextlib.suppress(Exception):  # the process ends; else whoever needs it meets the error
        importlib.import_module(NEEDED)
