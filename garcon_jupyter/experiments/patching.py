"""The sweep of a picture that fills: every cell of layer × position, or of layer × head, patched once.

A script has :mod:`garcon_jupyter.experiments.activation_patching`, by whose requests this is run, and which takes more axes. Here they are
small: as many cells as the model does in a moment, so that the picture fills from the first layer on, others wait no longer than that, and
an interrupt ends it between two of them. Nothing is kept on the server.

    sweep = Sweep.of(rmodel, clean, corrupted)
    dict(sweep.run(["layers.0.resid_pre", "layers.1.resid_pre"]))     # point to [cell], 0 as corrupted, 1 as clean
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.connection.background import Pace
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.grid import ALL, GridCell
from garcon_jupyter.experiments.activation_patching.measures import Measure, Metric
from garcon_jupyter.experiments.activation_patching.pairs import Pairs
from garcon_jupyter.experiments.activation_patching.requests import CellRequests
from garcon_jupyter.experiments.clean_passes import contexts, one_text

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.result import Label

TOKENS = 4096
"""Tokens of one request of a sweep at most: what bounds its memory on the server."""

FIRST_TOKENS = 256
"""Tokens of the first one, before it is known how long that takes."""

Cell = tuple[str, int]
"""A point, and one of its cells."""

POINTS = ("layers.*.resid_pre", "layers.*.attn.z")


@dataclass
class Sweep:
    """A clean and a corrupted text, and how near a patched run comes to the clean one.

    Attributes:
        clean, corrupted: texts of equally many tokens.
        pairs: the same, as they are patched.
        measure: of the logits; by default the logit of the clean answer less that of the corrupted.
        extremes: the metric of the corrupted and of the clean run: 0 and 1 of the picture.
    """

    rmodel: Client
    clean: Tokens
    corrupted: Tokens
    pairs: Pairs
    measure: Measure
    extremes: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        first, most = (max(1, tokens // self.clean.shape[1]) for tokens in (FIRST_TOKENS, TOKENS))
        self._pace = Pace(first, most)

    @classmethod
    def of(
        cls,
        rmodel: Client,
        clean: Any,
        corrupted: Any,
        answers: tuple[Any, Any] | None = None,
        metric: Metric | None = None,
    ) -> Sweep:
        """A sweep with its two ends measured.

        Args:
            clean, corrupted: texts of equally many tokens.
            answers: a token (its text or id) for the clean and one for the corrupted text; by default
                what the model itself predicts after each.
            metric: logits [row, p, V] to [row], instead of the difference of the answers' logits.

        Raises:
            BadRequest: unequal lengths; an answer of several tokens; both texts give the same number.
        """
        first, second = one_text(rmodel, clean), one_text(rmodel, corrupted)
        pairs = Pairs.of(rmodel, first, second)
        sweep = cls(rmodel, first, second, pairs, Measure.of(rmodel, pairs, answers, metric))
        both = [pairs.clean[0], pairs.corrupted[0]]
        measured = sweep.measure.of_rows([0, 0])
        high, low = rmodel.forward(both, probes=[], logits=lambda logits: measured(logits).tolist())
        if low == high:
            raise BadRequest(
                f"The metric is {low:.4g} on both texts: there is nothing to restore.",
                "Choose other answers, or texts that the model answers differently.",
            )
        sweep.extremes = float(low), float(high)
        return sweep

    @property
    def answers(self) -> tuple[int, int] | None:
        """The two token ids of the default metric."""
        return None if self.measure.answers is None else self.measure.answers[0]

    def run(self, points: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """The sweep over the cells of each point: (point, [cell]), 0 as corrupted and 1 as clean.

        Cells are the heads of a point that has heads, else the positions.
        """
        import torch

        found: dict[str, list[float]] = {point: [] for point in points}
        for piece in self.pieces(points):
            for (point, _), value in piece:
                found[point].append(value)
                if len(found[point]) == self.cells(point):
                    yield point, torch.tensor(found[point])

    def pieces(self, points: Sequence[str]) -> Iterator[list[tuple[Cell, float]]]:
        """As :meth:`run`, as many cells at a time as the model does in a moment, layer by layer."""
        requests = CellRequests(
            self.rmodel, self.pairs, _Cells(self, points), True, [[(0, True)]], self.measure
        )
        todo = requests.cells()
        while todo:
            part = requests.first(todo, self._pace.size)
            todo = todo[len(part) :]
            with self._pace.piece(requests.size(part)):  # of what costs nothing no time is told
                found = requests.measured(part)
            yield [
                ((points[one.where.cell.at[0]], one.where.cell.at[1]), one.share) for one in found
            ]

    def cell(self, point: str, number: int) -> tuple[float, list[tuple[int, float, float]]]:
        """One cell run again: its value, and the last position's likeliest tokens.

        Returns:
            (value, [(token id, probability with the patch, probability without), …]).
        """
        rmodel, metric = self.rmodel, self.measure.of_rows([0, 0, 0])
        place = self.place(point, number)

        def told(logits: Any) -> Any:
            patched = logits[[1, 2], -1].float().softmax(-1)
            best = patched[0].topk(8)
            return metric(logits)[1].item(), best.indices.cpu(), patched[:, best.indices].cpu()

        clean, corrupted = self.pairs.clean[0], self.pairs.corrupted[0]
        with contexts(rmodel, "patch") as name:
            probe = rmodel.probe_points[point].probe(_patch(place), name=name)
            value, ids, chances = rmodel.forward(
                [clean, corrupted, corrupted], probes=[probe], logits=told
            )
        low, high = self.extremes
        share = (float(value) - low) / (high - low)
        return share, list(zip(ids.tolist(), *chances.tolist(), strict=True))

    def cells(self, point: str) -> int:
        """How many cells a point has."""
        shape = self.rmodel.catalog.shape(self.rmodel.catalog.point(point))
        return int(shape[2]) if self.by_head(point) else self.clean.shape[1]

    def by_head(self, point: str) -> bool:
        """Whether a point's cells are its heads."""
        spec = self.rmodel.catalog.point(point).spec
        dims = spec.dims if spec else ()
        return len(dims) > 2 and dims[2] in ("H", "K")

    def place(self, point: str, number: int) -> tuple[int, ...]:
        """Where a cell is in a row's value: a head everywhere, or a position."""
        return (ALL, number, ALL) if self.by_head(point) else (number, ALL, ALL)


@dataclass(frozen=True)
class _Cells:
    """The cells of some points, as they are requested."""

    sweep: Sweep
    points: Sequence[str]

    @property
    def patterns(self) -> tuple[str, ...]:
        return tuple(self.points)

    @property
    def names(self) -> list[str]:
        return list(self.points)

    @property
    def axes(self) -> dict[str, tuple[Label, ...]]:
        return {"point": self.patterns, "cell": ()}

    def cells(self, length: int) -> Iterator[GridCell]:
        for at, point in enumerate(self.points):
            layer = self.sweep.rmodel.catalog.point(point).layer or 0
            heads = self.sweep.by_head(point)
            for number in range(self.sweep.cells(point)):
                places = ((at, self.sweep.place(point, number)),)
                yield GridCell((at, number), places, layer, None if heads else number)


def _patch(place: tuple[int, ...]) -> Callable[[Any, Any], None]:
    """A probe that gives row 1 a cell of row 0, the clean run."""

    def patch(save_ctx: Any, tensor: Any) -> None:
        index = tuple(slice(None) if at < 0 else at for at in place)[: tensor.dim() - 1]
        tensor[(1, *index)] = tensor[(0, *index)].clone()

    return patch
