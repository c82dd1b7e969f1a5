"""The sweep of a picture that fills: every cell of layer × position, or of layer × head, run once.

A script has :mod:`garcon_jupyter.experiments.activation_patching`, which is several times as quick and takes more axes.

The corrupted text stands in a batch once for each cell, and each row is given its own cell of the clean
recording, which never leaves the server. Cells of several layers share a forward (each layer's probe
changes its own rows), so a sweep costs far fewer passes than it has cells, and the picture fills from the
first layer on. How many share one is measured: a forward takes a moment, so that others wait no longer.

    sweep = Sweep.of(rmodel, clean, corrupted)
    dict(sweep.run(["layers.0.resid_pre", "layers.1.resid_pre"]))     # point to [cell], 0 as corrupted, 1 as clean
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.recordings import Recording
from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.connection.background import Pace
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import (
    contexts,
    keep,
    one_text,
)
from garcon_jupyter.experiments.target_tokens import one_token_each

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Metric = Callable[[Any], Any]
"""logits [cell, p, V] to one number for each cell, [cell]; runs on the server."""

TOKENS = 4096
"""Tokens of one forward of a sweep at most: what bounds its logits on the server."""

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
        metric: of the logits; by default the logit of the clean answer less that of the corrupted.
        answers: the two token ids of the default metric.
        extremes: the metric of the corrupted and of the clean run: 0 and 1 of the picture.
    """

    rmodel: Client
    clean: Tokens
    corrupted: Tokens
    metric: Metric
    answers: tuple[int, int] | None = None
    extremes: tuple[float, float] = (0.0, 1.0)
    _recordings: dict[str, Recording] = field(default_factory=dict)

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
            metric: logits [cell, p, V] to [cell], instead of the difference of the answers' logits.

        Raises:
            BadRequest: unequal lengths; an answer of several tokens; both texts give the same number.
        """
        first, second = one_text(rmodel, clean), one_text(rmodel, corrupted)
        if first.shape != second.shape:
            raise BadRequest(
                f"The texts have {first.shape[1]} and {second.shape[1]} tokens.",
                "Patching needs equally many, so that positions correspond.",
            )
        chosen: tuple[int, int] | None = None
        if metric is None:
            chosen = _answers(rmodel, first, second, answers)
            metric = _difference(*chosen)
        sweep = cls(rmodel, first, second, metric, chosen)
        low, high = (
            float(rmodel.forward(tokens, probes=[], logits=metric)[0]) for tokens in (second, first)
        )
        if low == high:
            raise BadRequest(
                f"The metric is {low:.4g} on both texts: there is nothing to restore.",
                "Choose other answers, or texts that the model answers differently.",
            )
        sweep.extremes = low, high
        return sweep

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
        """As :meth:`run`, as many cells at a time as the model does in a moment, in order."""
        cells = [(point, number) for point in points for number in range(self.cells(point))]
        low, high = self.extremes
        while cells:
            part, cells = cells[: self._pace.size], cells[self._pace.size :]
            with self._pace.piece(len(part)):
                values = (self._run(points, part, self.metric).float() - low) / (high - low)
            yield list(zip(part, values.tolist(), strict=True))

    def cell(self, point: str, number: int) -> tuple[float, list[tuple[int, float, float]]]:
        """One cell run again: its value, and the last position's likeliest tokens.

        Returns:
            (value, [(token id, probability with the patch, probability without), …]).
        """
        metric = self.metric

        def told(logits: Any) -> Any:
            last = logits[:, -1].float().softmax(-1)
            best = last[0].topk(8)
            return metric(logits)[0], best.indices.cpu(), last[:, best.indices].cpu()

        # Row 0 is patched; row 1, which has no cell, is the corrupted text as it is.
        value, ids, chances = self._run([point], [(point, number)], told, unpatched=1)
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

    def _run(
        self,
        points: Sequence[str],
        cells: Sequence[Cell],
        logits: Callable[[Any], Any],
        unpatched: int = 0,
    ) -> Any:
        """A forward in which row i has cell i of the clean run, and the last rows have none."""
        rmodel = self.rmodel
        clean = self._clean(points)
        with contexts(rmodel, "patch") as name:
            probes = [
                rmodel.probe_points[point].probe(
                    _patch([(row, at) for row, (of, at) in enumerate(cells) if of == point], heads),
                    name=name,
                    source=clean[point],
                )
                for point, heads in {of: self.by_head(of) for of, _ in cells}.items()
            ]
            batch = self.corrupted.ids.repeat(len(cells) + unpatched, 1)
            return rmodel.forward(batch, probes=probes, logits=logits)

    def _clean(self, points: Sequence[str]) -> Mapping[str, Recording]:
        """The clean run's recordings of points, all that are missing made in one forward."""
        missing = [point for point in points if point not in self._recordings]
        if missing:
            with contexts(self.rmodel, "clean") as name:
                made = self.rmodel.probe_points
                probes = [made[p].probe(keep, name=name, read_only=True) for p in missing]
                self.rmodel.forward(self.clean, probes=probes, logits="none")
                recordings = self.rmodel.recordings(fetch=False)
                self._recordings |= {point: recordings[point, name] for point in missing}
        return self._recordings


def _patch(rows: list[tuple[int, int]], heads: bool) -> Callable[[Any, Any], None]:
    """A probe that gives each row its own cell of the source: a head everywhere, or a position."""

    def patch(save_ctx: Any, tensor: Any) -> None:
        clean = save_ctx.source.tensor[0]
        for row, cell in rows:
            if heads:
                tensor[row, :, cell] = clean[:, cell]
            else:
                tensor[row, cell] = clean[cell]

    return patch


def _difference(clean: int, corrupted: int) -> Metric:
    def difference(logits: Any) -> Any:
        return (logits[:, -1, clean] - logits[:, -1, corrupted]).float().cpu()

    return difference


def _answers(
    rmodel: Client, clean: Tokens, corrupted: Tokens, answers: tuple[Any, Any] | None
) -> tuple[int, int]:
    """Two token ids: as given, or what the model predicts after each text."""
    if answers is None:
        best = [rmodel.forward(t, probes=[], logits="last")[0].argmax() for t in (clean, corrupted)]
        return int(best[0]), int(best[1])
    first, second = one_token_each(rmodel, answers, after=clean)
    return first, second
