"""A store in an order that a seed draws from all orders of its rows, each as likely as any other."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores import ActivationStore, journal, making, open_store
from garcon_jupyter.activation_stores.addresses import (
    StoreAddress,
    directory_of,
    files_in,
    work_directory,
)
from garcon_jupyter.activation_stores.journal import StoreJournal
from garcon_jupyter.activation_stores.point_rows import PointRows
from garcon_jupyter.activation_stores.writing import MANIFEST, sealed_line
from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.exchanges import disk_room, keys, publishing
from garcon_jupyter.exchanges.alone import alone, clear, clear_halves
from garcon_jupyter.exchanges.announcing import DirectoryCall, announced
from garcon_jupyter.exchanges.engines import TaskEngine, engine_of
from garcon_jupyter.exchanges.engines.local import HereEngine
from garcon_jupyter.exchanges.exchange import ExchangePlace, exchange
from garcon_jupyter.exchanges.planning import ExchangePlan, bytes_said, planned
from garcon_jupyter.exchanges.tasks import FinishTask, PileRows, SeedKey, StoreRows, finish

SMALL = 16_000_000
"""Bytes of a store that is shuffled in this process, unless workers are asked for."""


def shuffle(
    src: str | Path | ActivationStore,
    dst: str | Path,
    seed: int = 0,
    memory: int | str = "1 GB",
    engine: str | TaskEngine = "local",
    workers: int | None = None,
    retries: int = 2,
    plan: ExchangePlan | None = None,
    progress: Callable[[str], None] | None = None,
    work: str | Path | None = None,
) -> ActivationStore:
    """Write the rows of a store in an order that is drawn uniformly from all, however large the store is.

    The order depends on the seed alone: the same bytes for any memory, workers, engine, and however often it was cut short. Called again,
    it goes on where it was; of a store that is complete it opens the result. Points of one store are put in the same order. Rows are read
    and written once for each pass and once at the end: twice, up to some hundred GB by 1 GB of memory.

    Args:
        src: a store, or its directory, or an address of fsspec's: "s3://bucket/acts".
        dst: a new directory; or that of a shuffle which was cut short; or an address, which takes `work`.
        seed: whole number; another for each epoch.
        memory: bytes for all processes together: "350 MB", "1 GB", 2_000_000_000.
        engine: "local" for processes of this machine; "ray", "dask", "slurm"; with an address, ``ray:auto``, ``dask:tcp://host:8786``, on a
            cluster whose machines see both directories; with options of sbatch, ``slurm:--partition=short``.
        workers: tasks at a time; None for as many as there are cores, up to 8, and fewer where memory is short.
        retries: how often a task is run again whose process died.
        plan: how to go about it, in place of what `memory` makes of it.
        progress: is told in a line how far it is.
        work: a directory for what is in the making, where `dst` is an address: an object store has neither locks nor files that grow. Files of the
            result go from there to the address one by one, so it needs room for what lies between the passes alone.

    Returns:
        The shuffled store, opened.

    Raises:
        BadData: the source is not complete or damaged, or `dst` has something else: another source or seed.
        DoesNotFit: memory or disk do not suffice; with the numbers.
        BadRequest: another process shuffles into this directory; or an address was given, and no `work`.
        MissingModule, Unreachable: what an address needs is not installed, or it does not answer.

    Examples:
        >>> mixed = garcon.shuffle("acts", "acts-mixed", seed=7, memory="1 GB")  # doctest: +SKIP
        >>> for batch in mixed.batches(4096):  # doctest: +SKIP
        ...     train(batch.activations)
    """
    source = src if isinstance(src, ActivationStore) else open_store(src)
    target = directory_of(dst)
    if target.absolute() == source.path.absolute():
        raise BadRequest("A store cannot be shuffled into itself.", "Give another directory.")
    directory = work_directory(target, work, "A shuffle")
    facts = _manifest(source, int(seed))
    if isinstance(target, StoreAddress) and publishing.is_there(target, directory, facts):
        return open_store(target)
    with disk_room.named(directory):
        if making.begin(directory, facts) and "rows" in journal.get(directory / MANIFEST):
            clear(directory)
            return open_store(directory)
    arguments = {
        "src": str(source.path.absolute()),
        "dst": str(target if isinstance(target, StoreAddress) else directory),
        "work": None if work is None else str(directory),
        "seed": int(seed),
        "memory": memory,
        "engine": engine if isinstance(engine, str) else "local",
        "workers": workers,
        "retries": retries,
    }
    call = DirectoryCall("shuffle", f"{__name__}:shuffle", arguments)
    with disk_room.named(directory), alone(directory, "shuffles into") as between:
        with announced(directory, call, progress) as told:
            runner: TaskEngine | None = None
            try:
                for point in source.points:
                    rows = source.point_rows(point)
                    own = _plan(source, rows, plan, bytes_said(memory), workers, between)
                    at = target if isinstance(target, StoreAddress) else None
                    runner = runner or _runner(engine, workers, source, own)
                    one = _PointShuffle(source, rows, directory, between, int(seed), own, at)
                    with disk_room.named(directory, one.needed):
                        one.run(runner, retries, told)
                making.complete(directory, source.rows)
            finally:
                if runner is not None and isinstance(engine, str):
                    runner.close()
            clear_halves(directory)  # of workers that were killed
            if isinstance(target, StoreAddress):
                publishing.put_journals(target, directory)
        shutil.rmtree(between)
    return open_store(target)


def _manifest(source: ActivationStore, seed: int) -> dict[str, Any]:
    sums = hashlib.sha256()
    for point in source.points:
        for group in source.point_rows(point).groups:
            for part in group.parts:
                sums.update(repr((part.columns, sorted(part.sums.items()), group.runs)).encode())
    order = {"seed": seed, "of": sums.hexdigest(), "before": source.facts.get("order", {})}
    return making.manifest(source.facts["points"], order, source.facts.get("about", {}))


def _plan(
    source: ActivationStore,
    rows: PointRows,
    given: ExchangePlan | None,
    memory: int,
    workers: int | None,
    between: Path,
) -> ExchangePlan:
    """The passes for a point: those with which it was begun, if their tasks fit into this memory too."""
    file_rows = int(source.facts["points"][rows.point]["rows_of_a_file"])
    asked = given or planned(rows.rows, rows.layout.row_bytes, file_rows, memory, workers)
    lines = StoreJournal(between / f"{making.stem_of(rows.point)}.jsonl").read()
    if not lines:
        return asked
    begun = ExchangePlan(**lines[0]["plan"])
    if begun.chunk_rows <= asked.chunk_rows and begun.file_rows == asked.file_rows:
        return ExchangePlan(**{**asdict(begun), "workers": asked.workers})
    for left in between.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        elif left.suffix == ".jsonl":
            left.unlink()
    return asked


def _runner(
    engine: str | TaskEngine, workers: int | None, source: ActivationStore, plan: ExchangePlan
) -> TaskEngine:
    if engine == "local" and workers is None and source.nbytes < SMALL:
        return HereEngine()
    return engine_of(engine, plan.workers)


@dataclass
class _PointShuffle:
    """The shuffle of one point."""

    source: ActivationStore
    rows: PointRows
    directory: Path
    between: Path
    seed: int
    plan: ExchangePlan
    address: StoreAddress | None = None
    seen: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    done: int = 0

    def run(self, engine: TaskEngine, retries: int, progress: Callable[[str], None]) -> None:
        stem = making.stem_of(self.rows.point)
        final = StoreJournal(self.directory / f"{stem}.jsonl")
        if any("end" in line for line in final.read()):
            return
        state = StoreJournal(self.between / f"{stem}.jsonl")
        lines = state.read()
        state.cut(state.size)
        disk_room.require(
            self.directory,
            self.needed(),
            f"Shuffling {self.rows.point} takes",
            "Make room, or give a directory on another disk.",
        )
        if not lines:
            state.append({"plan": asdict(self.plan)})
        progress(str(self.plan))
        place = ExchangePlace(
            self._own_directory(), engine, state, retries, lambda line: self._told(line, progress)
        )
        layout, counts = self.rows.layout, self._pile_rows()
        ranks = np.cumsum(np.concatenate(counts))[:-1]
        leaves = exchange(
            list(self._tasks()),
            SeedKey(self.seed),
            layout=layout,
            bounds=keys.bounds_of(self.rows.rows, self.seed, ranks),
            leaves=[len(piles) for piles in counts],
            branches=self.plan.branches,
            partitions=self.plan.partitions,
            chunk_rows=self.plan.chunk_rows,
            place=place,
        )
        self._check_source()
        finished = {line["number"]: line for line in state.read() if "number" in line}
        there = files_in(self.address or self.directory)
        wanted = [
            self._finish_task(number, piles, int(sum(counts[number])))
            for number, piles in enumerate(leaves)
            if number not in finished or self._path(number).name not in there
        ]
        for line in engine.map(finish, wanted, retries):
            state.append(line)
            finished[line["number"]] = line
            self._told(line, progress)
        self._conclude(final, [finished[number] for number in range(len(leaves))])
        shutil.rmtree(self._own_directory())

    def _own_directory(self) -> Path:
        own = self.between / making.stem_of(self.rows.point)
        own.mkdir(exist_ok=True)
        return own

    def _tasks(self) -> Iterator[StoreRows | PileRows]:
        facts = self.source.facts["points"][self.rows.point]
        directory = str(self.source.path.absolute())
        for number, group in enumerate(self.rows.groups):
            pieces = -(-group.rows // self.plan.chunk_rows)
            edges = [group.rows * n // pieces for n in range(pieces + 1)]
            for first, stop in itertools.pairwise(edges):
                yield StoreRows(directory, self.rows.point, facts, number, first, stop - first)

    def _pile_rows(self) -> list[np.ndarray]:
        """Rows of each pile of each file: all known beforehand, as the keys of all rows are."""
        found = []
        for first in range(0, self.rows.rows, self.plan.file_rows):
            left = min(self.plan.file_rows, self.rows.rows - first)
            edges = np.minimum(np.arange(0, left + self.plan.pile_rows, self.plan.pile_rows), left)
            found.append(np.diff(edges))
        return found

    def _about(self) -> dict[str, Any]:
        order = {"seed": self.seed}
        return {"point": self.rows.point, "columns": [0, self.rows.units], "order": order}

    def _path(self, number: int) -> Path:
        return self.directory / f"{making.stem_of(self.rows.point)}-{number:05d}.safetensors"

    def _finish_task(self, number: int, piles: Sequence[Any], rows: int) -> FinishTask:
        path = self._path(number)
        told = {**self._about(), "file": path.name}
        return FinishTask(
            tuple(piles),
            SeedKey(self.seed),
            self.rows.layout,
            rows,
            str(path),
            told,
            number,
            "" if self.address is None else str(self.address / path.name),
        )

    def needed(self) -> int:
        """Bytes of disk that it takes beside those that it has."""
        mine = self.directory.glob(f"{making.stem_of(self.rows.point)}-*.safetensors")
        there = sum(path.stat().st_size for path in (*mine, *self._own_directory().iterdir()))
        plan = self.plan
        if self.address is None:
            return max(0, plan.room - there)
        at_once = plan.workers * plan.file_rows * plan.row_bytes  # on their way to the address
        return max(0, plan.between * min(2, plan.partitions) + at_once - there)

    def _told(self, line: Mapping[str, Any], progress: Callable[[str], None]) -> None:
        told = line.get("told") or {}
        if "group" in told:
            self.seen.setdefault(told["group"], []).append(dict(told))
        self.done += 1
        total = self.plan.tasks + self.plan.files
        progress(f"{self.rows.point}: {min(self.done, total):,} of about {total:,} tasks")

    def _check_source(self) -> None:
        """Hold what was read of the source against its checksums.

        Raises:
            BadData: a file of it was damaged; names it. Nothing was made of it.
        """
        try:
            self.rows.check([told for seen in self.seen.values() for told in seen])
        except BadData:
            shutil.rmtree(self.between)
            raise

    def _conclude(self, final: StoreJournal, lines: Sequence[Mapping[str, Any]]) -> None:
        final.remove()
        first = 0
        told: list[dict[str, Any]] = [{"writer": self._about()}]
        for line in lines:
            path = self._path(line["number"])
            runs, sums = [(first, line["rows"])], list(line["sums"].items())
            told.append(
                {**sealed_line(path.name, line["rows"], runs, sums), "lost": self.rows.lost}
            )
            first += line["rows"]
        final.append(*told, {"end": first})
