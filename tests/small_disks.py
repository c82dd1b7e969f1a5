"""Disks that are small and really fill up: file systems in memory, in a mount namespace of a process of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.network import ROOT

_MOUNT = """
disk=$1; shift
mount -t tmpfs -o size=16m,mode=700 none "$disk" || exit 77
exec "$@"
"""

_REFUSED = 77

_SMALL = 64 << 20
"""Bytes that such a disk may not have: a mistake here must not fill the machine's own."""


def run_on_one(module: str, disk: Path, *words: str) -> str:
    """What a module prints that is run with a disk of 16 MiB at a place; where the kernel refuses one, the test is skipped."""
    disk.mkdir()
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("the kernel refuses mount namespaces")
    command = [sys.executable, "-m", module, str(disk), *words]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(disk), *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        timeout=300,
        check=False,
    )
    if done.returncode == _REFUSED:
        pytest.skip("the kernel refuses to mount here")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def filler(disk: Path) -> Iterator[Path]:
    """A file that may take what a disk has; it is gone afterwards."""
    assert shutil.disk_usage(disk).total < _SMALL
    path = disk / "filler"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def fill(path: Path, left: int) -> None:
    """Let a file take all that its disk has, but for so many bytes."""
    with path.open("ab", buffering=0) as file:
        while (free := shutil.disk_usage(path.parent).free) > left:
            file.write(bytes(min(1 << 20, free - left)))
