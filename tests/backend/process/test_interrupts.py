"""When a cancellation raises on one rank, and when it waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from garcon_backend.process.interrupts import Cancelled, Interrupts


@pytest.fixture
def interrupts() -> Interrupts:
    return Interrupts(solo=True)


def cancelled_after(interrupts: Interrupts, seconds: float, request: str = "request") -> None:
    threading.Timer(seconds, interrupts.cancel, (request,)).start()


def wait_for_it(seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)
    raise AssertionError("nothing was raised")


def entering(file: str) -> Callable[[Any], None]:
    """A function in a file that enters and leaves a block."""
    names: dict[str, Any] = {}
    exec(compile("def run(block):\n    with block:\n        pass\n", file, "exec"), names)
    return names["run"]


class SlowToLeave:
    """A block that takes its time to put something back."""

    def __init__(self) -> None:
        self.whole = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        end = time.monotonic() + 0.15
        while time.monotonic() < end:
            time.sleep(0.001)
        self.whole = True


def test_what_is_ours_is_left_whole(interrupts: Interrupts) -> None:
    block = SlowToLeave()
    cancelled_after(interrupts, 0.05)
    with pytest.raises(Cancelled), interrupts.running("request"), interrupts.the_pass():
        entering("/lib/garcon_backend/some.py")(block)
        wait_for_it()
    assert block.whole


def test_what_is_the_users_is_not(interrupts: Interrupts) -> None:
    block = SlowToLeave()
    cancelled_after(interrupts, 0.05)
    with pytest.raises(Cancelled), interrupts.running("request"), interrupts.user_code():
        entering("cell 3")(block)
        wait_for_it()
    assert not block.whole


def test_what_is_held_is_whole(interrupts: Interrupts) -> None:
    cancelled_after(interrupts, 0.02)
    whole = False
    with pytest.raises(Cancelled), interrupts.running("request"), interrupts.user_code():
        with interrupts.held():
            time.sleep(0.2)
            whole = True
        wait_for_it()
    assert whole


def test_over_ranks_only_user_code_is_interrupted() -> None:
    interrupts = Interrupts(solo=False)
    cancelled_after(interrupts, 0.01)
    with pytest.raises(Cancelled), interrupts.running("request"):
        with interrupts.the_pass():
            time.sleep(0.2)
        with interrupts.user_code():
            wait_for_it()


def test_one_that_comes_before_its_request(interrupts: Interrupts) -> None:
    interrupts.cancel("request")
    with pytest.raises(Cancelled), interrupts.running("request"), interrupts.the_pass():
        wait_for_it()


def test_that_of_another_request_is_nothing(interrupts: Interrupts) -> None:
    with interrupts.running("request"), interrupts.the_pass():
        interrupts.cancel("another")
        time.sleep(0.05)
        assert not interrupts.cancelled


def test_it_is_not_forgotten_for_those_of_others(interrupts: Interrupts) -> None:
    with interrupts.running("request"):
        interrupts.cancel("request")
        for n in range(1000):
            interrupts.cancel(f"another {n}")
        assert interrupts.cancelled
        with pytest.raises(Cancelled), interrupts.the_pass():
            wait_for_it()


def test_it_comes_again_to_who_swallows_it(interrupts: Interrupts) -> None:
    swallowed = 0
    cancelled_after(interrupts, 0.01)
    with pytest.raises(Cancelled), interrupts.running("request"), interrupts.the_pass():
        while swallowed < 3:
            try:
                wait_for_it()
            except Cancelled:
                swallowed += 1
        wait_for_it()


def test_one_that_comes_at_the_very_end_hurts_nobody(interrupts: Interrupts) -> None:
    """No KeyboardInterrupt lands behind a request: of a rank that waits for the next it would be the end."""
    for n in range(300):
        cancel = threading.Thread(target=interrupts.cancel, args=(f"request {n}",))
        with interrupts.running(f"request {n}"):
            cancel.start()
        cancel.join()
    time.sleep(0.2)


def test_phases_are_nested(interrupts: Interrupts) -> None:
    with interrupts.running("request"):
        assert interrupts.phase == "preparing"
        with interrupts.during("forward"):
            with interrupts.user_code():
                assert interrupts.phase == "user code"
            assert interrupts.phase == "forward"
