"""Rows appended to the files of a store, sealed, cut back and gone on with.

One writer has a row of files, ``STEM-00000.safetensors`` and on, and a journal that says which are whole. Where it is in them is a
few numbers (:class:`WriterMark`), which a checkpoint keeps: whoever goes on from there cuts off what came after, so that no
row is twice there and none is lost. What was written before the mark is held against its checksum first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores import journal
from garcon_jupyter.activation_stores.pieces import bytes_of, read_into, write_from
from garcon_jupyter.activation_stores.row_files import RowFile, RowLayout
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import BadRequest, DoesNotFit

MANIFEST = "store.json"

_BLOCK = 1 << 22
"""Bytes copied at a time."""

Runs = tuple[tuple[int, int], ...]
"""Rows that follow one another: the number of the first, and how many."""


@dataclass(frozen=True)
class WriterMark:
    """Where a writer is, between two batches.

    Attributes:
        number: of the file that is being filled.
        rows: in it.
        sums: CRC-32 of each of its columns, so far.
        runs: which rows of the store they are.
        lost: the largest loss of a row, as a part of its length.
        journal: bytes of the journal.
        total: rows in all files.
    """

    number: int = 0
    rows: int = 0
    sums: tuple[tuple[str, int], ...] = ()
    runs: Runs = ()
    lost: float = 0.0
    journal: int = 0
    total: int = 0


class RowWriter:
    """The writer of one row of files.

    Args:
        directory: of the store.
        stem: of the names of the files.
        layout: of a row.
        about: what the journal says first, and each file of itself.
        capacity: rows of a whole file.
        mark: where to go on; None to begin, without what was there under this stem.

    Raises:
        BadRequest: another process writes these files.
        BadData: what was written before the mark is damaged.
    """

    def __init__(
        self,
        directory: Path,
        stem: str,
        layout: RowLayout,
        about: Mapping[str, Any],
        capacity: int,
        mark: WriterMark | None = None,
    ) -> None:
        self._directory, self._stem, self._layout = directory, stem, layout
        self._about, self._capacity = dict(about), capacity
        self._header = len(layout.header(capacity, self._told(0)))
        self._starts = layout.starts(capacity)
        self._journal = journal.StoreJournal(directory / f"{stem}.jsonl")
        self._file = -1
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        self.mark = mark or WriterMark()
        if mark is None:
            self._begin()
        else:
            self._cut()

    def _told(self, number: int) -> dict[str, Any]:
        return {**self._about, "file": f"{self._stem}-{number:05d}.safetensors"}

    def _path(self, number: int) -> Path:
        return self._directory / str(self._told(number)["file"])

    def _open_path(self, number: int) -> Path:
        return self._path(number).with_suffix(".open")

    def _locked(self) -> int:
        lock = os.open(self._directory / f".{self._stem}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise BadRequest(
                f"Another process writes {self._stem} in {self._directory}.",
                "Wait for its end, or give another directory.",
            ) from None
        return lock

    # -- begun, and gone on with -----------------------------------------------------------------

    def _mine(self) -> Iterator[tuple[int, Path]]:
        for path in self._directory.glob(f"{self._stem}-[0-9]*.*"):
            number = path.name[len(self._stem) + 1 :].partition(".")[0]
            if number.isdigit():
                yield int(number), path

    def _begin(self) -> None:
        self._journal.remove()
        for _, path in list(self._mine()):
            path.unlink()
        self._journal.append({"writer": self._about})
        self.mark = replace(self.mark, journal=self._journal.size)

    def _cut(self) -> None:
        mark = self.mark
        if self._journal.size < mark.journal:
            raise journal.damaged(
                self._journal.path, "lines that it had at the checkpoint are gone"
            )
        self._journal.cut(mark.journal)
        for number, path in list(self._mine()):
            if number > mark.number or path.suffix == ".writing":
                path.unlink()
        sealed, opened = self._path(mark.number), self._open_path(mark.number)
        if opened.exists():
            sealed.unlink(missing_ok=True)
        elif sealed.exists():
            self._unseal(sealed, opened)
        if not mark.rows:
            opened.unlink(missing_ok=True)
            return
        if not opened.exists():
            raise journal.damaged(opened, "it is gone")
        self._file = os.open(opened, os.O_RDWR)
        found = tuple((name, self._sum(name, mark.rows)) for name, _ in mark.sums)
        if found != mark.sums:
            raise journal.damaged(opened, f"its first {mark.rows:,} rows are not those written")

    def _unseal(self, sealed: Path, opened: Path) -> None:
        """Make of a file that was sealed after the mark one that can be filled again."""
        file = RowFile(sealed, self._layout, self._told(self.mark.number))
        rows = file.rows
        if rows == self._capacity:
            sealed.replace(opened)
            return
        self._create(opened)
        for name, (_, dtype, width) in self._layout.columns.items():
            column = np.empty((rows, width), dtype)
            file.read(name, 0, column)
            write_from(self._file, column, self._header + self._starts[name])
        file.close()
        self._close_file()
        sealed.unlink()

    def _sum(self, name: str, rows: int) -> int:
        _, dtype, width = self._layout.columns[name]
        left, at = rows * dtype.itemsize * width, self._header + self._starts[name]
        sum_ = 0
        while left:
            block = np.empty(min(left, _BLOCK), np.uint8)
            read_into(self._file, block, at, self._open_path(self.mark.number))
            sum_ = zlib.crc32(block.data, sum_)
            left -= len(block)
            at += len(block)
        return sum_

    # -- written ---------------------------------------------------------------------------------

    def append(
        self, runs: Sequence[tuple[int, int]], columns: Mapping[str, np.ndarray], lost: float = 0.0
    ) -> None:
        """Add rows.

        Args:
            runs: which rows of the store they are, in their order.
            columns: of each, by name.
            lost: see :class:`WriterMark`.

        Raises:
            DoesNotFit: the disk is full; with the numbers.
        """
        rows, done = len(columns["token"]), 0
        try:
            while done < rows:
                count = min(rows - done, self._capacity - self.mark.rows)
                part = {name: column[done : done + count] for name, column in columns.items()}
                self._put(_cut_runs(runs, done, count), part, lost)
                done += count
                if self.mark.rows == self._capacity:
                    self._seal()
        except OSError as error:
            raise self._full(error) from None

    def _put(self, runs: Runs, part: Mapping[str, np.ndarray], lost: float) -> None:
        mark = self.mark
        if self._file < 0:
            self._create(self._open_path(mark.number))
        sums = dict(mark.sums)
        for name, (_, dtype, width) in self._layout.columns.items():
            column = np.ascontiguousarray(part[name], dtype)
            at = self._header + self._starts[name] + mark.rows * dtype.itemsize * width
            write_from(self._file, column, at)
            sums[name] = zlib.crc32(bytes_of(column), sums.get(name, 0))
        count = len(part["token"])
        self.mark = replace(
            mark,
            rows=mark.rows + count,
            sums=tuple(sums.items()),
            runs=_joined((*mark.runs, *runs)),
            lost=max(mark.lost, lost),
            total=mark.total + count,
        )

    def _create(self, path: Path) -> None:
        header = self._layout.header(self._capacity, self._told(self.mark.number))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        os.ftruncate(self._file, len(header) + self._capacity * self._layout.row_bytes)
        os.pwrite(self._file, header, 0)

    def _full(self, error: OSError) -> DoesNotFit:
        free = shutil.disk_usage(self._directory).free
        return DoesNotFit(
            f"{self._directory} cannot be written after {self.mark.total:,} rows "
            f"({sized(self.mark.total * self._layout.row_bytes)}): {error.strerror or error}; "
            f"{sized(free)} are free, and a row takes {self._layout.row_bytes:,} bytes.",
            "Make room and go on from the last checkpoint.",
        )

    # -- sealed ----------------------------------------------------------------------------------

    def _seal(self) -> None:
        """The file is full: it gets its name, and a line in the journal."""
        mark = self.mark
        os.fsync(self._file)
        self._close_file()
        self._open_path(mark.number).replace(self._path(mark.number))
        journal.settle(self._directory)
        self._note()

    def _note(self) -> None:
        mark = self.mark
        self._journal.append(
            sealed_line(str(self._told(mark.number)["file"]), mark.rows, mark.runs, mark.sums)
            | {"lost": mark.lost}
        )
        self.mark = replace(
            mark,
            number=mark.number + 1,
            rows=0,
            sums=(),
            runs=(),
            journal=self._journal.size,
        )

    def settle(self) -> None:
        """See that all that was written is on the disk: a checkpoint is about to count on it."""
        if self._file >= 0:
            os.fsync(self._file)

    def finish(self) -> None:
        """Seal the last file, as small as its rows, and say that this was all.

        Raises:
            DoesNotFit: the disk is full.
        """
        try:
            if self.mark.rows:
                self._shrink()
            self._journal.append({"end": self.mark.total})
        except OSError as error:
            raise self._full(error) from None

    def _shrink(self) -> None:
        mark = self.mark
        path, opened = self._path(mark.number), self._open_path(mark.number)
        temporary = path.with_suffix(".writing")
        header = self._layout.header(mark.rows, self._told(mark.number))
        with temporary.open("wb") as stream:
            stream.write(header)
            for name, (_, dtype, width) in self._layout.columns.items():
                left = mark.rows * dtype.itemsize * width
                at = self._header + self._starts[name]
                while left:
                    block = np.empty(min(left, _BLOCK), np.uint8)
                    read_into(self._file, block, at, opened)
                    stream.write(block.data)
                    left -= len(block)
                    at += len(block)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        self._close_file()
        opened.unlink()
        journal.settle(self._directory)
        self._note()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close(self) -> None:
        """Let go of the files; what was written stays."""
        self._close_file()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):
            self.close()


def sealed_line(
    name: str, rows: int, runs: Sequence[tuple[int, int]], sums: Sequence[tuple[str, int]]
) -> dict[str, Any]:
    """What a journal says of a file that is whole."""
    return {
        "file": name,
        "rows": rows,
        "runs": [list(run) for run in runs],
        "crc32": {column: f"{sum_:08x}" for column, sum_ in sums},
    }


def _cut_runs(runs: Sequence[tuple[int, int]], skip: int, count: int) -> Runs:
    """The runs of some of the rows."""
    found = []
    for first, length in runs:
        gone = min(skip, length)
        taken = min(length - gone, count)
        if taken:
            found.append((first + gone, taken))
        skip -= gone
        count -= taken
    return tuple(found)


def _joined(runs: Sequence[tuple[int, int]]) -> Runs:
    """Runs that follow one another as one."""
    found: list[tuple[int, int]] = []
    for first, length in runs:
        if found and sum(found[-1]) == first:
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((first, length))
    return tuple(found)
