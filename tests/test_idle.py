"""The one clock, by a clock of the test's own."""

from __future__ import annotations

from garcon_backend.idle import IdleClock


class Time:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_expires_after_so_long_without_a_request() -> None:
    time = Time()
    clock = IdleClock(60, time)
    time.now += 59
    assert clock.left == 1 and not clock.expired
    time.now += 1
    assert clock.expired


def test_nothing_ends_while_a_request_runs_or_waits() -> None:
    time = Time()
    clock = IdleClock(60, time)
    clock.begin()
    clock.begin()
    time.now += 1000
    assert clock.left == 60 and not clock.expired
    clock.end()
    time.now += 1000
    assert not clock.expired
    clock.end()
    assert clock.left == 60
    time.now += 60
    assert clock.expired


def test_zero_is_never() -> None:
    time = Time()
    clock = IdleClock(0, time)
    time.now += 1e9
    assert clock.left is None and not clock.expired
