"""Engines run tasks, and again those whose process died; each is started for real, where it is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore
from garcon_jupyter.exchanges import shuffle
from garcon_jupyter.exchanges.engines import ENGINES, TaskEngine, engine_of
from garcon_jupyter.exchanges.engines.local import LocalEngine
from tests.exchanges import slurm_commands
from tests.exchanges.conftest import content, plan_for

pytestmark = pytest.mark.processes

NEEDS = {"local": "numpy", "ray": "ray", "dask": "distributed"}


@pytest.fixture(scope="module", params=[*ENGINES])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TaskEngine]:
    """Each engine, with two workers; Slurm's where there is none with commands that run arrays on this machine."""
    if request.param == "slurm":
        commands = tmp_path_factory.mktemp("commands")
        with pytest.MonkeyPatch.context() as patch:
            if shutil.which("sbatch") is None:
                slurm_commands.put(commands)
                patch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
            patch.setattr("garcon_jupyter.exchanges.engines.slurm_engine._BETWEEN_QUESTIONS", 0.5)
            made = engine_of("slurm", 2)
            yield made
            made.close()
        return
    module = NEEDS[request.param]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    made = engine_of(request.param, 2)
    yield made
    made.close()


def doubled(item: int) -> int:
    print("what a task prints is not an answer")
    return 2 * item


def dies_once(item: str) -> str:
    """Kills its process, the first time."""
    mark = Path(item)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def fails_once(item: str) -> str:
    mark = Path(item)
    if not mark.exists():
        mark.touch()
        raise ConnectionError("the disk did not answer")
    return mark.name


def dies(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuses(item: str) -> None:
    Path(item).write_text(Path(item).read_text() + "x")
    raise garcon.BadData(f"{Path(item).name} is damaged.", "Take it from a copy.")


def hangs_once(item: str) -> str:
    mark = Path(item)
    if not mark.exists():
        mark.touch()
        time.sleep(600)
    return mark.name


def test_it_runs_a_function_on_items(engine: TaskEngine) -> None:
    assert sorted(engine.map(doubled, range(20), 0)) == [2 * n for n in range(20)]
    assert list(engine.map(doubled, [], 0)) == []


@pytest.mark.parametrize("task", [dies_once, fails_once])
def test_what_died_or_failed_is_run_again(task: Any, engine: TaskEngine, tmp_path: Path) -> None:
    items = [str(tmp_path / f"{task.__name__}-{n}") for n in range(3)]
    assert sorted(engine.map(task, items, 3)) == [Path(item).name for item in items]


def test_what_our_own_code_refuses_is_not_tried_again(engine: TaskEngine, tmp_path: Path) -> None:
    tried = tmp_path / "tried"
    tried.touch()
    with pytest.raises(garcon.BadData, match="tried is damaged"):
        list(engine.map(refuses, [str(tried)], 5))
    assert tried.read_text() == "x"


def test_the_order_is_the_same_under_every_engine(
    engine: TaskEngine, source: ActivationStore, tmp_path: Path
) -> None:
    expected = content(shuffle(source, tmp_path / "expected", seed=7))
    plan = plan_for(source, 400, 2, workers=2)
    assert content(shuffle(source, tmp_path / "mixed", 7, engine=engine, plan=plan)) == expected


def test_a_task_that_always_dies_is_given_up() -> None:
    engine = LocalEngine(2)
    with pytest.raises(garcon.LaunchFailed, match=r"task 0 died 2 times"):
        list(engine.map(dies, [1], 1))
    assert not engine.pids


def test_a_task_that_hangs_is_run_again_elsewhere(tmp_path: Path) -> None:
    engine = LocalEngine(1, patience=3.0)
    assert list(engine.map(hangs_once, [str(tmp_path / "mark")], 1)) == ["mark"]
    engine.close()


def test_workers_end_when_nobody_is_left(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from tests.exchanges.test_engines import doubled\n"
        "from garcon_jupyter.exchanges.engines.local import LocalEngine\n"
        "engine = LocalEngine(1); print(list(engine.map(doubled, [1], 0)), *engine.pids, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    pid = int(done.stdout.split()[-1])
    limit = time.monotonic() + 20
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < limit, "the worker outlives its engine"


def test_an_element_of_an_array_that_always_dies_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm_commands.put(tmp_path / "commands")
    monkeypatch.setenv("PATH", f"{tmp_path / 'commands'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("garcon_jupyter.exchanges.engines.slurm_engine._BETWEEN_QUESTIONS", 0.5)
    engine = engine_of("slurm:--partition=short --time=5", 2)
    with pytest.raises(
        garcon.LaunchFailed, match=r"Element 0 of job \d+ of Slurm ended .* 2 times"
    ):
        list(engine.map(dies, [1], 1))
    engine.close()
    said = (tmp_path / "commands" / "said").read_text()
    assert "--partition=short --time=5 --array=0-0%2" in said
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(garcon.LaunchFailed, match="There is no sbatch here"):
        engine_of("slurm", 1)


def test_an_engine_that_there_is_not_is_refused() -> None:
    with pytest.raises(garcon.UnknownName, match="ray"):
        engine_of("rai", 1)


@pytest.mark.parametrize("name", ["ray", "dask"])
def test_an_engine_that_is_not_installed_says_so_and_none_is_imported_unasked(name: str) -> None:
    code = (
        "import sys; import garcon_jupyter.exchanges.shuffle; import garcon_jupyter as garcon\n"
        "assert not {'ray', 'dask', 'distributed', 'torch'} & set(sys.modules)\n"
        f"sys.modules['{NEEDS[name]}'] = None\n"
        "from garcon_jupyter.exchanges.engines import engine_of\n"
        f"try: engine_of('{name}', 1)\n"
        "except garcon.MissingModule as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install garcon-jupyter[{name}]" in done.stdout, done.stderr
