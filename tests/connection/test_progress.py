"""The line that shows how far something is."""

from __future__ import annotations

import pytest

from garcon_jupyter.client.run import describe
from garcon_jupyter.connection import progress
from garcon_jupyter.wire.runs import RunStatus


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3599, "59 min 59 s"), (7500, "2 h 5 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert progress.duration(seconds) == said


def test_bars() -> None:
    assert progress.bar(None) == ""
    assert progress.bar(0.5, 4) == "▕██  ▏" and progress.bar(2.0, 2) == "▕██▏"


def test_what_is_said_of_a_run() -> None:
    status = RunStatus("run-1", "running", tokens=3000, fraction=0.25, seconds=10.0, skipped=2)
    assert status.rate == 300 and status.left == 30 and not status.over
    said = describe(status)
    assert "3,000 tokens  300/s  30 s left  2 documents left out" in said
    assert RunStatus("run-1", "failed").over and RunStatus("run-1", "running").left is None


def test_a_transfer_is_shown_only_if_it_takes_more_than_a_moment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    quick, slow = (progress.Amount("fetching", 400 << 20) for _ in range(2))
    now = 100.9
    quick.at(300 << 20)
    quick.end()
    assert capsys.readouterr().err == ""
    now = 102.0
    slow.at(100 << 20)
    assert "fetching 100.0 MiB of 400.0 MiB ▕█████ " in (shown := capsys.readouterr().err)
    assert "6 s left" in shown  # 50 MiB a second
    now = 108.0
    slow.at(400 << 20)
    slow.end()
    assert capsys.readouterr().err.rstrip().endswith("\rfetching 400.0 MiB of 400.0 MiB in 8 s")


def test_at_most_ten_times_in_a_second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    line = progress.Line()
    for number in range(1000):
        line.show(f"{number}")
    line.end("over")
    shown = capsys.readouterr().err
    assert shown.startswith("\r0") and shown.endswith("\rover\n") and shown.count("\r") < 20
