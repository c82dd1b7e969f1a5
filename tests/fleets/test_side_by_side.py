"""Work on threads: outcomes in order, and an interrupt that ends all of it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from garcon_jupyter.connection import called_off
from garcon_jupyter.errors import Interrupted
from garcon_jupyter.fleets.side_by_side import side_by_side


def test_outcomes_stand_in_order_whoever_ends_first() -> None:
    second = threading.Event()

    def waits() -> str:
        assert second.wait(20)
        return "one"

    found = side_by_side({"a": waits, "b": second.set, "c": lambda: 1 / 0})
    assert list(found) == ["a", "b", "c"] and found["a"] == "one"
    assert isinstance(found["c"], ZeroDivisionError)
    assert side_by_side({}) == {}


def test_an_exception_that_is_false_is_an_exception() -> None:
    class Empty(Exception):
        def __bool__(self) -> bool:
            return False

    def fails() -> None:
        raise Empty

    assert isinstance(side_by_side({"a": fails})["a"], Empty)


def test_so_many_at_once() -> None:
    lock, now, most = threading.Lock(), 0, 0
    full = threading.Barrier(2, timeout=20)

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        full.wait()  # both threads are here
        with lock:
            now -= 1

    side_by_side(dict.fromkeys("abcd", work), at_once=2)
    assert most == 2


def test_an_interrupt_calls_all_of_it_off_and_what_has_not_begun_never_begins() -> None:
    begun: list[str] = []
    both = threading.Barrier(2, timeout=20)

    def until_called_off() -> None:
        begun.append("one")
        if both.wait() == 0:
            os.kill(os.getpid(), signal.SIGINT)
        while True:
            called_off.check()
            time.sleep(0.01)

    with pytest.raises(Interrupted, match="You interrupted it"):
        side_by_side(dict.fromkeys("abc", until_called_off), at_once=2)
    assert begun == ["one", "one"]
    called_off.check()  # nothing is left behind in this thread
