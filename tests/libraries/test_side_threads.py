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

side_threads.start("beside", work, stop=stopped.set)
assert begun.wait(60)
print("all is done")
"""


@pytest.mark.processes
def test_a_script_ends_as_it_should() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOUCHING_TORCH],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "all is done\n", "")


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
