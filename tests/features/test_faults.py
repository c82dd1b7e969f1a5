"""What is cut short goes on with the same bytes, and what was damaged says so; engines and workers make no difference."""

from __future__ import annotations

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
from garcon_jupyter.exchanges.engines.local import HereEngine
from garcon_jupyter.features import features
from tests.features.conftest import KEPT, LATENTS, content, made, sharded

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
@pytest.mark.parametrize("engine", ["local", "ray", "dask"])
def test_engines_make_no_difference(
    engine: str, acts: ActivationStore, dictionary: Make, expected: str, tmp_path: Path
) -> None:
    if engine != "local":
        pytest.importorskip({"ray": "ray", "dask": "distributed"}[engine])
    process = _run(acts.path, tmp_path / "out", dictionary("topk"), engine)
    assert process.wait(240) == 0
    assert content(garcon.open_atlas(tmp_path / "out")) == expected
