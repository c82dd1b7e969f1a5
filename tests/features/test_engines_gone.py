"""An engine that goes away in the midst of features: a named error, and the same call goes on with another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore
from garcon_jupyter.exchanges.engines import engine_of
from garcon_jupyter.exchanges.engines.local import LocalEngine
from garcon_jupyter.features import features
from tests.exchanges import slurm_commands
from tests.features.conftest import KEPT, LATENTS, content, made, sharded

pytestmark = pytest.mark.processes

Make = Callable[[str], Path]

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A scheduler of Dask with a worker, in processes of their own; its address, and what kills it."""
    script = folder / "cluster.py"
    script.write_text(CLUSTER)
    path = os.pathsep.join(each for each in sys.path if each)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None

        def kill() -> None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

        try:
            yield process.stdout.readline().decode().strip(), kill
        finally:
            kill()


def test_a_scheduler_of_dask_that_is_killed(
    acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    pytest.importorskip("distributed")
    path, plan = dictionary("jumprelu"), sharded(acts, LATENTS, 3, 2, 2)
    out = tmp_path / "out"
    with cluster(tmp_path) as (address, kill):
        engine = engine_of(f"dask:{address}", 1)
        with pytest.raises(garcon.LaunchFailed, match=r"scheduler is gone.*what was done stays"):
            features(
                acts, out, path, plan=plan, engine=engine, progress=_at(3, kill), **KEPT
            )  # after the first task
        engine.close()
    assert (out / ".between" / "encode.jsonl").exists() and not (out / "atlas.json").exists()
    assert content(made(acts, out, path, plan)) == content(made(acts, tmp_path / "x", path, None))


def test_workers_that_are_killed_whenever_they_come(
    acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    """As where a machine has not the memory that it promised: in the end it is given up, and nothing is lost."""
    path, plan = dictionary("jumprelu"), sharded(acts, LATENTS, 3, 2, 2)
    out = tmp_path / "out"

    class Dying(LocalEngine):
        def _give(self, *given: object) -> None:
            super()._give(*given)  # type: ignore[arg-type]
            for pid in self.pids:
                os.kill(pid, signal.SIGKILL)

    engine = Dying(1)
    with pytest.raises(garcon.LaunchFailed, match=r"task 0 died 3 times"):
        features(acts, out, path, plan=plan, engine=engine, **KEPT)
    assert not engine.pids and not list(out.rglob("*.codes"))
    assert content(made(acts, out, path, plan)) == content(made(acts, tmp_path / "x", path, None))


def test_a_slurm_that_says_nothing_of_its_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm_commands.put(tmp_path / "commands")
    module = "garcon_jupyter.exchanges.engines.slurm_engine"
    monkeypatch.setenv("PATH", f"{tmp_path / 'commands'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(f"{module}._BETWEEN_QUESTIONS", 0.1)
    monkeypatch.setattr(f"{module}._GONE", 1.0)
    squeue = tmp_path / "commands" / "squeue"
    squeue.write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    (tmp_path / "commands" / "elements").write_text("")  # and no element is ever run
    engine = engine_of("slurm", 1)
    with pytest.raises(garcon.LaunchFailed, match=r"Slurm is gone: .*Unable to contact"):
        list(engine.map(abs, [-1], 0))
    engine.close()


def _at(line: int, act: Callable[[], None]) -> Callable[[str], None]:
    """Does something when so many lines were told."""
    left = [line]

    def told(_: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            act()

    return told
