"""A batch in portions of about a second: every row once, and the numbers of the whole batch."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from garcon_backend.runs import portions as module
from garcon_backend.runs.portions import AIM, LONGEST, Portions
from garcon_backend.runs.run import DataRun
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.runs import Data, Plan, StartRun


def batch(rows: int, width: int = 4, mask: bool = False) -> wire.Batch:
    ids = torch.arange(rows * width).reshape(rows, width)
    real = torch.ones(rows, width, dtype=torch.bool)
    real[-1, -1] = False
    return wire.Batch(ids, real if mask else None, ids, ids + 1, step=7)


def run_through(portions: Portions, whole: wire.Batch, per_row: float) -> list[wire.Batch]:
    """The portions of a batch on a machine that takes so long for a row."""
    portions.put(whole)
    found = []
    while portions.left:
        found.append(portions.next())
        portions.ran(per_row * len(found[-1].ids))
    return found


def test_a_quick_batch_is_run_whole() -> None:
    whole = batch(500, mask=True)
    (only,) = run_through(Portions(1000), whole, 1e-4)
    assert only is whole


def test_a_slow_batch_is_run_in_portions_that_leave_others_their_turn_within_a_second() -> None:
    portions = Portions(10**12)
    each = 0.199 * LONGEST
    first = run_through(portions, batch(30, mask=True), each)
    rows = [len(part.ids) for part in first]
    assert rows == [1, *[3] * 8, 5]  # the last five are a second, which is enough
    assert max(rows) * each <= LONGEST and rows[1] == int(AIM / each)
    whole = batch(30, mask=True)
    for name in ("ids", "mask", "documents", "offsets"):
        assert torch.equal(torch.cat([getattr(p, name) for p in first]), getattr(whole, name))
    assert {part.step for part in first} == {7}


def test_what_the_first_batch_took_holds_for_the_run_and_goes_into_its_checkpoints() -> None:
    portions = Portions(10**12)
    each = 0.199 * LONGEST
    run_through(portions, batch(30), each)
    assert portions.each == pytest.approx(each / 4)
    # Whatever later ones take: sums are then of the same portions, in a run that goes on elsewhere too.
    for going_on in (portions, Portions(1, each=portions.each)):
        for per_row in (5.0, 0.001):
            rows = [len(part.ids) for part in run_through(going_on, batch(10), per_row)]
            assert rows == [3, 3, 4]


def test_the_quickest_portion_counts() -> None:
    portions = Portions(10**12)
    portions.put(batch(4))
    for seconds in (30.0, 0.1, 0.1):
        portions.next()
        portions.ran(seconds)
    assert not portions.left and portions.each == pytest.approx(0.1 / 8)  # two rows in a tenth


def test_tokens_are_counted_as_they_are_run() -> None:
    portions = Portions(10**12)
    portions.put(batch(3, mask=True))
    done = []
    while portions.left:
        portions.next()
        portions.ran(1.0)
        done.append(portions.done)
    assert done == [4, 8, 0]  # of the batch that is being run


def test_replicas_share_a_portion() -> None:
    assert [len(p.ids) for p in run_through(Portions(10**12, least=2), batch(4), 5.0)] == [2, 2]


class Seen:
    """A lockstep that writes down what it is told to run."""

    def __init__(self) -> None:
        self.forwards: list[wire.Forward] = []

    def run(self, _id: str, request: Any) -> None:
        if isinstance(request, wire.Forward):
            self.forwards.append(request)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which a portion takes five seconds."""
    ticks = iter(range(0, 10**6, 5))
    monkeypatch.setattr(
        "garcon_backend.runs.run.time", SimpleNamespace(monotonic=lambda: next(ticks))
    )


@pytest.mark.usefixtures("slow")
def test_a_run_reads_the_same_rows_in_the_same_order_and_pauses_within_a_batch(
    tmp_path: Path,
) -> None:
    rows = tuple(torch.arange(n, n + 4).numpy() for n in range(10))
    asked = StartRun(Data(rows=rows), plan=Plan(batch_tokens=16), every=10**9)
    run = DataRun("r", "me", asked, tmp_path, None, {"V": 100, "P": 8}, Portions(10**12))
    lockstep = Seen()
    told = []
    while run.step(lockstep):  # type: ignore[arg-type]
        told.append((run.status().batches, run.status().tokens))
        run.mend()  # as after a pause: what is left of a batch is still there
    read = torch.cat([forward.batch.ids for forward in lockstep.forwards])
    assert read[:, 0].tolist() == list(range(10))
    assert [len(forward.batch.ids) for forward in lockstep.forwards] == [1] * 10
    assert [forward.batch.step for forward in lockstep.forwards] == [0] * 4 + [1] * 4 + [2] * 2
    assert len({forward.seed for forward in lockstep.forwards}) == 10
    assert told == [
        (0, 4),
        (0, 8),
        (0, 12),
        (1, 16),
        (1, 20),
        (1, 24),
        (1, 28),
        (2, 32),
        (2, 36),
        (3, 40),
    ]
    assert run.state == "done" and module.LONGEST < 1.0
