"""Jobs: found, paused, cancelled and gone on with, by whoever asks; those of directories and those of servers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore, from_arrays, open_store
from garcon_jupyter.cli import app
from garcon_jupyter.exchanges import announcing, shuffle
from garcon_jupyter.exchanges.engines.local import HereEngine
from garcon_jupyter.features import features
from tests.exchanges.conftest import content, make, plan_for


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry of its own, where no other job is."""
    monkeypatch.setenv("GARCON_RUNTIME", str(tmp_path / "runtime"))
    yield


@pytest.fixture
def source(tmp_path: Path) -> ActivationStore:
    return make(tmp_path / "acts")


def paused(source: ActivationStore, out: Path, at: int, how: str) -> None:
    """A shuffle that somebody pauses, or cancels, when so many lines were told."""
    lines = iter(range(1000))

    def told(line: str) -> None:
        if next(lines) == at:
            found = garcon.jobs()
            assert list(found) == [str(out)] and found[out.name].state == "running"
            assert line in repr(found)
            getattr(found[out.name], how)()
            assert found[out.name].state == "pausing"

    with pytest.raises(garcon.Interrupted, match=r"garcon jobs resume .*, or the same call"):
        shuffle(source, out, 7, engine=HereEngine(), plan=plan_for(source, 300), progress=told)


def test_a_shuffle_is_paused_and_the_same_call_goes_on(
    source: ActivationStore, tmp_path: Path
) -> None:
    expected = content(shuffle(source, tmp_path / "expected", 7))
    out = tmp_path / "mixed"
    paused(source, out, 4, "pause")
    [job] = garcon.jobs().values()
    assert job.state == "paused" and job.kind == "shuffle" and "tasks" in job.told
    assert "shuffle" in repr(job) and str(out) in repr(job)
    assert content(shuffle(source, out, 7)) == expected
    assert len(garcon.jobs()) == 0 and repr(garcon.jobs()) == "No job is under way."


def test_one_is_cancelled(source: ActivationStore, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    paused(source, out, 3, "cancel")
    assert len(garcon.jobs()) == 0 and not (out / ".between").exists()
    with pytest.raises(garcon.BadData, match=r"not complete"):
        open_store(out)
    paused(source, out, 3, "pause")
    garcon.jobs()["mixed"].cancel()  # nobody is at it
    assert len(garcon.jobs()) == 0 and not (out / ".between").exists()
    assert len(shuffle(source, out, 7)) == len(source)


def test_one_that_failed_says_why_and_goes_on(
    source: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, had = tmp_path / "mixed", shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: had._replace(free=50_000))
        with pytest.raises(garcon.DoesNotFit, match=r"are missing"):
            shuffle(source, out, 7)
    [job] = garcon.jobs().values()
    assert job.state == "failed" and "KiB are missing" in job.told
    assert len(shuffle(source, out, 7)) == len(source) and len(garcon.jobs()) == 0


@pytest.mark.processes
def test_one_goes_on_without_who_began_it(source: ActivationStore, tmp_path: Path) -> None:
    expected = content(shuffle(source, tmp_path / "expected", 7))
    out = tmp_path / "mixed"
    paused(source, out, 4, "pause")
    job = garcon.jobs()["mixed"]
    assert isinstance(job, announcing.DirectoryJob)
    job.resume()
    over = threading.Event()
    for _ in range(1200):
        if (out / "store.json").exists() and not (out / ".between").exists():
            break
        over.wait(0.05)
    assert content(open_store(out)) == expected
    with pytest.raises(garcon.BadData, match=r"Nothing was begun"):
        job.resume()


HELD = """
import sys
from garcon_jupyter.exchanges import shuffle
def told(line):
    print(line, flush=True)
    sys.stdin.readline()
shuffle(sys.argv[1], sys.argv[2], 7, progress=told)
"""


@pytest.mark.processes
def test_another_process_is_seen_and_steered_by_the_command(
    source: ActivationStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mixed"
    command = [sys.executable, "-c", HELD, str(source.path), str(out)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert "2,000 rows" in process.stdout.readline()
        assert app.main(["jobs"]) == 0
        assert f"shuffle  {out}  running" in capsys.readouterr().out
        with pytest.raises(garcon.BadRequest, match=r"goes on"):
            garcon.jobs()["mixed"].resume()
        assert app.main(["jobs", "pause", "mixed"]) == 0
        assert "stops where it can go on" in capsys.readouterr().out
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(60)
    assert process.returncode != 0 and garcon.jobs()["mixed"].state == "paused"
    assert app.main(["jobs", "cancel"]) == 1
    assert "Which job to cancel is not said" in capsys.readouterr().err
    assert app.main(["jobs", "cancel", "mixxed"]) == 1
    assert "There is no job 'mixxed'" in capsys.readouterr().err
    assert app.main(["jobs", "cancel", "mixed"]) == 0 and len(garcon.jobs()) == 0


def test_features_are_jobs_too(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)
    store = from_arrays(tmp_path / "acts", values, dtype="float32")
    out = tmp_path / "atlas"
    options = {"k": 3, "sample": 10}

    def told(line: str) -> None:
        garcon.jobs()["atlas"].pause()

    with pytest.raises(garcon.Interrupted):
        features(store, out, progress=told, **options)  # type: ignore[arg-type]
    [job] = garcon.jobs().values()
    assert job.kind == "features" and job.state == "paused" and "6 units" in job.told
    announcing.again(str(out))
    assert len(garcon.open_atlas(out)) == 6 and len(garcon.jobs()) == 0
