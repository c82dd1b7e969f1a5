"""Threads that touch torch are over before Python is."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial

import pytest

from garcon_jupyter.libraries import side_threads

TOUCHING_TORCH = """
import threading
import torch
from garcon_jupyter.libraries import side_threads

stopped, begun = threading.Event(), threading.Event()

def work():
    while not stopped.is_set():
        torch.ones(3).sum().item()
        begun.set()

{start}
assert begun.wait(60)
print("all is done")
"""

HERE = 'side_threads.start("beside", work, stop=stopped.set)'
PLAIN = "threading.Thread(target=work, daemon=True).start()"


def ends(start: str) -> tuple[int, str, str]:
    """How a script ends that leaves such a thread behind, and what it said."""
    script = TOUCHING_TORCH.format(start=start)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.processes
def test_a_script_ends_as_it_should() -> None:
    assert ends(HERE) == (0, "all is done\n", "")


@pytest.mark.processes
@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="Python 3.14 does not unwind daemon threads"
)
def test_a_plain_daemon_thread_aborts_it() -> None:
    code, _, told = ends(PLAIN)
    assert code != 0
    assert "terminate called" in told


def test_each_is_told_to_stop_and_waited_for() -> None:
    stopped, ended = threading.Event(), []

    def work() -> None:
        stopped.wait(60)
        ended.append(True)

    side_threads.start("beside", work, stop=stopped.set)
    assert side_threads.end()
    assert ended == [True]


def test_one_that_does_not_end_is_not_waited_for_without_end() -> None:
    answered = threading.Event()
    thread = side_threads.start("beside", partial(answered.wait, 60), stop=lambda: None)
    assert not side_threads.end(longest=0.01)
    answered.set()
    thread.join(60)
    assert side_threads.end(longest=0.01)
