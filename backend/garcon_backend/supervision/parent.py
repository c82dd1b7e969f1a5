"""No process of a server outlives the one that started it: an orphan would hold a device for ever."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable


def end_with_parent(end: Callable[[], None]) -> None:
    """Call `end`, on a thread of its own, once the process that started this one is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        end()

    threading.Thread(target=watch, daemon=True, name="parent watch").start()
