"""A private directory that a process has while it lives.

A process that is killed cannot clear up after itself, so the next one that makes such a directory does it: each
holds a lock on its own, which the operating system takes back from the dead.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

FRESH = 60.0
"""Seconds for which a directory without a lock may be one that is being made."""


class LockedDirectory:
    """A directory (0700) that :meth:`remove` takes away, or a later process if this one is killed.

    Args:
        prefix: of its name; what has the same is cleared up with it.
        parent: where it is made; the system's place for temporary files where it is None.

    Attributes:
        path: where it is.
    """

    def __init__(self, prefix: str, parent: str | None = None) -> None:
        for left in Path(parent or tempfile.gettempdir()).glob(f"{prefix}*"):
            _clear(left)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self._lock = _lock(self.path)

    def remove(self) -> None:
        """Take it away, and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release(force=True)


def _lock(directory: Path) -> FileLock:
    """Take the lock of a directory.

    Raises:
        Timeout: a living process has it.
    """
    lock = FileLock(directory / ".lock", timeout=0, mode=0o600, thread_local=False)
    lock.acquire()
    return lock


def _clear(left: Path) -> None:
    """Remove a directory of this user that no living process has."""
    with contextlib.suppress(OSError, Timeout):  # gone; or held
        facts = left.lstat()
        # Nothing is touched in what another user may have filled: a lock there could be a link to a file of ours.
        mine = stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()
        if not mine or time.time() - facts.st_mtime < FRESH:
            return
        lock = _lock(left)
        shutil.rmtree(left, ignore_errors=True)
        lock.release(force=True)
