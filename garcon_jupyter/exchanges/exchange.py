"""All passes of one exchange: rows to piles, piles to smaller piles, and those to what they are wanted for.

What is done is put down in a journal, task by task, so that an exchange which was cut short goes on: tasks that were under way are run again.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores.journal import StoreJournal
from garcon_jupyter.activation_stores.row_files import RowLayout
from garcon_jupyter.exchanges.engines import TaskEngine
from garcon_jupyter.exchanges.piles import PileFile
from garcon_jupyter.exchanges.tasks import Key, PartitionTask, PileRows, StoreRows, partition

Parts = tuple[tuple[PileFile, int], ...]
"""A pile: the parts of it that are in files."""


@dataclass(frozen=True)
class ExchangePlace:
    """Where an exchange works, and who runs its tasks.

    Attributes:
        directory: for files between passes, which its engine's machines share.
        engine: what runs tasks.
        journal: of what is done.
        retries: how often a task is run again.
        told: is called with what each task tells when it is done.
    """

    directory: Path
    engine: TaskEngine
    journal: StoreJournal
    retries: int = 2
    told: Callable[[Mapping[str, Any]], None] = lambda line: None


@dataclass
class _Node:
    """A range of leaves, and the rows of which they will be made."""

    first: int
    stop: int
    sources: list[StoreRows | PileRows]
    files: list[PileFile] = field(default_factory=list)
    counts: dict[str, list[int]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)


def exchange(
    tasks: Sequence[StoreRows | PileRows],
    key: Key,
    *,
    layout: RowLayout,
    bounds: np.ndarray,
    leaves: Sequence[int],
    branches: int,
    partitions: int,
    chunk_rows: int,
    place: ExchangePlace,
) -> list[list[Parts]]:
    """Bring rows together by ranges of a key.

    Args:
        tasks: rows, as many as a process holds in each.
        key: of a row.
        layout: of a row.
        bounds: the least key of each range but the first, ascending.
        leaves: how many ranges belong to each leaf, which is made by one task afterwards.
        branches: in how many ranges rows are written at a time, where there are several passes.
        partitions: how many passes there are.
        chunk_rows: rows that a process holds.
        place: where, and who runs the tasks.

    Returns:
        Of each leaf its ranges, each as the parts of it that are in files.

    Raises:
        BadData: a file between passes is damaged; names it.
        GarconError: what a task could not do.
    """
    starts = [0, *np.cumsum(leaves).tolist()]
    nodes = [_Node(0, len(leaves), list(tasks))]
    for level in range(partitions):
        last = level == partitions - 1
        for node in nodes:
            node.cuts = _edges(node, branches, last, starts)
        _partition_all(nodes, level, last, key, layout, bounds, place)
        if not last:
            nodes = [
                child for node in nodes for child in _children(node, starts, layout, chunk_rows)
            ]
    return [_leaf(node, leaf, starts) for node in nodes for leaf in range(node.first, node.stop)]


def _edges(node: _Node, branches: int, last: bool, starts: Sequence[int]) -> list[int]:
    """The ranges at which piles of a node begin, and the end."""
    if last:
        return list(range(starts[node.first], starts[node.stop] + 1))
    count = min(branches, node.stop - node.first)
    cut = [node.first + (node.stop - node.first) * n // count for n in range(count + 1)]
    return [starts[leaf] for leaf in cut]


def _partition_all(
    nodes: Sequence[_Node],
    level: int,
    last: bool,
    key: Key,
    layout: RowLayout,
    bounds: np.ndarray,
    place: ExchangePlace,
) -> None:
    lines = place.journal.read()
    done = {line["file"]: line for line in lines if "bytes" in line}
    over = level in {line.get("over") for line in lines}
    wanted: list[PartitionTask] = []
    for number, node in enumerate(nodes):
        inner = bounds[np.array(node.cuts[1:-1], np.int64) - 1]
        for count, source in enumerate(node.sources):
            path = place.directory / f"{level}-{number:05d}-{count:06d}.piles"
            own = zlib.crc32(path.name.encode())
            node.files.append(PileFile(str(path), own, len(inner) + 1))
            task = PartitionTask(source, key, layout, inner, str(path), own, not last)
            if over or (path.name in done and path.exists()):
                place.told(done[path.name])
            else:
                wanted.append(task)
    for line in place.engine.map(partition, wanted, place.retries):
        place.journal.append(line)
        place.told(line)
        done[line["file"]] = line
    for node in nodes:
        names = [Path(file.path).name for file in node.files]
        node.counts = {name: done[name].get("counts", []) for name in names}
    if not over:
        place.journal.append({"over": level})
    if level:  # what these were made of is of no more use
        for path in place.directory.glob(f"{level - 1}-*.piles"):
            path.unlink()


def _children(
    node: _Node, starts: Sequence[int], layout: RowLayout, chunk_rows: int
) -> Iterator[_Node]:
    leaf_at = {start: leaf for leaf, start in enumerate(starts)}
    for pile, (first, stop) in enumerate(zip(node.cuts[:-1], node.cuts[1:], strict=True)):
        sources: list[StoreRows | PileRows] = []
        parts: list[tuple[PileFile, int]] = []
        held = 0
        for file in node.files:
            rows = node.counts[Path(file.path).name][pile]
            if parts and held + rows > chunk_rows:
                sources.append(PileRows(tuple(parts), layout))
                parts, held = [], 0
            parts.append((file, pile))
            held += rows
        sources.append(PileRows(tuple(parts), layout))
        yield _Node(leaf_at[first], leaf_at[stop], sources)


def _leaf(node: _Node, leaf: int, starts: Sequence[int]) -> list[Parts]:
    base = starts[node.first]
    return [
        tuple((file, pile - base) for file in node.files)
        for pile in range(starts[leaf], starts[leaf + 1])
    ]
