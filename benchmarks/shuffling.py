"""A shuffle of activations beside a copy of the same bytes: ``python -m benchmarks.shuffling [GB] [MEMORY] [ROUNDS]``.

Rows of 576 float16 (1,152 bytes, SmolLM2's residual stream) with place and token. Shuffle and ``cp`` with fsync take turns, A B A B, both from
files that are out of the page cache. Bytes are those that the system counts for the processes that read and write; memory is the most
that all processes of the shuffle had at one moment, in resident pages.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from garcon_jupyter.activation_stores import ActivationStore, from_arrays, journal
from garcon_jupyter.amounts import sized
from garcon_jupyter.exchanges import keys, shuffle
from garcon_jupyter.exchanges.engines.local import LocalEngine
from garcon_jupyter.exchanges.planning import bytes_said, planned

UNITS = 576


def make(path: Path, size: float) -> ActivationStore:
    """A store whose rows say their own number in their first bits."""
    rows = int(size // (2 * UNITS))

    def arrays() -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        for first in range(0, rows, 1 << 15):
            count = min(1 << 15, rows - first)
            block = random.integers(0, 1 << 16, (count, UNITS), np.uint16)
            numbers = np.arange(first, first + count, dtype=np.uint32)
            block[:, 0], block[:, 1] = numbers & 0xFFFF, numbers >> 16
            yield block.view(np.float16)

    return from_arrays(path, arrays(), place=np.arange(rows) << 32, token=np.zeros(rows))


def forget(path: Path) -> None:
    """Take files out of the page cache."""
    for file in path.iterdir():
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy(source: Path, target: Path) -> float:
    """Seconds of a copy that is on the disk."""
    forget(source)
    began = time.perf_counter()
    subprocess.run(["cp", "-r", source, target], check=True)
    for file in target.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    took = time.perf_counter() - began
    shutil.rmtree(target)
    return took


class Watch(threading.Thread):
    """The most memory that this process and those that it started have at a moment."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.base, self.over = 0, psutil.Process().memory_info().rss, threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self.over.wait(0.02):
            total = 0
            for process in (me, *me.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.most = max(self.most, total)


def shuffled(source: ActivationStore, target: Path, memory: str) -> tuple[float, int, int, int]:
    """Seconds, peak memory, bytes read and bytes written."""
    forget(source.path)
    facts = source.facts["points"]["activations"]
    row = source.point_rows().layout.row_bytes
    plan = planned(source.rows, row, facts["rows_of_a_file"], bytes_said(memory))
    engine, watch = LocalEngine(plan.workers), Watch()
    moved = np.zeros(2, np.int64)
    engine_map = engine.map

    def counted(function, items, retries):  # type: ignore[no-untyped-def]
        for line in engine_map(function, items, retries):
            moved[:] += line["moved"]
            yield line

    engine.map = counted  # type: ignore[method-assign]
    watch.start()
    began = time.perf_counter()
    mixed = shuffle(source, target, seed=7, memory=memory, engine=engine)
    took = time.perf_counter() - began
    watch.over.set()
    engine.close()
    check(mixed)
    mixed.close()
    shutil.rmtree(target)
    return took, watch.most, int(moved[0]), int(moved[1])


def check(mixed: ActivationStore) -> None:
    """Rows are in the order of the seed."""
    order = keys.order_of(mixed.rows, 7)
    at = 0
    for batch in mixed.batches(1 << 15, as_="numpy"):
        bits = batch.activations.view(np.uint16)[:, :2].astype(np.int64)
        numbers = bits[:, 0] | bits[:, 1] << 16
        assert np.array_equal(numbers, order[at : at + len(numbers)])
        at += len(numbers)


def main(words: list[str]) -> None:
    size = float(words[0]) * 1e9 if words else 2e9
    memory = words[1] if len(words) > 1 else "350MB"
    rounds = int(words[2]) if len(words) > 2 else 3
    with tempfile.TemporaryDirectory(prefix="garcon-shuffling-") as name:
        folder = Path(name)
        source = make(folder / "acts", size)
        bound = source.nbytes
        journal.settle(folder)
        print(f"{source}; load {os.getloadavg()[0]:.1f}", flush=True)
        ratios = []
        for _ in range(rounds):
            copied = copy(source.path, folder / "copy")
            took, most, read, written = shuffled(source, folder / "mixed", memory)
            ratios.append(took / copied)
            print(
                f"cp {copied:.1f} s, shuffle {took:.1f} s ({took / copied:.2f} x); peak {sized(most)} "
                f"of all processes; read {read / bound / 2:.3f} and written {written / bound / 2:.3f} "
                f"of twice the bytes; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        print(f"median {statistics.median(ratios):.2f} x the copy")


if __name__ == "__main__":
    main(sys.argv[1:])
