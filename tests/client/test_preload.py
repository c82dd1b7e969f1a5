"""Torch is imported when it is clear that it will be needed, not before, and beside what goes on."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.processes

BEFORE = """
import sys, threading
import garcon_jupyter
from garcon_jupyter.client import preload
assert "torch" not in sys.modules
"""

BEGINS = """
preload.begin()
preload.begin()
(thread,) = [t for t in threading.enumerate() if t.name == "garcon-warming"]
"""


def python(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )


def test_it_is_imported_beside_what_goes_on() -> None:
    # An import on the main thread waits for the other, and finds it whole.
    done = python(
        BEFORE + BEGINS + "import torch; print(torch.ones(2).sum().item(), thread.is_alive())"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2.0")


def test_a_process_may_end_in_the_middle_of_it() -> None:
    done = python(BEFORE + BEGINS + "assert thread.is_alive()")
    assert (done.returncode, done.stderr) == (0, "")
