"""The cells of a sweep, cut into requests, and what came of each.

A request has as many cells as its tokens allow, with the runs that they are of beside them. Between two requests others take
their turn, and nothing stays on the server: so a sweep that is interrupted leaves nothing behind, and goes on with other clients
of the server as any number of forwards would.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.grid import CellLayout, GridCell
from garcon_jupyter.experiments.activation_patching.measures import Measure
from garcon_jupyter.experiments.activation_patching.pairs import Pairs, Side
from garcon_jupyter.wire import requests as wire

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


SOURCES, ITS_TEXT, ROW_BEFORE = -1, -2, -3
"""Whose values a place is given: those of the sources of its pair, of the text that is patched, or of the row before."""

Patch = tuple[str, int, tuple[int, ...]]
"""A point, whose values, and the place."""

Rows = Callable[[CellLayout, GridCell], list[list[Patch]]]
"""The rows of a batch that a cell takes, each with its patches; the metric is that of the last. None where there is no such cell."""


def one_row(grid: CellLayout, cell: GridCell) -> list[list[Patch]]:
    """A cell whose places are given the values of its sources, in a row."""
    return [[(grid.names[point], SOURCES, place) for point, place in cell.places]]


@dataclass(frozen=True)
class CellOfPair:
    """A cell, and the pair whose run it is patched in."""

    pair: int
    cell: GridCell


@dataclass(frozen=True)
class Measured:
    """What came of a cell.

    Attributes:
        metric: of the patched run.
        ends: the metric of the corrupted and of the clean run.
    """

    where: CellOfPair
    metric: float
    ends: tuple[float, float]

    @property
    def share(self) -> float:
        """0 where the metric is that of the corrupted run, 1 where it is that of the clean one."""
        low, high = self.ends
        return (self.metric - low) / (high - low)


@dataclass
class CellRequests:
    """Cells of pairs, as requests.

    Attributes:
        pairs, grid: what they are of.
        denoise: whether the corrupted runs are patched; else the clean ones.
        sources: of each pair, the runs whose values its patched run is given.
        measure: what is measured of each run.
        rows: what rows a cell takes.
        ends: of each pair that was run, the metric of the corrupted and of the clean run.
        skipped: cells that were not run, as they change nothing.
        whole: why cells were run from the first layer on; "" where each began at its own.
    """

    rmodel: Client
    pairs: Pairs
    grid: CellLayout
    denoise: bool
    sources: Sequence[Sequence[Side]]
    measure: Measure
    exact: bool = False
    seed: int = 0
    rows: Rows = one_row
    ends: dict[int, tuple[float, float]] = field(default_factory=dict)
    skipped: int = 0
    whole: str = ""

    def cells(self) -> list[CellOfPair]:
        """All cells, those together that can share a request: pairs of one length, then layer by layer."""
        lengths = self.pairs.lengths
        order = sorted(range(len(self.pairs)), key=lambda pair: lengths[pair])
        return [
            CellOfPair(pair, cell)
            for pair in order
            for cell in sorted(self.grid.cells(lengths[pair]), key=lambda cell: cell.layer)
            if self.rows(self.grid, cell)
        ]

    def run(self, most: Callable[[int], int]) -> Iterator[list[Measured]]:
        """Run all cells; what came of each request.

        Args:
            most: how many rows of so many tokens the next request may have.

        Raises:
            BadRequest: clean and corrupted run have the same metric, or it is no number.
        """
        todo = self.cells()
        while todo:
            length = self.pairs.lengths[todo[0].pair]
            part = self.first(todo, most(length))
            todo = todo[len(part) :]
            yield self.measured(part)

    def first(self, todo: Sequence[CellOfPair], most: int) -> list[CellOfPair]:
        """The cells of the next request: of one length, and one at least; those that cost nothing fit always."""
        lengths, runs, rows = self.pairs.lengths, set[Side](), 0
        part: list[CellOfPair] = []
        for one in todo:
            more, needed = self._rows_of(one), runs | self._runs_of(one)
            other = lengths[one.pair] != lengths[todo[0].pair]
            free = not more and needed == runs
            if part and (other or (not free and rows + more + len(needed) > most)):
                break
            part.append(one)
            runs, rows = needed, rows + more
        return part

    def size(self, part: Sequence[CellOfPair]) -> int:
        """How many rows the request for some cells has: theirs, and the runs that they are of."""
        runs = set[Side]().union(*map(self._runs_of, part))
        return len(runs) + sum(map(self._rows_of, part))

    def _rows_of(self, one: CellOfPair) -> int:
        return 0 if self._changes_nothing(one) else len(self.rows(self.grid, one.cell))

    def _runs_of(self, one: CellOfPair) -> set[Side]:
        return {(one.pair, True), (one.pair, False), *self.sources[one.pair]}

    def _changes_nothing(self, one: CellOfPair) -> bool:
        """Whether a cell has no places, or lies before all that differs, where a model that looks back has computed the same."""
        if not one.cell.places:
            return True
        position = one.cell.position
        if (
            position is None or not self.rmodel.catalog.mapped
        ):  # of others it is not known that they look back only
            return False
        run = (one.pair, not self.denoise)
        return position < self.pairs.first_difference(run, self.sources[one.pair])

    def measured(self, part: Sequence[CellOfPair]) -> list[Measured]:
        """Run some cells of one length in a request; what came of each.

        Raises:
            BadRequest: as :meth:`run`.
        """
        run = [one for one in part if not self._changes_nothing(one)]
        self.skipped += len(part) - len(run)
        sides, request = self._request([one.pair for one in part], run)
        answer: wire.PatchedMetrics = self.rmodel._run(request)
        self.whole = self.whole or answer.whole
        metrics = dict(zip(sides, answer.texts.tolist(), strict=True))
        for pair in {one.pair for one in part}:
            self._note_ends(pair, metrics[pair, False], metrics[pair, True])
        last = [len(self.rows(self.grid, one.cell)) for one in run]
        ends = [end - 1 for end in itertools.accumulate(last)]
        values = iter(answer.cells[ends].tolist())
        return [
            Measured(
                one,
                metrics[one.pair, not self.denoise] if self._changes_nothing(one) else next(values),
                self.ends[one.pair],
            )
            for one in part
        ]

    def _note_ends(self, pair: int, low: float, high: float) -> None:
        if low == high or low != low or high != high:
            told = "" if len(self.pairs) == 1 else f" of pair {pair}"
            both = (
                f"{low:.4g} on both texts"
                if low == high
                else f"{low:.4g} and {high:.4g} on the texts"
            )
            raise BadRequest(
                f"The metric is {both}{told}: there is nothing to restore.",
                "Choose other answers, or texts that the model answers differently.",
            )
        self.ends[pair] = low, high

    def _request(
        self, pairs: Sequence[int], cells: Sequence[CellOfPair]
    ) -> tuple[list[Side], wire.Patch]:
        """The request for some cells, and the runs that it has, in order."""
        import torch

        needed: dict[Side, None] = {}
        for pair in pairs:
            needed |= dict.fromkeys([(pair, True), (pair, False), *self.sources[pair]])
        sides = list(needed)
        number = {side: index for index, side in enumerate(sides)}
        texts: list[int] = []
        points: dict[str, int] = {}
        patches: list[tuple[int, ...]] = []
        for one in cells:
            text = number[one.pair, not self.denoise]
            for row in self.rows(self.grid, one.cell):
                whose = {SOURCES: SOURCES, ITS_TEXT: text, ROW_BEFORE: len(sides) + len(texts) - 1}
                for point, source, place in row:
                    at = points.setdefault(point, len(points))
                    patches.append((len(texts), at, whose[source], *place))
                texts.append(text)
        answers = self.measure.answers
        return sides, wire.Patch(
            texts=torch.tensor([self.pairs.tokens(side) for side in sides]),
            sources=tuple(self._sources_of(side, number) for side in sides),
            cells=tuple(texts),
            points=tuple(points),
            patches=torch.tensor(patches) if patches else None,
            answers=None if answers is None else torch.tensor([answers[pair] for pair, _ in sides]),
            metric=self.measure.code,
            exact=self.exact,
            seed=self.seed,
            adapter=self.rmodel.adapter,
        )

    def _sources_of(self, side: Side, number: dict[Side, int]) -> tuple[int, ...]:
        pair, clean = side
        if clean == self.denoise:  # nothing is patched in it
            return (number[side],)
        return tuple(number[source] for source in self.sources[pair])
