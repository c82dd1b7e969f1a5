"""Directories of processes: theirs while they live, and cleared up by the next when they were killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from garcon_jupyter.servers.private_directory import FRESH, LockedDirectory

PREFIX = "kept-"

HOLDER = """
import signal, sys
from garcon_jupyter.servers.private_directory import LockedDirectory
directory = LockedDirectory(sys.argv[1], sys.argv[2])
(directory.path / "file").write_text("mine")
print(directory.path, flush=True)
signal.pause()
"""


def aged(directory: Path) -> Path:
    """As if it had been made a while ago."""
    then = time.time() - 2 * FRESH
    os.utime(directory, (then, then))
    return directory


def test_it_is_private_and_goes(tmp_path: Path) -> None:
    directory = LockedDirectory(PREFIX, str(tmp_path))
    assert directory.path.parent == tmp_path and directory.path.stat().st_mode & 0o777 == 0o700
    assert (directory.path / ".lock").stat().st_mode & 0o777 == 0o600
    (directory.path / "file").write_text("mine")
    directory.remove()
    directory.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.processes
def test_that_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    words = [sys.executable, "-c", HOLDER, PREFIX, str(tmp_path)]
    holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    held = aged(Path(holder.stdout.readline().strip()))
    LockedDirectory(PREFIX, str(tmp_path)).remove()
    assert (held / "file").read_text() == "mine"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    LockedDirectory(PREFIX, str(tmp_path)).remove()
    assert not held.exists()


def test_what_is_being_made_and_what_is_another_s_stays(tmp_path: Path) -> None:
    fresh = tmp_path / f"{PREFIX}fresh"
    fresh.mkdir()
    other = tmp_path / "other"
    other.mkdir()
    aged(other)
    link = tmp_path / f"{PREFIX}link"
    link.symlink_to(other)
    file = tmp_path / f"{PREFIX}file"
    file.write_text("a file")
    LockedDirectory(PREFIX, str(tmp_path)).remove()
    assert fresh.exists() and other.exists() and link.exists() and file.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_what_another_user_filled_is_not_touched(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    trap = tmp_path / f"{PREFIX}trap"
    trap.mkdir()
    (trap / ".lock").symlink_to(precious)
    os.chown(trap, 12345, 12345)
    aged(trap)
    LockedDirectory(PREFIX, str(tmp_path)).remove()
    assert trap.exists() and precious.read_text() == "mine"
