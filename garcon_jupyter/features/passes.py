"""The passes over data and units, each gone on with where it was."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.activation_stores import journal
from garcon_jupyter.activation_stores.journal import StoreJournal
from garcon_jupyter.amounts import sized
from garcon_jupyter.atlas.writing import Writer
from garcon_jupyter.exchanges import disk_room
from garcon_jupyter.exchanges.engines import TaskEngine, engine_of
from garcon_jupyter.exchanges.engines.local import HereEngine
from garcon_jupyter.exchanges.exchange import ExchangePlace, Parts, exchange
from garcon_jupyter.features import jobs, widths
from garcon_jupyter.features.arrays import WindowsOfUnits, write_units
from garcon_jupyter.features.asked import FeaturesAsked
from garcon_jupyter.features.codes import TILE, Codes
from garcon_jupyter.features.contexts import windows
from garcon_jupyter.features.jobs import ContextRows, MergeRows, ReduceRows, WriteJob
from garcon_jupyter.features.planning import FeaturesPlan, planned
from garcon_jupyter.features.reducing import BITS, HIGH, LOW, Merging
from garcon_jupyter.features.rows import LAYOUT, PlaceKey, UnitKey, window_layout
from garcon_jupyter.features.source import CodesHeld, CodesOfShards, DataShard

PLAN = "plan.json"
"""The plan, in the directory for files between passes."""

Told = Callable[[str], None]


@dataclass
class FeaturePasses:
    """The passes."""

    asked: FeaturesAsked
    directory: Path
    between: Path
    retries: int
    progress: Told

    def run(
        self,
        memory: int,
        engine: str | TaskEngine,
        workers: int | None,
        given: FeaturesPlan | None,
        vocabulary: Sequence[str],
    ) -> None:
        """All of it."""
        known = self._look(memory)
        units = int(known.get("latents", self.asked.rows.units))
        self.sizes = self.asked.sizes(units)
        self.plan = plan = self._planned(memory, workers, given, known)
        self.progress(str(plan))
        shards = self._shards()
        self.tokens = jobs.counted(shards, self.asked.without)
        files = Writer(self.directory, {self._point: units})
        for what, (dtype, shape) in self.sizes.arrays.items():
            files.reserve(what, dtype, shape)
        room = self._room_of_weights(known)
        if plan.passes == 1:
            self._in_one_pass(shards[0], room)
        else:
            runner = engine_of(engine, plan.workers) if plan.workers > 1 else None
            runner = runner or (HereEngine() if engine == "local" else engine_of(engine, 1))
            try:
                self._in_four(runner, shards, room)
            finally:
                if isinstance(engine, str):
                    runner.close()
        files.finish(list(vocabulary), self._facts(known))

    def _room_of_weights(self, known: Mapping[str, Any]) -> int:
        """Bytes for the weights of a dictionary: of all of it, or of one of the parts in which it is held."""
        if not known:
            return 0
        tiles = -(-self.sizes.units // 256)
        latents = min(self.sizes.units, -(-tiles // self.plan.encoder_parts) * 256)
        return latents * int(known["weights"]) // self.sizes.units

    # -- before ----------------------------------------------------------------------------------

    def _look(self, memory: int) -> dict[str, Any]:
        """What the dictionary is, found at one tile in the middle of the data."""
        if self.asked.dictionary is None:
            return {}
        path = self.between / "look.json"
        if path.exists():
            return journal.get(path)
        tile = -(-self.asked.rows.rows // TILE) // 2
        shard = self._shard(0, tile, tile + 1)
        found = jobs.look(jobs.LookJob(self.asked.dictionary, memory, shard))
        if found["reads"] and found["reads"] != [self.asked.rows.point]:
            self.progress(
                f"The dictionary's files say that it reads {found['reads'][0]}; the store has {self.asked.rows.point}."
            )
        journal.put(path, found)
        return found

    def _planned(
        self,
        memory: int,
        workers: int | None,
        given: FeaturesPlan | None,
        known: Mapping[str, Any],
    ) -> FeaturesPlan:
        """The plan: that with which it was begun, where it was."""
        path = self.between / PLAN
        if path.exists():
            begun = FeaturesPlan(**journal.get(path))
            self._check_room(begun)
            return begun if workers is None else replace(begun, workers=workers)
        rows = self.asked.rows
        plan = given or planned(
            rows.rows,
            rows.layout.row_bytes,
            self.sizes.units,
            self.sizes,
            memory,
            workers,
            float(known.get("codes", 0)) if known else 0.0,
            int(known.get("weights", 0)),
            int(known.get("d_in", 0)),
        )
        self._check_room(plan)
        journal.put(path, asdict(plan))
        return plan

    @property
    def _point(self) -> str:
        """What the atlas calls the units' point."""
        host = self.asked.rows.point
        return f"{host}.sae.{self.asked.name}.latents" if self.asked.name else host

    def _check_room(self, plan: FeaturesPlan) -> None:
        result = sized(self.sizes.units * self.sizes.unit_bytes)
        disk_room.require(
            self.directory,
            self._unwritten(plan),
            f"Features, {result} of them the result, take up to",
            "Make room, or keep fewer: k=, sample=, before=, after=.",
        )

    def needed(self) -> int:
        """Bytes of disk that it takes beside those that it has, at most; 0 before there is a plan."""
        path = self.between / PLAN
        return self._unwritten(FeaturesPlan(**journal.get(path))) if path.exists() else 0

    def _unwritten(self, plan: FeaturesPlan) -> int:
        """Bytes that are still to be written, at most: what passes wrote that is of no more use is gone, and is not written again."""
        files = [path for path in self.directory.rglob("*") if path.is_file()]
        there = sum(path.stat().st_blocks * 512 for path in files if path.suffix != ".piles")
        for number in (1, 2, 3):
            lines = StoreJournal(self.between / f"{number}.jsonl").read()
            there += sum(line.get("bytes", 0) for line in lines)
        return max(0, plan.written - there)

    def _shard(self, number: int, first: int, stop: int) -> DataShard:
        source, rows = self.asked.source, self.asked.rows
        facts = source.facts["points"][rows.point]
        where = str(source.path.absolute())
        return DataShard(where, rows.point, facts, number, first, stop, rows.rows)

    def _shards(self) -> list[DataShard]:
        count, tiles = self.plan.data_shards, self.plan.tiles
        cuts = [tiles * n // count for n in range(count + 1)]
        return [self._shard(n, cuts[n], cuts[n + 1]) for n in range(count)]

    # -- one pass --------------------------------------------------------------------------------

    def _in_one_pass(self, shard: DataShard, memory: int) -> None:
        asked, sizes = self.asked, self.sizes
        codes: CodesHeld | None = None
        told: list[dict[str, Any]] = []
        if asked.dictionary is not None:
            held: dict[int, list[Codes]] = {}
            for tile, row, unit, value in jobs.walked(asked.dictionary, memory, shard, told):
                held.setdefault(tile, []).append(Codes(row + tile * TILE, unit, value))
            codes = CodesHeld(held)
        job = ReduceRows(shard, codes, 0, 0, sizes.units, sizes, asked.without)
        found, read = jobs.reduced(job)
        self.asked.rows.check(read if codes is None else told)
        merging = Merging(0, sizes.units, sizes.k, sizes.sample, widths.KEPT, sizes.seed)
        merging.take(found)
        wanted = write_units(self.directory, merging, sizes, self.tokens)
        into = WindowsOfUnits(sizes, 0, sizes.units)
        for which, tokens, values in windows(wanted, shard, codes, sizes.before, sizes.after):
            into.take(wanted.take(which), tokens, values)
        into.write(self.directory)

    # -- four passes -----------------------------------------------------------------------------

    def _in_four(self, engine: TaskEngine, shards: list[DataShard], memory: int) -> None:
        plan, sizes = self.plan, self.sizes
        cuts, groups = plan.edges(plan.feature_shards), plan.edges(plan.groups)
        codes = self._encoded(engine, shards, cuts, memory)
        reductions = [
            ReduceRows(shard, codes, n, cuts[n], cuts[n + 1], sizes, self.asked.without)
            for shard in shards
            for n in range(plan.feature_shards)
        ]
        merged = self._exchanged(1, engine, reductions, UnitKey(), LAYOUT, groups[1:-1])
        if codes is None:
            self._check_read("1")
        merges = [
            MergeRows(
                parts, str(self.directory), groups[n], groups[n + 1] - groups[n], sizes, self.tokens
            )
            for n, parts in enumerate(merged)
        ]
        firsts = [int(shard.table(range(shard.first, shard.first + 1))[0][0]) for shard in shards]
        sought = self._exchanged(2, engine, merges, PlaceKey(), LAYOUT, firsts[1:])
        contexts = [
            ContextRows(parts, shard, codes, sizes)
            for parts, shard in zip(sought, shards, strict=True)
        ]
        layout = window_layout(sizes.window)
        gathered = self._exchanged(3, engine, contexts, UnitKey(), layout, groups[1:-1])
        writes = [
            WriteJob(n, parts, str(self.directory), groups[n], groups[n + 1] - groups[n], sizes)
            for n, parts in enumerate(gathered)
        ]
        self._mapped("pass 4", "write", jobs.write, writes, engine)

    def _encoded(
        self, engine: TaskEngine, shards: list[DataShard], cuts: tuple[int, ...], memory: int
    ) -> CodesOfShards | None:
        if self.asked.dictionary is None:
            return None
        where = self.between / "codes"
        where.mkdir(exist_ok=True)
        codes = CodesOfShards(str(where), tuple(shard.stop for shard in shards))
        wanted = [
            jobs.EncodeJob(self.asked.dictionary, memory, shard, codes, cuts) for shard in shards
        ]
        numbered = [_Numbered(job.shard.number, job) for job in wanted]
        lines = self._mapped("latents", "encode", _encode_numbered, numbered, engine)
        self.asked.rows.check([told for line in lines for told in line["read"]])
        return codes

    def _check_read(self, name: str) -> None:
        lines = StoreJournal(self.between / f"{name}.jsonl").read()
        told = [t for line in lines for t in (line.get("told") or {}).get("read", ())]
        self.asked.rows.check(told)

    def _exchanged(
        self,
        number: int,
        engine: TaskEngine,
        tasks: Sequence[Any],
        key: Any,
        layout: Any,
        bounds: Sequence[int],
    ) -> list[Parts]:
        """A pass whose rows go to others."""
        own = self.between / str(number)
        own.mkdir(exist_ok=True)
        state = StoreJournal(self.between / f"{number}.jsonl")
        state.cut(state.size)
        done = [0]

        def told(line: Mapping[str, Any]) -> None:
            done[0] += 1
            self.progress(f"pass {number} of 4: {done[0]:,} of {len(tasks):,} tasks")

        leaves = exchange(
            tasks,
            key,
            layout=layout,
            bounds=np.asarray(bounds, np.uint64),
            leaves=[1] * (len(bounds) + 1),
            branches=len(bounds) + 1,
            partitions=1,
            chunk_rows=1,
            place=ExchangePlace(own, engine, state, self.retries, told),
        )
        if number > 1:  # what the pass before wrote is of no more use
            shutil.rmtree(self.between / str(number - 1), ignore_errors=True)
        return [parts for leaf in leaves for parts in leaf]

    def _mapped(
        self,
        what: str,
        name: str,
        function: Callable[[Any], dict[str, Any]],
        items: Sequence[Any],
        engine: TaskEngine,
    ) -> list[dict[str, Any]]:
        """What a function tells of each item; of those that were done before what it told then."""
        state = StoreJournal(self.between / f"{name}.jsonl")
        state.cut(state.size)
        done = {line["number"]: line for line in state.read()}
        wanted = [item for item in items if item.number not in done]
        for line in engine.map(function, wanted, self.retries):
            state.append(line)
            done[line["number"]] = line
            self.progress(f"{what}: {len(done):,} of {len(items):,} tasks")
        return [done[item.number] for item in items]

    def _facts(self, known: Mapping[str, Any]) -> dict[str, Any]:
        asked, sizes = self.asked, self.sizes
        documents = sorted({int(self._last_place() >> 32) + 1})
        edges = histogram_edges()
        about = asked.source.facts.get("about", {})
        return {
            "model": about.get("model", {}).get("path", ""),
            "tokens": self.tokens,
            "documents": documents[0],
            "parts": [[0, documents[0]]],
            "k": sizes.k,
            "before": sizes.before,
            "after": sizes.after,
            "without": [*(["first"] if asked.without.first else []), *asked.without.ids],
            "intervals": 10 if sizes.sample >= 10 else 1,
            "wide_intervals": widths.INTERVALS,
            "sample_of": "tokens above zero",
            "sums": 0,
            "edges": edges,
            "asked": asked.said,
        } | ({"dictionary": asked.dictionary} if asked.dictionary else {})

    def _last_place(self) -> int:
        rows = self.asked.rows
        return int(rows.read(rows.rows - 1, 1, ("place",))["place"][0])


@dataclass(frozen=True)
class _Numbered:
    """An item with its number."""

    number: int
    job: Any


def _encode_numbered(item: _Numbered) -> dict[str, Any]:
    return jobs.encode(item.job)


def histogram_edges() -> list[str]:
    """The edges of the bins, as an atlas has them."""
    number = np.arange(((HIGH - LOW) << BITS) + 1)
    octave = number >> BITS
    side = np.ldexp(1 + number / 2**BITS - octave, LOW + octave)
    return [str(edge) for edge in [-np.inf, *-side[::-1], *side, np.inf]]
