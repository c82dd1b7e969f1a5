"""How many passes, piles and files an exchange takes, what they read and write; before it starts, and on paper.

A pass reads all rows and writes them by ranges of the key. Ranges are cut so that each is of equal size, known beforehand, and fits into the
memory of one process; a file of the result is one or several of them. How many ranges one pass can make is bounded from the other
side: a process writes a chunk that fits into its memory, and the part of each range should be worth a look at the disk.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass

from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import BadRequest, DoesNotFit
from garcon_jupyter.exchanges.piles import BLOCK

OF_A_PROCESS = 44_000_000
"""Bytes that a process takes before it reads a row: Python and NumPy."""

OF_A_NUMBER = 8
"""Bytes by which a row is longer in a pile: its number."""

BESIDE_A_ROW = 40
"""Bytes that a process has beside each row while it orders them: key, range, and places before and after."""

SEGMENT = 1_000_000
"""Bytes that a chunk should have of each range, on the average."""

MOST_WORKERS = 8

_LEAST = 8 * BLOCK


@dataclass(frozen=True)
class ExchangePlan:
    """How an exchange goes.

    Attributes:
        rows: of the store.
        row_bytes: of a row of it.
        workers: processes at a time.
        chunk_rows: rows that one of them reads at a time.
        file_rows: rows of a whole file of the result.
        piles_of_a_file: in how many ranges of the key each of these is made.
        partitions: how often the rows are written by ranges before they are put in order.
        branches: in how many ranges at a time.
    """

    rows: int
    row_bytes: int
    workers: int
    chunk_rows: int
    file_rows: int
    piles_of_a_file: int
    partitions: int
    branches: int

    @property
    def files(self) -> int:
        """Files of the result."""
        return -(-self.rows // self.file_rows)

    @property
    def pile_rows(self) -> int:
        """Rows of a pile."""
        return -(-self.file_rows // self.piles_of_a_file)

    @property
    def piles(self) -> int:
        """Ranges of the key in all."""
        return self.files * self.piles_of_a_file

    @property
    def tasks(self) -> int:
        """Files between the passes, each of one task."""
        return -(-self.rows // self.chunk_rows) * self.partitions

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.rows * self.row_bytes

    @property
    def between(self) -> int:
        """Bytes of all rows between the passes."""
        return self.rows * (self.row_bytes + OF_A_NUMBER)

    @property
    def read(self) -> int:
        """Bytes read in all."""
        return self.nbytes + self.partitions * self.between

    @property
    def written(self) -> int:
        """Bytes written in all."""
        return self.read

    @property
    def room(self) -> int:
        """Bytes that must be free on the disk at most at a time, the result included."""
        return self.between + (self.between if self.partitions > 1 else self.nbytes)

    def __str__(self) -> str:
        passes = f"{self.partitions} pass{'es' if self.partitions > 1 else ''} and the last"
        return (
            f"{self.rows:,} rows, {sized(self.nbytes)}: {passes}, {self.piles:,} piles, {self.tasks:,} files "
            f"between, {sized(self.read)} read and {sized(self.written)} written by {self.workers} at a time"
        )


def planned(
    rows: int, row_bytes: int, file_rows: int, memory: int, workers: int | None = None
) -> ExchangePlan:
    """How to exchange rows within a memory.

    Args:
        rows: how many.
        row_bytes: of each.
        file_rows: rows of a file of the result.
        memory: bytes for all processes together.
        workers: processes; None for as many as there are cores, up to 8, and fewer where memory is short.

    Raises:
        DoesNotFit: one process would not have room; says how much it takes.
    """
    most = workers or min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    for count in range(most, 0, -1):
        own = (memory - OF_A_PROCESS * (count + 1)) // count - 4 * BLOCK
        if own >= _LEAST or (count == 1 and own >= BLOCK):
            break
    else:
        least = 2 * OF_A_PROCESS + 5 * BLOCK
        raise DoesNotFit(
            f"A shuffle takes at least {sized(least)}, and has {sized(memory)}.",
            f"Give memory={least} or more.",
        )
    held = max(8, own // (row_bytes + OF_A_NUMBER + BESIDE_A_ROW))
    return _passes(rows, row_bytes, file_rows, count, held, SEGMENT)


def _passes(
    rows: int, row_bytes: int, file_rows: int, workers: int, held: int, segment: int
) -> ExchangePlan:
    """ExchangePlan of processes that hold so many rows.

    Args:
        segment: bytes that a chunk should have of each range.
    """
    of_a_file = -(-file_rows // held)
    piles = max(1, -(-rows // file_rows) * of_a_file)
    widest = max(2, int(held * row_bytes // segment))
    partitions = 1
    while math.ceil(piles ** (1 / partitions) - 1e-9) > widest:
        partitions += 1
    branches = math.ceil(piles ** (1 / partitions) - 1e-9)
    return ExchangePlan(
        rows, row_bytes, workers, held, file_rows, of_a_file, partitions, max(2, branches)
    )


def on_paper(
    nbytes: float,
    row_bytes: int = 1164,
    memory: float = 1e9,
    file_bytes: float = 256e6,
    workers: int = 1,
    segment: float = 1e6,
) -> ExchangePlan:
    """The passes of an exchange that nobody runs here.

    Args:
        nbytes: of all rows.
        row_bytes: of a row.
        memory: bytes of one process.
        file_bytes: of a file of the result.
        workers: processes.
        segment: bytes that a chunk should have of each range.

    Examples:
        >>> from garcon_jupyter.exchanges import on_paper
        >>> plan = on_paper(100e12, memory=1e9, workers=64)
        >>> plan.partitions, plan.branches
        (2, 626)
    """
    held = int(memory // (row_bytes + OF_A_NUMBER + BESIDE_A_ROW))
    rows = int(nbytes // row_bytes)
    # Of so many files a process reads no more than it holds, be they smaller.
    file_rows = max(8, int(min(file_bytes, memory) // row_bytes))
    return _passes(rows, row_bytes, file_rows, workers, held, int(segment))


def reach(memory: float, branches: int, partitions: int) -> float:
    """Bytes that so many partitions bring down to pieces which fit into a memory, each by so many branches.

    The article's example has 100 GB of memory and a hundred files of 1 GB. It counts the last step, which is no partition, as a pass:

    Examples:
        >>> [f"{reach(100e9, 100, passes):.0e}" for passes in (0, 1, 2, 3)]
        ['1e+11', '1e+13', '1e+15', '1e+17']
    """
    return memory * float(branches) ** partitions


def bytes_said(amount: int | float | str) -> int:
    """Bytes of 350000000, "350 MB", "1 GB", "2 GiB".

    Raises:
        BadRequest: it is no number of bytes.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|[kKMGTP])(i?)B?", str(amount).strip())
    if not found or not float(found[1]):
        raise BadRequest(f"{amount!r} is no number of bytes.", 'Write it like "350 MB" or "2 GiB".')
    power = " KMGTP".index((found[2] or " ").upper())
    return int(float(found[1]) * (1024 if found[3] else 1000) ** power)
