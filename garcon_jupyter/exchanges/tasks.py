"""What an engine runs: rows to piles, and piles to files of a store.

A task is a small value and says all that it needs. Run again, by whomever, it writes the same file.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from garcon_jupyter.activation_stores.addresses import StoreAddress
from garcon_jupyter.activation_stores.journal import settle
from garcon_jupyter.activation_stores.pieces import bytes_of, write_from
from garcon_jupyter.activation_stores.point_rows import PointRows
from garcon_jupyter.activation_stores.row_files import RowLayout
from garcon_jupyter.exchanges import keys, piles
from garcon_jupyter.exchanges.piles import NUMBER, PileFile

Key = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Of the columns of rows, a key for each: uint64 [n]. It travels to whoever runs tasks."""


@dataclass(frozen=True)
class SeedKey:
    """The key of a shuffle: of a row's number, and the seed."""

    seed: int

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        return keys.keys_of(columns[NUMBER], self.seed)


@dataclass(frozen=True)
class StoreRows:
    """Some rows of a store, as they lie in its files.

    Attributes:
        directory, point, facts: of the store.
        group: number of the files.
        first: of the rows in them.
        rows: how many.
    """

    directory: str
    point: str
    facts: Mapping[str, Any]
    group: int
    first: int
    rows: int

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The columns, with the rows' numbers; and the checksums of what was read, by file and column."""
        of = PointRows(self.directory, self.point, self.facts, whole=True)
        group = of.groups[self.group]
        out = piles.room(of.layout, self.rows)
        out[NUMBER][:] = _numbers(group.runs, self.first, self.rows)
        stored = {name: column for name, column in out.items() if name != NUMBER}
        sums: dict[str, dict[str, int]] = {}
        of.read_group(group, self.first, stored, sums)
        of.close()
        return out, {"group": self.group, "first": self.first, "rows": self.rows, "sums": sums}


def _numbers(runs: Sequence[tuple[int, int]], first: int, count: int) -> np.ndarray:
    found = np.empty(count, np.int64)
    done = 0
    for begin, length in runs:
        gone = min(first, length)
        taken = min(length - gone, count - done)
        found[done : done + taken] = np.arange(begin + gone, begin + gone + taken)
        first -= gone
        done += taken
    return found


@dataclass(frozen=True)
class PileRows:
    """Rows of piles that an earlier pass wrote.

    Attributes:
        parts: files, each with the pile that is meant.
        layout: of a row.
    """

    parts: tuple[tuple[PileFile, int], ...]
    layout: RowLayout

    def read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The columns; of checksums there is nothing to tell, they are looked at here."""
        return piles.read(self.parts, self.layout)[0], {}


@dataclass(frozen=True)
class PartitionTask:
    """Rows to a file of piles.

    Attributes:
        source: of the rows.
        key: of each.
        layout: of a row.
        bounds: the least key of each pile but the first.
        path: of the file, and `own` the number by which it is known.
        counted: whether to tell how many rows each pile got, from which the next pass is planned.
    """

    source: StoreRows | PileRows
    key: Key
    layout: RowLayout
    bounds: np.ndarray
    path: str
    own: int
    counted: bool = False


def partition(task: PartitionTask) -> dict[str, Any]:
    """Read rows, and write them by piles."""
    before = moved()
    columns, told = task.source.read()
    count = len(task.bounds) + 1
    kind = np.uint16 if count <= 1 << 16 else np.uint32
    pile = task.bounds.searchsorted(task.key(columns), side="right").astype(kind)
    size = piles.write(Path(task.path), task.layout, columns, pile, count, task.own)
    found = {"file": Path(task.path).name, "bytes": size, "told": told, "moved": _since(before)}
    if task.counted:
        found["counts"] = np.bincount(pile, minlength=count).tolist()
    return found


@dataclass(frozen=True)
class FinishTask:
    """Piles to a file of a store, in the order of their keys.

    Attributes:
        piles: of the file, each as the parts of it that are in files.
        key: of each row.
        layout: of a row.
        rows: that the file must get.
        path: of the file, and `told` what it says of itself.
        number: of the file.
        address: where the file is put when it is whole; "" where it stays.
    """

    piles: tuple[tuple[tuple[PileFile, int], ...], ...]
    key: Key
    layout: RowLayout
    rows: int
    path: str
    told: Mapping[str, Any]
    number: int
    address: str = ""


def finish(task: FinishTask) -> dict[str, Any]:
    """Read piles one after the other, put each in order, and write a file of the store."""
    before = moved()
    layout, path = task.layout, Path(task.path)
    header, starts = layout.header(task.rows, task.told), layout.starts(task.rows)
    sums = dict.fromkeys(layout.columns, 0)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.writing")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.pwrite(descriptor, header, 0)
        done = 0
        for parts in task.piles:
            columns, rows = piles.read(parts, layout)
            order = task.key(columns).argsort(kind="stable")
            for name, (_, dtype, width) in layout.columns.items():
                at = len(header) + starts[name] + done * dtype.itemsize * width
                for block in piles.gathered(columns[name], order):
                    write_from(descriptor, block, at)
                    sums[name] = zlib.crc32(bytes_of(block), sums[name])
                    at += block.nbytes
            done += rows
            del columns
        if done != task.rows:
            raise AssertionError(f"{path.name} got {done} rows of {task.rows}")
        os.fsync(descriptor)
        if task.address:
            StoreAddress(task.address).put(temporary)
            temporary.unlink()
        else:
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    settle(path.parent)
    return {"number": task.number, "rows": task.rows, "sums": sums, "moved": _since(before)}


def moved() -> tuple[int, int]:
    """Bytes that this process has read and written so far, as the system counts them; zeros where it does not."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0, 0
    told = dict(line.split(": ") for line in lines)
    return int(told["rchar"]), int(told["wchar"])


def _since(before: tuple[int, int]) -> list[int]:
    return [now - then for now, then in zip(moved(), before, strict=True)]
