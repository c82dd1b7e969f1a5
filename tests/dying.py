"""Processes that die in the midst of what makes files whole: an fsync, a rename, half of a write."""

from __future__ import annotations

import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any


def lives(work: Callable[[], object], seed: int, most: int = 30) -> int:
    """How often a process died before one of them had done the work: each in a call to the system drawn at random, before it or after.

    Each life is a fork, so that nothing need be imported again. All of them must be able to do the work again.

    Args:
        work: what each does from its beginning.
        seed: of the moments.
        most: calls that a process lives for, at most.

    Raises:
        AssertionError: a process did not die, but failed.
    """
    draw = random.Random(seed)
    for died in range(200):
        at, after = draw.randint(1, most), draw.random() < 0.5
        child = os.fork()
        if child == 0:
            _live(work, at, after)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "it failed"
            return died
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("it never ended")


def _live(work: Callable[[], object], at: int, after: bool) -> None:
    left = [at]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if after:
                    call(*given, **more)
                elif call is _WRITE:
                    call(given[0], given[1][: len(given[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*given, **more)

        return called

    for name in ("fsync", "replace", "write", "pwrite"):
        setattr(os, name, dying(getattr(os, name)))
    try:
        work()
    except BaseException:  # noqa: BLE001 - whatever it is, the test is told
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


_WRITE = os.write
