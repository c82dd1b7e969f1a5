"""What is cut short goes on with the same bytes, and what was damaged says so; engines and workers make no difference."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore, open_store
from garcon_jupyter.exchanges.announcing import DirectoryJob
from garcon_jupyter.exchanges.engines import ENGINES
from garcon_jupyter.exchanges.engines.local import HereEngine, LocalEngine
from garcon_jupyter.features import features
from tests.exchanges import slurm_commands
from tests.features.conftest import KEPT, LATENTS, content, made, sharded
from tests.small_disks import run_on_one

Make = Callable[[str], Path]


class _Stops(Exception):
    """A call that is cut short."""


class _UpTo(HereEngine):
    """Runs so many tasks, and is gone."""

    def __init__(self, tasks: int) -> None:
        self.left = tasks

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], retries: int
    ) -> Iterator[Any]:
        for item in items:
            if not self.left:
                raise _Stops
            self.left -= 1
            yield function(item)


@pytest.fixture
def expected(acts: ActivationStore, dictionary: Make, tmp_path: Path) -> str:
    return content(made(acts, tmp_path / "expected", dictionary("topk"), None))


def test_it_goes_on_wherever_it_was_cut_short(
    acts: ActivationStore, dictionary: Make, expected: str, tmp_path: Path
) -> None:
    plan = sharded(acts, LATENTS, 2, 2, 2)
    out, path = tmp_path / "cut", dictionary("topk")
    done = 0
    for _ in range(30):
        try:
            features(acts, out, path, plan=plan, engine=_UpTo(1), **KEPT)
        except _Stops:
            done += 1
            assert not (out / "atlas.json").exists()
            with pytest.raises(garcon.BadData, match=r"holds no atlas"):
                garcon.open_atlas(out)
        else:
            break
    assert done == 11  # 2 + 2·2 + 2 + 2 + 2 tasks, and no task twice
    assert content(garcon.open_atlas(out)) == expected
    assert not (out / ".between").exists()


def test_another_call_in_the_same_directory_is_refused(
    acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    plan = sharded(acts, LATENTS, 2, 2, 2)
    out = tmp_path / "cut"
    with pytest.raises(_Stops):
        features(acts, out, dictionary("topk"), plan=plan, engine=_UpTo(3), **KEPT)
    with pytest.raises(garcon.BadData, match=r"begun with another dictionary"):
        made(acts, out, dictionary("standard"), None)
    with pytest.raises(garcon.BadData, match=r"begun with another sample"):
        made(acts, out, dictionary("topk"), None, sample=50)


@pytest.mark.parametrize(
    ("tasks", "pattern"),
    [(3, "codes/*.codes"), (7, "1/*.piles"), (9, "2/*.piles"), (11, "3/*.piles")],
)
@pytest.mark.parametrize("damage", ["flip", "short", "swap"])
def test_a_damaged_file_between_passes_is_named(
    tasks: int, pattern: str, damage: str, acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    plan = sharded(acts, LATENTS, 2, 2, 2)
    out, path = tmp_path / "cut", dictionary("topk")
    with pytest.raises(_Stops):
        features(acts, out, path, plan=plan, engine=_UpTo(tasks), **KEPT)
    files = sorted((out / ".between").glob(pattern))
    assert files
    content_ = bytearray(files[-1].read_bytes())
    if damage == "flip":
        content_[len(content_) // 2] ^= 4
        files[-1].write_bytes(content_)
    elif damage == "short":
        files[-1].write_bytes(content_[:-50])
    elif len(files) > 1:
        other = files[0].read_bytes()
        files[0].write_bytes(content_)
        files[-1].write_bytes(other)
    with pytest.raises(garcon.BadData, match=r"is damaged|was not") as caught:
        made(acts, out, path, plan)
    assert any(file.name in str(caught.value) for file in files)
    assert not (out / "atlas.json").exists()


def test_a_flipped_byte_of_the_store_is_never_a_result(
    acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    where = tmp_path / "acts"
    shutil.copytree(acts.path, where)
    file = sorted(where.glob("*.safetensors"))[1]
    there = bytearray(file.read_bytes())
    there[-500] ^= 1
    file.write_bytes(there)
    plans = {"one": None, "four": sharded(acts, LATENTS, 2, 2, 2)}
    for name, plan in plans.items():
        with pytest.raises(garcon.BadData, match=file.name):
            made(open_store(where), tmp_path / name, dictionary("topk"), plan)
        assert not (tmp_path / name / "atlas.json").exists()


RUN = """
import sys
from tests.features.conftest import KEPT, LATENTS, sharded
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.features import features
acts = open_store(sys.argv[1])
plan = sharded(acts, LATENTS, 3, 2, 2, workers=2)
features(acts, sys.argv[2], sys.argv[3], plan=plan, engine=sys.argv[4], workers=2, **KEPT)
"""


def _run(*given: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, *map(str, given)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.processes
@pytest.mark.lasting
def test_kill_9_and_the_same_call_again(
    acts: ActivationStore, dictionary: Make, expected: str, tmp_path: Path
) -> None:
    """Killed at random moments of its life, it goes on to the same bytes."""
    out, path = tmp_path / "killed", dictionary("topk")
    draw = random.Random(1)
    kills = 0
    while not (out / "atlas.json").exists():
        process = _run(acts.path, out, path, "local")
        # When the first pass is under way, which takes seconds of imports to come.
        limit = time.monotonic() + (draw.uniform(3, 9) if kills < 3 else 120)
        while process.poll() is None and time.monotonic() < limit:
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        assert kills <= 4
    assert content(garcon.open_atlas(out)) == expected


@pytest.mark.processes
@pytest.mark.parametrize("engine", [*ENGINES])
def test_engines_make_no_difference(
    engine: str,
    acts: ActivationStore,
    dictionary: Make,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if engine in ("ray", "dask"):
        pytest.importorskip({"ray": "ray", "dask": "distributed"}[engine])
    if engine == "slurm" and shutil.which("sbatch") is None:
        slurm_commands.put(tmp_path / "commands")
        monkeypatch.setenv("PATH", f"{tmp_path / 'commands'}{os.pathsep}{os.environ['PATH']}")
    process = _run(acts.path, tmp_path / "out", dictionary("topk"), engine)
    assert process.wait(240) == 0
    assert content(garcon.open_atlas(tmp_path / "out")) == expected


@pytest.mark.processes
def test_a_disk_that_fills_up_again_and_again(
    acts: ActivationStore, dictionary: Make, expected: str, tmp_path: Path
) -> None:
    """A real one: each time it says how much is missing, leaves no half of a file, and goes on with room to the same bytes."""
    words = (str(acts.path), str(dictionary("topk")), expected)
    said = run_on_one("tests.features.on_a_small_disk", tmp_path / "disk", *words)
    lives = dict(line.split() for line in said.splitlines())
    assert int(lives["four"]) >= 8 and int(lives["one"]) >= 1


def test_too_little_disk_is_refused_with_the_numbers_and_nothing_begun(
    acts: ActivationStore,
    dictionary: Make,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    had = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: had._replace(free=1 << 20))
        with pytest.raises(
            garcon.DoesNotFit,
            match=r"take up to 3\.\d MiB .* 1\.0 MiB are free .*2\.\d MiB are missing",
        ):
            made(acts, tmp_path / "out", dictionary("topk"), None)
    assert not (tmp_path / "out" / ".between").exists()
    assert content(made(acts, tmp_path / "out", dictionary("topk"), None)) == expected


def test_what_is_cancelled_leaves_nothing_and_may_be_made_anew(
    acts: ActivationStore, dictionary: Make, expected: str, tmp_path: Path
) -> None:
    out, path = tmp_path / "out", dictionary("topk")
    with pytest.raises(_Stops):
        features(acts, out, path, plan=sharded(acts, LATENTS, 2, 2, 2), engine=_UpTo(9), **KEPT)
    assert list(out.glob("*.npy"))
    DirectoryJob(out, "features").cancel()
    assert [path.name for path in out.iterdir()] == [".lock"]
    assert content(made(acts, out, path, None)) == expected
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.npy").touch()
    with pytest.raises(garcon.BadData, match=r"holds thesis\.npy already"):
        made(acts, tmp_path / "other", path, None)


@pytest.mark.processes
def test_a_worker_that_hangs_is_replaced(
    acts: ActivationStore, dictionary: Make, expected: str, tmp_path: Path
) -> None:
    """One that is stopped, and of which nothing is heard: its task is done by another."""
    stopped: list[int] = []

    class Watched(LocalEngine):
        def _heard(self) -> Iterator[Any]:
            self._patience = 1.0 if stopped and stopped[0] in self.pids else 900.0
            return super()._heard()

    engine = Watched(1)

    def told(line: str) -> None:
        if engine.pids and not stopped:  # it has done a task, and is at the next
            stopped.append(engine.pids[0])
            os.kill(stopped[0], signal.SIGSTOP)

    plan = sharded(acts, LATENTS, 2, 1, 1)
    out = features(
        acts, tmp_path / "out", dictionary("topk"), plan=plan, engine=engine, progress=told, **KEPT
    )
    assert stopped and stopped[0] not in engine.pids
    engine.close()
    assert content(out) == expected


DYING = """
import sys
from tests.dying import lives
from tests.features.conftest import LATENTS, content, made, sharded
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.atlas import open_atlas
from pathlib import Path
acts, out, path = open_store(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
plan = sharded(acts, LATENTS, 3, 2, 2) if sys.argv[4] == "four" else None
print(lives(lambda: made(acts, out, path, plan), seed=3), content(open_atlas(out)))
"""


@pytest.mark.processes
@pytest.mark.parametrize(("passes", "least"), [("four", 12), ("one", 1)])
def test_deaths_in_writes_fsyncs_and_renames(
    passes: str, least: int, acts: ActivationStore, dictionary: Make, expected: str, tmp_path: Path
) -> None:
    """A process that dies in a call to the system, again and again, before it or after: the same bytes in the end, and no rest."""
    out = tmp_path / "out"
    words = [str(acts.path), str(out), str(dictionary("topk")), passes]
    done = subprocess.run(
        [sys.executable, "-c", DYING, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    died, found = done.stdout.split()
    assert int(died) >= least and found == expected
    assert not list(out.rglob("*.writing")) and not (out / ".between").exists()
