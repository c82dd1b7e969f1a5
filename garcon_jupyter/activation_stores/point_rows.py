"""The rows of one point of a store: found in their files by number, whatever ranks wrote them.

A writer had all rows or, of several replicas, some runs of them; and all columns or, of a shard of the units, some. What
journals say is put together here, and must come to every row and every column exactly once.
"""

from __future__ import annotations

import bisect
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores.addresses import StoreAddress, directory_of, files_in
from garcon_jupyter.activation_stores.checksums import combined
from garcon_jupyter.activation_stores.journal import StoreJournal, damaged
from garcon_jupyter.activation_stores.pieces import bytes_of
from garcon_jupyter.activation_stores.row_files import RowFile, RowLayout
from garcon_jupyter.errors import BadData

BLOCK = 1 << 24
"""Bytes read at a time where all of a file is read."""


@dataclass(frozen=True)
class FilePart:
    """A file with some columns of some rows.

    Attributes:
        name: of the file.
        columns: the first of the units that it has, and the one after the last.
        sums: CRC-32 of each column, by name.
        about: what the file says of itself.
    """

    name: str
    columns: tuple[int, int]
    sums: Mapping[str, int]
    about: Mapping[str, Any]


@dataclass(frozen=True)
class RowGroup:
    """Files that have the same rows, each with some of their columns.

    Attributes:
        parts: by columns.
        rows: how many there are.
        runs: which of the store's, in the order of the files.
    """

    parts: tuple[FilePart, ...]
    rows: int
    runs: tuple[tuple[int, int], ...]


class PointRows:
    """The rows of one point.

    Args:
        directory: of the store.
        point: which.
        facts: what the manifest says of it.
        whole: whether all rows must be there.

    Raises:
        BadData: a file is damaged, missing, or another than it should be.
    """

    def __init__(
        self,
        directory: str | Path | StoreAddress,
        point: str,
        facts: Mapping[str, Any],
        whole: bool,
    ) -> None:
        self.directory, self.point = directory_of(directory), point
        self.units, self.stored = int(facts["units"]), str(facts["stored"])
        self.shape = tuple(int(size) for size in facts.get("shape", [self.units]))
        self.given = str(facts.get("given", self.stored))
        self.layout = RowLayout(self.units, self.stored)
        self.lost = 0.0
        self.ended = True
        self.groups = self._grouped()
        self._files: dict[str, RowFile] = {}
        self._table = sorted(self._spans())
        self._firsts = [first for first, *_ in self._table]
        self.rows = self._counted(whole)

    # -- put together ----------------------------------------------------------------------------

    def _grouped(self) -> list[RowGroup]:
        found: dict[tuple[str, int], list[tuple[FilePart, int, Any]]] = defaultdict(list)
        for name in sorted(files_in(self.directory)):
            if not name.endswith(".jsonl"):
                continue
            journal = self.directory / name
            lines = StoreJournal(journal).read()
            if not lines or "writer" not in lines[0]:
                raise damaged(journal, "its first line says nothing of who wrote it")
            about = lines[0]["writer"]
            if about["point"] != self.point:
                continue
            self.ended &= any("end" in line for line in lines)
            for number, line in enumerate(line for line in lines if "file" in line):
                sums = {name: int(sum_, 16) for name, sum_ in line["crc32"].items()}
                told = {**about, "file": line["file"]}
                part = FilePart(line["file"], tuple(about["columns"]), sums, told)
                key = str(about.get("rows", "")), number
                found[key].append((part, line["rows"], line["runs"]))
                self.lost = max(self.lost, line.get("lost", 0.0))
        return [self._group(parts) for _, parts in sorted(found.items())]

    def _group(self, found: list[tuple[FilePart, int, Any]]) -> RowGroup:
        found = sorted(found, key=lambda each: each[0].columns)
        parts = tuple(part for part, _, _ in found)
        _, rows, runs = found[0]
        if any((rows, runs) != (r, u) for _, r, u in found):
            raise BadData(
                f"{' and '.join(p.name for p in parts)} have not the same rows of {self.point}.",
                "Go on with the run that wrote them, to its end.",
            )
        at = 0
        for part in parts:
            if part.columns[0] != at:
                break
            at = part.columns[1]
        if at != self.units:
            raise BadData(
                f"Of the {self.units} units of {self.point}, {parts[0].name} and those beside it have {at}.",
                "A file of another rank is missing: are all ranks' files in this directory?",
            )
        return RowGroup(parts, rows, tuple((first, count) for first, count in runs))

    def _spans(self) -> Iterator[tuple[int, int, int, int]]:
        """First row, how many, group, and where they are in its files."""
        for number, group in enumerate(self.groups):
            at = 0
            for first, count in group.runs:
                yield first, count, number, at
                at += count

    def _counted(self, whole: bool) -> int:
        at = 0
        for first, count, number, _ in self._table:
            if first != at and (whole or first < at):
                name = self.groups[number].parts[0].name
                raise BadData(
                    f"Rows {min(at, first):,} to {max(at, first):,} of {self.point} are "
                    f"{'missing' if first > at else 'there twice'} before {name}.",
                    "Go on with the run that wrote them, to its end.",
                )
            if first != at:
                break
            at = first + count
        return at

    # -- read ------------------------------------------------------------------------------------

    def file(self, part: FilePart) -> RowFile:
        """A file, opened once, and looked at when it is.

        Raises:
            BadData: it is not the one that was written.
        """
        if part.name not in self._files:
            layout = RowLayout(part.columns[1] - part.columns[0], self.stored)
            self._files[part.name] = RowFile(self.directory / part.name, layout, part.about)
        return self._files[part.name]

    def look(self) -> None:
        """See that every file is there, whole, and the one that it should be; but not at what is in it.

        Raises:
            BadData: one is not.
        """
        if isinstance(self.directory, StoreAddress):
            self._look_at(self.directory.sizes())
            return
        for group in self.groups:
            for part in group.parts:
                file = self.file(part)
                if file.rows != group.rows:
                    raise damaged(file.path, f"it has {file.rows:,} rows of {group.rows:,}")

    def _look_at(self, there: Mapping[str, int]) -> None:
        """The same at an address, where it would be a request for each file: what it says of itself is looked at when it is read."""
        for group in self.groups:
            for part in group.parts:
                layout = RowLayout(part.columns[1] - part.columns[0], self.stored)
                whole = len(layout.header(group.rows, part.about)) + group.rows * layout.row_bytes
                if there.get(part.name) != whole:
                    had = there.get(part.name)
                    how = "it is gone" if had is None else f"it has {had:,} bytes of {whole:,}"
                    raise damaged(self.directory / part.name, how)

    def read(
        self,
        first: int,
        count: int,
        columns: tuple[str, ...] = (),
        told: list[dict[str, Any]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Rows that follow one another, column by column; all columns, or those named.

        Args:
            told: is given what was read of which files, with its checksums, as :meth:`check` takes it.
        """
        wanted = columns or tuple(self.layout.columns)
        out = {name: array for name, array in self.layout.empty(count).items() if name in wanted}
        done = 0
        at = bisect.bisect_right(self._firsts, first) - 1
        while done < count:
            start, length, group, place = self._table[at]
            skip = first + done - start
            taken = min(length - skip, count - done)
            sums: dict[str, dict[str, int]] | None = None if told is None else {}
            self.read_group(
                self.groups[group],
                place + skip,
                {name: array[done : done + taken] for name, array in out.items()},
                sums,
            )
            if told is not None:
                told.append({"group": group, "first": place + skip, "rows": taken, "sums": sums})
            done += taken
            at += 1
        return out

    def expect(self, first: int, count: int) -> None:
        """Tell the system that rows will be read soon, as far as there are such: it reads ahead meanwhile."""
        stop = min(first + count, self.rows)
        at = bisect.bisect_right(self._firsts, first) - 1
        while first < stop:
            start, length, group, place = self._table[at]
            taken = min(start + length, stop) - first
            for part in self.groups[group].parts:
                for column in self.file(part).layout.columns:
                    self.file(part).expect(column, place + first - start, taken)
            first += taken
            at += 1

    def read_group(
        self,
        group: RowGroup,
        at: int,
        out: Mapping[str, np.ndarray],
        sums: dict[str, dict[str, int]] | None = None,
    ) -> None:
        """Rows of some files, from one on, into arrays of all units.

        Args:
            sums: is given the CRC-32 of what was read, by file and column.
        """
        for number, part in enumerate(group.parts):
            file = self.file(part)
            for name, array in out.items():
                cut = name == "activations" and len(group.parts) > 1
                if number and not cut:
                    continue
                width = part.columns[1] - part.columns[0]
                read = np.empty((len(array), width), array.dtype) if cut else array
                file.read(name, at, read)
                if cut:
                    array[:, slice(*part.columns)] = read
                if sums is not None:
                    sums.setdefault(part.name, {})[name] = zlib.crc32(bytes_of(read))

    def sums(self, part: FilePart) -> dict[str, int]:
        """CRC-32 of each column of a file as it is now."""
        file = self.file(part)
        found = {}
        for name, (_, dtype, width) in file.layout.columns.items():
            rows = max(1, BLOCK // (dtype.itemsize * width))
            sum_ = 0
            for first in range(0, file.rows, rows):
                block = np.empty((min(rows, file.rows - first), width), dtype)
                file.read(name, first, block)
                sum_ = zlib.crc32(bytes_of(block), sum_)
            found[name] = sum_
        return found

    def verify(self) -> None:
        """Read all files, and hold every column against its checksum.

        Raises:
            BadData: one differs; names file and column.
        """
        self.look()
        for group in self.groups:
            for part in group.parts:
                for name, sum_ in self.sums(part).items():
                    if sum_ != part.sums.get(name):
                        raise wrong_sum(self.directory / part.name, name)

    def check(self, told: Sequence[Mapping[str, Any]]) -> None:
        """Hold what was read, piece by piece and each piece once, against the checksums of the files.

        Args:
            told: of each piece its group, first row, rows, and checksums by file and column.

        Raises:
            BadData: a file was damaged; names it. Or not all was read.
        """
        seen: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for piece in told:
            seen[piece["group"]].append(piece)
        for number, group in enumerate(self.groups):
            pieces = sorted(seen[number], key=lambda piece: piece["first"])
            for name, columns in self._whole_sums(group, pieces).items():
                part = next(part for part in group.parts if part.name == name)
                for column, sum_ in columns.items():
                    if sum_ != part.sums[column]:
                        raise wrong_sum(self.directory / name, column)

    def _whole_sums(
        self, group: RowGroup, seen: Sequence[Mapping[str, Any]]
    ) -> dict[str, dict[str, int]]:
        """Checksums of files, of those of the pieces in which they were read."""
        found: dict[str, dict[str, int]] = {}
        if sum(told["rows"] for told in seen) != group.rows:
            raise BadData(f"{group.parts[0].name} was not read whole.", "Give the same call again.")
        for part in group.parts:
            widths = RowLayout(part.columns[1] - part.columns[0], self.stored).columns
            for told in seen:
                for column, sum_ in told["sums"].get(part.name, {}).items():
                    _, dtype, width = widths[column]
                    length = told["rows"] * dtype.itemsize * width
                    mine = found.setdefault(part.name, {})
                    mine[column] = combined(mine[column], sum_, length) if column in mine else sum_
        return found

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def wrong_sum(path: Path | StoreAddress, column: str) -> BadData:
    """The error for a column that differs from what was written."""
    return damaged(path, f"{column} does not have its checksum")
