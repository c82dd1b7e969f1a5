"""Faithfulness: what a circuit does by itself, all that is outside of it ablated.

An attribution, or a sweep of patches, orders the parts of a model. The strongest of them are a hypothesis, a *circuit*; whether it
is right is told by a run in which nothing else of these parts is left (Wang et al. 2022; Conmy et al. 2023; Hanna et al. 2024).

    found = experiments.attribute(rmodel, clean, corrupted, "layers.*.attn.z", answers=(" Mary", " John"))
    kept = experiments.faithfulness(rmodel, found, clean, corrupted, answers=(" Mary", " John"))
    kept.at(chosen="strongest")      # by size: the share of the answer that the circuit keeps
    kept.at(chosen="at random")      # as many parts, drawn
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.grid import Grid, GridCell
from garcon_jupyter.experiments.activation_patching.measures import Measure
from garcon_jupyter.experiments.activation_patching.pairs import Pairs, Replace
from garcon_jupyter.experiments.activation_patching.results import (
    TOKENS,
    check_options,
    swept,
)
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.result import Label

CHOSEN = ("strongest", "at random")


def faithfulness(
    rmodel: Client,
    found: ExperimentResult,
    clean: Any,
    corrupted: Any,
    sizes: Sequence[int] | None = None,
    threshold: float | None = None,
    answers: Any = None,
    metric: Callable[[Any], Any] | None = None,
    *,
    replace: Replace = "patch",
    tokens: int = TOKENS,
    seed: int = 0,
    progress: bool = True,
) -> ExperimentResult:
    """How much of the clean answer circuits keep, when everything outside of them is ablated, exactly.

    A circuit of k parts has the k cells of `found` whose numbers are largest by size. In the clean run all other cells of the same points
    are given other values, at once, and the metric is measured: 1 where it stays that of the clean run, 0 where it is that of the corrupted
    one. As many cells drawn at random are the control: where they keep as much, the order says nothing. The empty circuit is what is left
    when all cells are ablated; what it keeps goes by ways that are no cells, such as MLPs.

    Args:
        found: of :func:`attribute <garcon_jupyter.experiments.attribution.nodes.attribute>` or :func:`patch`: cells by layer, position,
            head or unit of one or several patterns of points; several pairs are averaged.
        clean, corrupted: the texts that circuits are measured on: those of `found`, or better others of the same kind.
        sizes: numbers of cells; by default 0, 1, 2, 5, 10, 20, … and all.
        threshold: instead of sizes, the cells of which `found` has at least so much, by size.
        answers, metric, tokens, progress: as for :func:`patch`.
        replace: what is outside of a circuit is given: "patch", the corrupted run's values; "mean", the mean of all corrupted runs;
            "resample", those of another pair's, drawn by `seed`. The latter two take several pairs of one length.
        seed: of the control's draw, too.

    Returns:
        values: float32 [chosen, cells], or [pair, chosen, cells] where there are several pairs; ``chosen`` is "strongest" or "at random".
        more: ``metric`` of each run, and ``clean`` and ``corrupted``, that of the ends.
        facts: ``circuit``, the cells in order, the strongest first, as far as the largest circuit but the whole has them.

    Raises:
        BadRequest: `found` is of no cells of this model, or of texts of another length; sizes that there are not; as :func:`patch`.
        UnknownPoint, PointUnavailable, DoesNotFit: as :func:`patch`.

    Examples:
        >>> clean = "When John and Mary went to the shops, John gave the bag to"
        >>> corrupted = "When John and Mary went to the shops, Mary gave the bag to"
        >>> found = experiments.attribute(rmodel, clean, corrupted, answers=(" Mary", " John"))
        >>> kept = experiments.faithfulness(rmodel, found, clean, corrupted, [0, 20, 270], answers=(" Mary", " John"))
        >>> round(kept.at(chosen="strongest", cells=270).item(), 4)
        1.0
        >>> bool(kept.at(chosen="strongest", cells=20) > kept.at(chosen="at random", cells=20) + 0.3)
        True
    """
    pairs = Pairs.of(rmodel, clean, corrupted)
    check_options(replace, tokens)
    circuits = Circuits.of(rmodel, found, max(pairs.lengths), sizes, threshold, seed)
    about = {
        "replace": replace,
        "order of": found.experiment,
        "circuit": circuits.told(),
        "seed": seed,
    }
    return swept(
        "faithfulness",
        *(rmodel, pairs, circuits, Measure.of(rmodel, pairs, answers, metric), about),
        denoise=False,
        replace=replace,
        tokens=tokens,
        seed=seed,
        progress=progress,
    )


@dataclass(frozen=True)
class Circuits:
    """Circuits of several sizes, as cells: each is all that is outside of one.

    Attributes:
        grid: the cells that circuits are of.
        order: all of them, the strongest first.
        drawn: all of them, at random.
        sizes: of the circuits.
    """

    grid: Grid
    order: tuple[GridCell, ...]
    drawn: tuple[GridCell, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls,
        rmodel: Client,
        found: ExperimentResult,
        length: int,
        sizes: Sequence[int] | None,
        threshold: float | None,
        seed: int,
    ) -> Circuits:
        """The circuits that a result orders.

        Raises:
            BadRequest: it is of no cells of this model, or there are no circuits of these sizes.
        """
        grid, values = _cells_of(rmodel, found, length)
        cells = [cell for cell in grid.cells(length) if not values[cell.at].isnan()]
        order = sorted(cells, key=lambda cell: -abs(float(values[cell.at])))
        drawn = random.Random(seed).sample(cells, len(cells))
        if threshold is not None:
            if sizes is not None:
                raise BadRequest("There are sizes and a threshold.", "Leave one of them out.")
            sizes = [sum(abs(float(values[cell.at])) >= threshold for cell in order)]
        chosen = _usual(len(cells)) if sizes is None else tuple(dict.fromkeys(map(int, sizes)))
        if not chosen or not all(0 <= size <= len(cells) for size in chosen):
            raise BadRequest(
                f"sizes={sizes!r} are no circuits of {len(cells)} cells.",
                f"Give numbers from 0 to {len(cells)}.",
            )
        return cls(grid, tuple(order), tuple(drawn), chosen)

    @property
    def axes(self) -> dict[str, tuple[Label, ...]]:
        """The axes of what is measured."""
        return {"chosen": CHOSEN, "cells": self.sizes}

    @property
    def names(self) -> list[str]:
        """Names of the points; cells have their numbers."""
        return self.grid.names

    @property
    def patterns(self) -> tuple[str, ...]:
        """The points, as they were selected."""
        return self.grid.patterns

    def cells(self, length: int) -> Iterator[GridCell]:
        """What is outside of each circuit, in texts of so many tokens."""
        for number, order in enumerate((self.order, self.drawn)):
            for at, size in enumerate(self.sizes):
                outside = order[size:]
                places = tuple(place for cell in outside for place in cell.places)
                yield GridCell(
                    (number, at), places, min((cell.layer for cell in outside), default=0), None
                )

    def told(self) -> list[dict[str, Label]]:
        """The cells of the largest circuit that is not all of them, the strongest first, by the names of their axes."""
        most = max((size for size in self.sizes if size < len(self.order)), default=0)
        axes = list(self.grid.axes.items())
        return [
            {name: labels[at] for (name, labels), at in zip(axes, cell.at, strict=True)}
            for cell in self.order[:most]
        ]


def _cells_of(rmodel: Client, found: ExperimentResult, length: int) -> tuple[Grid, Tensor]:
    """The cells that a result has numbers of, and these, averaged over pairs.

    Raises:
        BadRequest: it has none, or they are not those of this model and of texts of this length.
    """
    points = found.facts.get("points")
    axes, values = dict(found.axes), found.values.float()
    if "pair" in axes:
        del axes["pair"]
        values = values.nanmean(0)
    if not points or not axes:
        raise BadRequest(
            f"A result of {found.experiment!r} has no cells that a circuit could be of.",
            "Give one of experiments.attribute or experiments.patch.",
        )
    by = tuple(axis for axis in axes if axis != "point")
    units = axes.get("unit")
    grid = Grid.of(rmodel, points, by, length, None if units is None else [*map(int, units)])
    if grid.axes != axes:
        raise BadRequest(
            f"What was found is by {_sides(axes)}, and this model with these texts has {_sides(grid.axes)}.",
            "Give what was found of this model, in texts of as many tokens.",
        )
    return grid, values


def _sides(axes: dict[str, tuple[Label, ...]]) -> str:
    return " × ".join(f"{name} {len(labels)}" for name, labels in axes.items())


def _usual(cells: int) -> tuple[int, ...]:
    """0, 1, 2, 5, 10, 20, 50, … and all."""
    steps = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    return (0, *(size for size in steps if size < cells), cells)
