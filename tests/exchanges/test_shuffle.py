"""A shuffle is the order of its seed, whatever did it; it goes on after a kill, and says what is wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore, from_arrays, open_store
from garcon_jupyter.activation_stores.checksums import combined
from garcon_jupyter.exchanges import keys, shuffle, tasks
from tests.exchanges.conftest import ROWS, content, make, numbers_in, plan_for
from tests.small_disks import run_on_one


@pytest.fixture
def expected(source: ActivationStore, tmp_path: Path) -> dict[str, bytes]:
    """What the shuffle by seed 7 must be, byte by byte."""
    return content(shuffle(source, tmp_path / "expected", seed=7))


def test_it_is_the_order_of_its_seed(source: ActivationStore, tmp_path: Path) -> None:
    mixed = shuffle(source.path, tmp_path / "mixed", seed=7)
    mixed.verify()
    assert np.array_equal(numbers_in(mixed), keys.order_of(ROWS, 7))
    assert mixed.order == "shuffled" and mixed.seed == 7 and source.order == "data"
    assert "shuffled by seed 7" in repr(mixed)
    other = shuffle(source, tmp_path / "other", seed=8)
    assert (numbers_in(other) == numbers_in(mixed)).sum() < 10
    again = mixed.document(333)  # of a shuffled store too
    assert again.token.tolist() == [333]


@pytest.mark.parametrize(
    ("chunk", "piles", "partitions", "branches"),
    [(ROWS, 1, 1, 64), (77, 1, 1, 64), (300, 5, 1, 64), (150, 3, 2, 5), (90, 4, 3, 2)],
)
def test_the_bytes_do_not_depend_on_chunks_piles_and_passes(
    chunk: int,
    piles: int,
    partitions: int,
    branches: int,
    source: ActivationStore,
    expected: dict[str, bytes],
    tmp_path: Path,
) -> None:
    plan = plan_for(source, chunk, piles, partitions, branches)
    mixed = shuffle(source, tmp_path / "mixed", seed=7, plan=plan, engine="local")
    assert content(mixed) == expected


@pytest.mark.processes
@pytest.mark.parametrize("workers", [1, 3])
def test_nor_on_the_number_of_processes(
    workers: int, source: ActivationStore, expected: dict[str, bytes], tmp_path: Path
) -> None:
    plan = plan_for(source, 200, 2, workers=workers)
    mixed = shuffle(source, tmp_path / "mixed", seed=7, plan=plan, workers=workers)
    assert content(mixed) == expected


def test_points_of_one_store_are_put_in_the_same_order(tmp_path: Path) -> None:
    whole = tmp_path / "acts"
    one = make(whole, 500)
    other = from_arrays(tmp_path / "b", np.arange(500, dtype=np.float32)[:, None], dtype="float32")
    facts = dict(one.facts)
    facts["points"] = {**facts["points"], **other.facts["points"]}
    for path in other.path.glob("activations*"):
        shutil.copy(path, whole)
    from garcon_jupyter.activation_stores import journal

    journal.put(whole / "store.json", facts)
    mixed = shuffle(whole, tmp_path / "mixed", seed=3)
    rows = mixed[:]
    assert np.array_equal(rows.activations["activations"].numpy().ravel(), keys.order_of(500, 3))
    first = open_store(mixed.path).read(0, 500, "numpy", "p")
    assert np.array_equal(first.activations.view(np.uint16)[:, 0], keys.order_of(500, 3))
    with pytest.raises(garcon.BadRequest, match="2 points"):
        mixed.point_rows()


def test_8_bit_rows_take_their_scale_along(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    source = from_arrays(tmp_path / "acts", values, dtype="int8")
    mixed = shuffle(source, tmp_path / "mixed", seed=1)
    order = keys.order_of(300, 1)
    assert np.array_equal(mixed[:].activations.numpy(), source[:].activations.numpy()[order])
    assert mixed.lost == source.lost


# -- gone on with ----------------------------------------------------------------------------------


class Dies:
    """Runs tasks here, and raises after so many."""

    workers = 1

    def __init__(self, after: int) -> None:
        self.left = after

    def map(self, function: Any, items: Any, retries: int) -> Any:
        for item in items:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield function(item)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("partitions", [1, 2])
def test_it_goes_on_where_it_was_and_does_nothing_twice(
    partitions: int, source: ActivationStore, expected: dict[str, bytes], tmp_path: Path
) -> None:
    plan = plan_for(source, 300, 2, partitions, 4)
    for _ in range(100):
        try:
            mixed = shuffle(source, tmp_path / "mixed", seed=7, plan=plan, engine=Dies(3))
            break
        except KeyboardInterrupt:
            with pytest.raises(garcon.BadData, match="not complete"):
                open_store(tmp_path / "mixed")
    else:
        raise AssertionError("it never ended")
    assert content(mixed) == expected
    ran = Dies(0)
    assert content(shuffle(source, tmp_path / "mixed", seed=7, engine=ran)) == expected


def test_another_memory_takes_the_passes_it_began_with_or_begins_anew(
    source: ActivationStore, expected: dict[str, bytes], tmp_path: Path
) -> None:
    for first, second in ((200, 400), (400, 200)):
        target = tmp_path / f"mixed-{first}"
        with pytest.raises(KeyboardInterrupt):
            shuffle(source, target, seed=7, plan=plan_for(source, first), engine=Dies(4))
        mixed = shuffle(source, target, seed=7, plan=plan_for(source, second, 3))
        assert content(mixed) == expected


RUN = """
import sys
from tests.exchanges.conftest import plan_for
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.exchanges import shuffle
source = open_store(sys.argv[1])
shuffle(source, sys.argv[2], seed=7, plan=plan_for(source, 150, 2, 1, 64, 2), workers=2)
print("done", flush=True)
"""


@pytest.mark.processes
def test_kills_at_random_moments_change_nothing(
    source: ActivationStore, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Of the whole process group, so that workers too die in the midst of a write, an fsync or a rename."""
    chance = random.Random(0)
    killed = 0
    for _ in range(40):
        command = [sys.executable, "-c", RUN, str(source.path), str(tmp_path / "mixed")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if killed < 4:
            between = tmp_path / "mixed" / ".between"
            had = sum(1 for _ in between.rglob("*")) if between.exists() else 0
            more = chance.randrange(1, 9)
            while process.poll() is None:  # until so many files more are there
                there = sum(1 for _ in between.rglob("*")) if between.exists() else 0
                if there - had >= more:
                    _kill_all(process.pid)
                    killed += 1
                    break
                time.sleep(0.001)
        if process.wait(120) == 0:
            break
    else:
        raise AssertionError("it did not end")
    assert killed >= 2
    assert content(open_store(tmp_path / "mixed")) == expected


def _kill_all(pid: int) -> None:
    import psutil

    try:
        root = psutil.Process(pid)
        everyone = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in everyone:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


# -- what is wrong ---------------------------------------------------------------------------------


def begun(source: ActivationStore, target: Path, after: int = 12) -> list[Path]:
    """A shuffle that stopped after it had written all files between its passes, or most; those files."""
    with pytest.raises(KeyboardInterrupt):
        shuffle(source, target, seed=7, plan=plan_for(source, 250, 2), engine=Dies(after))
    return sorted((target / ".between" / "p").glob("*.piles"))


@pytest.mark.parametrize("how", ["flipped", "short", "swapped", "gone"])
def test_a_damaged_file_between_passes_is_named_and_nothing_made_of_it(
    how: str, source: ActivationStore, tmp_path: Path
) -> None:
    files = begun(source, tmp_path / "mixed", after=15)
    assert len(files) == 15
    one, other = files[2], files[5]
    whole = one.read_bytes()
    if how == "flipped":
        one.write_bytes(whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    elif how == "short":
        one.write_bytes(whole[:-300])
    elif how == "gone":
        one.unlink()
    else:
        one.write_bytes(other.read_bytes())
    with pytest.raises(garcon.BadData, match=one.name):
        shuffle(source, tmp_path / "mixed", seed=7, plan=plan_for(source, 250, 2))
    with pytest.raises(garcon.BadData, match="not complete"):
        open_store(tmp_path / "mixed")


def test_a_byte_flipped_in_the_source_is_named(source: ActivationStore, tmp_path: Path) -> None:
    file = sorted(source.path.glob("*.safetensors"))[3]
    content = bytearray(file.read_bytes())
    content[-77] ^= 16
    file.write_bytes(content)
    with pytest.raises(garcon.BadData, match=rf"{file.name}.*activations"):
        shuffle(source, tmp_path / "mixed", seed=7, plan=plan_for(source, 50))
    with pytest.raises(garcon.BadData, match="not complete"):
        open_store(tmp_path / "mixed")
    content[-77] ^= 16
    file.write_bytes(content)  # and with the right file the same call ends
    shuffle(source, tmp_path / "mixed", seed=7).verify()


def test_another_seed_or_source_in_the_same_directory_is_refused(
    source: ActivationStore, tmp_path: Path
) -> None:
    shuffle(source, tmp_path / "mixed", seed=7)
    with pytest.raises(garcon.BadData, match="seed was 7, and is 8"):
        shuffle(source, tmp_path / "mixed", seed=8)
    other = make(tmp_path / "other", ROWS - 1)
    with pytest.raises(garcon.BadData, match="of was"):
        shuffle(other, tmp_path / "mixed", seed=7)
    with pytest.raises(garcon.BadRequest, match="itself"):
        shuffle(source, source.path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(garcon.BadData, match=r"thesis\.tex"):
        shuffle(source, tmp_path / "full")


def test_a_second_process_is_kept_out(source: ActivationStore, tmp_path: Path) -> None:
    class Meanwhile(Dies):
        def map(self, function: Any, items: Any, retries: int) -> Any:
            with pytest.raises(garcon.BadRequest, match="Another process"):
                shuffle(source, tmp_path / "mixed", seed=7)
            return super().map(function, items, retries)

    shuffle(source, tmp_path / "mixed", seed=7, engine=Meanwhile(1000))


def test_too_little_disk_is_refused_with_the_numbers(
    source: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: had._replace(free=100_000))
    with pytest.raises(garcon.DoesNotFit, match=r"takes 12\d\.\d KiB .* 97\.7 KiB are free"):
        shuffle(source, tmp_path / "mixed", seed=7)


@pytest.mark.parametrize("after", [3, 9])
def test_a_disk_that_fills_up_stops_it_and_it_goes_on_with_room(
    after: int, source: ActivationStore, expected: dict[str, bytes], tmp_path: Path
) -> None:
    class Fills(Dies):
        def map(self, function: Any, items: Any, retries: int) -> Any:
            for item in items:
                self.left -= 1
                if self.left < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                yield function(item)

    plan = plan_for(source, 400)
    with pytest.raises(garcon.DoesNotFit, match=r"full: No space left.*are free"):
        shuffle(source, tmp_path / "mixed", seed=7, plan=plan, engine=Fills(after))
    assert content(shuffle(source, tmp_path / "mixed", seed=7, plan=plan)) == expected


def test_a_write_that_fails_leaves_no_half_file(
    source: ActivationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tasks, "write_from", full)
    with pytest.raises(garcon.DoesNotFit):
        shuffle(source, tmp_path / "mixed", seed=7)
    assert not list((tmp_path / "mixed").glob("*.safetensors*"))
    assert not list((tmp_path / "mixed").glob(".*.writing"))


def test_checksums_of_pieces_make_that_of_the_whole() -> None:
    import zlib

    content = random.Random(0).randbytes(3000)
    for cut in (0, 1, 7, 1024, 2999, 3000):
        one, other = content[:cut], content[cut:]
        assert combined(zlib.crc32(one), zlib.crc32(other), len(other)) == zlib.crc32(content)
        assert combined(zlib.crc32(other), zlib.crc32(one), len(one)) != zlib.crc32(content) or (
            not one or not other
        )


@pytest.mark.processes
def test_a_real_disk_that_fills_up_again_and_again(source: ActivationStore, tmp_path: Path) -> None:
    said = run_on_one("tests.exchanges.on_a_small_disk", tmp_path / "disk", str(source.path))
    first, *others, last = said.splitlines()
    assert "0 bytes are free. Make room" in first
    assert len(others) >= 8 and all("KiB are missing" in each for each in others)
    assert int(last.split()[1]) == len(others)


DYING = """
import sys
from tests.dying import lives
from tests.exchanges.conftest import plan_for
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.exchanges import shuffle
source = open_store(sys.argv[1])
plan = plan_for(source, 300, 2)
print(lives(lambda: shuffle(source, sys.argv[2], 7, plan=plan), seed=3, most=150))
"""


@pytest.mark.processes
def test_deaths_in_writes_fsyncs_and_renames(
    source: ActivationStore, expected: dict[str, bytes], tmp_path: Path
) -> None:
    words = [str(source.path), str(tmp_path / "mixed")]
    done = subprocess.run(
        [sys.executable, "-c", DYING, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 12
    assert content(open_store(tmp_path / "mixed")) == expected
