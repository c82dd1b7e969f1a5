"""The soak for about a minute; ``make soak`` runs it for twenty."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests import soak
from tests.soak import GROWTH, Sample


def test_a_minute_of_everything_at_once(tmp_path: Path) -> None:
    figures = tmp_path / "soak.json"
    words = ["--seconds", "45", "--seed", "1", "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    found = json.loads(figures.read_text())
    assert found["problems"] == []
    assert set(found["ended"]) >= {"right", "interrupted"}
    assert {kind for kind in found["faults"] if "rank hit" in kind}
    assert found["slowest recovery"] > 0
    assert found["requests"].keys() >= {"forward", "backward", "generate", "raise_an_error"}


def sample(time: float, uss: int, pids: tuple[int, ...] = (1,)) -> Sample:
    return Sample(time, pids, 2 * uss, uss, 10, 5, 0, 3)


def test_growth_is_told_from_warming_up() -> None:
    warms_up = [sample(t, 100 if t > 10 else 10 * t) for t in range(100)]
    (row,) = soak.flat(warms_up)
    assert row["uss"] == [100, 100] and row["growth per minute"] == 0
    leaks = [sample(t, GROWTH * t) for t in range(60)]
    (row,) = soak.flat(leaks)
    assert row["uss"][1] - row["uss"][0] > GROWTH
    assert row["growth per minute"] == 60 * GROWTH


def test_processes_that_were_started_anew_are_another_course() -> None:
    before = [sample(t, 500, (1, 2)) for t in range(20)]
    after = [sample(20 + t, 100, (1, 3)) for t in range(20)]
    assert [row["uss"] for row in soak.flat(before + after)] == [[500, 500], [100, 100]]
    assert soak.flat(before[:5]) == []  # too short to say anything
