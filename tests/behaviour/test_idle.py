"""The idle clock: by a clock of the test's own, and once for real, in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_backend.kernel.idle import IdleClock
from garcon_jupyter import ServerGone, UnknownServer
from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.servers import control
from garcon_jupyter.servers.server import own_directory, shared_directory
from tests.conftest import quiet
from tests.oracle import PROMPT


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
    assert clock.left == 60 and not clock.expired and clock.warn() is None
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
    assert clock.left is None and not clock.expired and clock.warn() is None


def test_it_warns_twice_before_the_end() -> None:
    time = Time()
    clock = IdleClock(3600, time)
    assert clock.warn() is None and clock.warning is None
    time.now += 3299
    assert clock.warn() is None
    time.now += 1
    assert clock.warn() == {"number": 1, "seconds": 300}
    time.now += 10
    assert clock.warn() is None and clock.warning == {"number": 1, "seconds": 290}
    time.now += 230
    assert clock.warn() == {"number": 2, "seconds": 60}
    clock.touch()
    assert clock.warn() is None and clock.warning is None
    time.now += 3300
    assert clock.warn() == {"number": 3, "seconds": 300}


def test_short_times_are_warned_of_in_proportion() -> None:
    time = Time()
    clock = IdleClock(12, time)
    time.now += 8.9
    assert clock.warn() is None
    time.now += 0.1
    assert clock.warn() == {"number": 1, "seconds": pytest.approx(3)}
    time.now += 2.4
    assert clock.warn() == {"number": 2, "seconds": pytest.approx(0.6)}


def test_a_request_that_came_and_went_between_two_looks_takes_the_warning_back() -> None:
    time = Time()
    clock = IdleClock(3600, time)
    time.now += 3400
    assert clock.warn() is not None
    clock.begin(), clock.end()
    assert clock.warning is None
    time.now += 3400
    assert clock.warn() == {"number": 2, "seconds": 200}


def test_a_real_server_ends_when_nobody_uses_it(
    llama_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Looking at it does not keep it; who looks is warned; asking to keep it does; nothing is left."""
    timeout = 6.0
    server = garcon.launch(llama_path, "fleeting", tp=2, idle_timeout=timeout, progress=quiet)
    model = garcon.connect("fleeting")
    status = model.status()
    pids = [server.facts["supervisor"], *(rank["pid"] for rank in status["ranks"])]
    own = own_directory("fleeting"), shared_directory("fleeting")
    assert all(path.exists() for path in own)

    def look_until_warned() -> None:
        while not control.status(server)["idle_warning"]:  # an open side bar
            time.sleep(0.05)
        assert model.status()["idle_warning"]["seconds"] <= timeout / 4

    look_until_warned()
    assert "Server fleeting ends in" in capsys.readouterr().err
    model.status()
    assert capsys.readouterr().err.count("fleeting") <= 1  # the second warning, at most
    assert model.keep_alive() == pytest.approx(timeout, abs=0.5)
    assert model.status()["idle_warning"] is None
    look_until_warned()
    model.forward(PROMPT, logits="none")
    began = time.monotonic()
    assert model.status()["idle_left"] > timeout - 0.5
    with pytest.raises(ServerGone, match=r"idle for 0\.1 minutes"):
        while True:
            model.status()
            time.sleep(0.1)
    assert time.monotonic() - began > timeout - 0.5
    end = time.monotonic() + 10
    while any(map(process_lives, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(process_lives, pids))
    assert not any(path.exists() for path in (*own, server.file))
    with pytest.raises(UnknownServer, match=rf"idle for .*, {time.strftime('%Y-%m-%d')} \d\d:"):
        garcon.connect("fleeting")
    model.close()
