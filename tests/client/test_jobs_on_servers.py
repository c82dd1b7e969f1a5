"""Runs on servers as jobs: of whichever session, steered by whoever asks."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter import recorders
from garcon_jupyter.cli import app
from garcon_jupyter.client.jobs import ServerJob

pytestmark = pytest.mark.processes

ROWS = np.random.default_rng(0).integers(3, 263, size=(3000, 16))
POINT = "layers.1.resid_post"


def until(job: ServerJob, *states: str) -> None:
    over = threading.Event()
    for _ in range(1200):
        if job.poll().state in states:
            return
        over.wait(0.05)
    raise AssertionError(f"it is {job.state}, and should be {states}")


def test_a_run_and_a_store_are_steered_from_outside(
    rmodel_served: garcon.RemoteModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = rmodel_served.probe_points[POINT].probe(recorders.Moments())
    run = rmodel_served.run(ROWS, [probe], batch_tokens=64, blocking=False)
    job = garcon.jobs()[f"tiny/{run.id}"]
    assert isinstance(job, ServerJob) and job.kind == "run" and "tokens" in job.told
    job.pause()
    until(job, "paused")
    assert app.main(["jobs"]) == 0
    rows = [row.split()[:3] for row in capsys.readouterr().out.splitlines()]
    assert ["run", f"tiny/{run.id}", "paused"] in rows
    assert app.main(["jobs", "resume", run.id]) == 0
    assert "goes on" in capsys.readouterr().out
    job.cancel()
    until(job, "cancelled", "done")
    assert f"tiny/{run.id}" not in garcon.jobs()
    with pytest.raises(garcon.UnknownName):
        garcon.jobs()[f"tiny/{run.id}"]

    seen: list[str] = []

    def look() -> None:
        over = threading.Event()
        for _ in range(600):
            found = [j for j in garcon.jobs().values() if j.kind == "store"]
            if found:
                seen.append(found[0].told)
                found[0].cancel()
                return
            over.wait(0.01)

    watcher = threading.Thread(target=look)
    watcher.start()
    with pytest.raises(garcon.Interrupted, match=r"same call goes on"):
        rmodel_served.store(POINT, ROWS, tmp_path / "acts", show=False, batch_tokens=64)
    watcher.join()
    assert str(tmp_path / "acts") in seen[0]
    store = rmodel_served.store(POINT, ROWS, tmp_path / "acts", show=False, batch_tokens=64)
    assert store is not None and len(store) == ROWS.size
