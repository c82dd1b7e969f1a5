"""The cells of a sweep, by the axes that they are laid out on.

A cell is a set of places: of each point that it is about, an index along each dimension of its value. What a letter of a
point's shape means is in the table of points; here it is said which axis goes along it.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.point_shapes import PointShape
from garcon_jupyter.points import Address

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.result import Label

AXES = ("layer", "position", "head", "kv_head", "unit")
"""What cells can be told apart by."""

ALL = -1

_DIMS = 3
"""Dimensions of a value beside that of rows, at most."""


@dataclass(frozen=True)
class GridCell:
    """One cell.

    Attributes:
        at: where its number stands, along the axes.
        places: number of each point that it is about, and an index along each of its dimensions but the first.
        layer: of the first of them; 0 where it is of none.
        position: the only one that it patches; None where it patches all.
    """

    at: tuple[int, ...]
    places: tuple[tuple[int, tuple[int, ...]], ...]
    layer: int
    position: int | None


class CellLayout(Protocol):
    """Cells, and the axes that their numbers are laid out on."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The points, as they were selected."""

    @property
    def names(self) -> list[str]:
        """Names of all points, in order; cells have their numbers."""

    @property
    def axes(self) -> dict[str, tuple[Label, ...]]:
        """Each axis with its labels."""

    def cells(self, length: int) -> Iterator[GridCell]:
        """The cells of texts of so many tokens."""


@dataclass(frozen=True)
class Grid:
    """The cells of patterns of points.

    Attributes:
        patterns: as given.
        points: of each pattern, those of the model.
        by: the axes, in order.
        axes: each axis with its labels; before those of `by` the patterns, where there are several.
        shapes: of each point, by name.
    """

    patterns: tuple[str, ...]
    points: tuple[tuple[Address, ...], ...]
    by: tuple[str, ...]
    axes: dict[str, tuple[Label, ...]]
    shapes: dict[str, PointShape]

    @classmethod
    def of(
        cls, rmodel: Client, points: Any, by: Any, length: int, units: Sequence[int] | None
    ) -> Grid:
        """The grid of a sweep.

        Args:
            points: a pattern, or several.
            by: axes.
            length: positions of the longest text.
            units: where units are an axis, which.

        Raises:
            BadRequest: there is no such axis, or points have none.
            UnknownPoint, PointUnavailable: the model has no such point.
        """
        patterns = (points,) if isinstance(points, str) else tuple(points)
        axes = _checked_axes(by, units)
        if not patterns:
            raise BadRequest(
                "There are no points to patch.", 'Give one, such as "layers.*.attn.z".'
            )
        selected = tuple(tuple(rmodel.catalog.select(pattern)) for pattern in patterns)
        every = [address for several in selected for address in several]
        shapes = {address.name: PointShape.of(rmodel, address) for address in every}
        labels: dict[str, tuple[Label, ...]] = {} if len(patterns) == 1 else {"point": patterns}
        for axis in axes:
            labels[axis] = _labels(axis, every, shapes, length, units)
        return cls(patterns, selected, axes, labels, shapes)

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of all points, in order; cells have their numbers."""
        return [address.name for several in self.points for address in several]

    def cells(self, length: int) -> Iterator[GridCell]:
        """The cells of texts of so many tokens."""
        first = itertools.accumulate((len(several) for several in self.points), initial=0)
        for number, (several, start) in enumerate(zip(self.points, first, strict=False)):
            numbered = list(enumerate(several, start))
            for at in itertools.product(*(range(len(self.axes[axis])) for axis in self.by)):
                chosen: dict[str, Any] = {
                    axis: self.axes[axis][index] for axis, index in zip(self.by, at, strict=True)
                }
                mine = [
                    (point, address)
                    for point, address in numbered
                    if chosen.get("layer", address.layer) == address.layer
                ]
                position = chosen.get("position")
                if not mine or (position is not None and position >= length):
                    continue
                where = at if len(self.patterns) == 1 else (number, *at)
                places = tuple((point, self._place(address, chosen)) for point, address in mine)
                layer = min(address.layer or 0 for _, address in mine)
                yield GridCell(where, places, layer, position)

    def _place(self, address: Address, chosen: dict[str, Any]) -> tuple[int, ...]:
        shape = self.shapes[address.name]
        place = [ALL] * _DIMS
        for axis, label in chosen.items():
            if axis == "unit":
                place[1 : len(shape.dims) - 1] = shape.unit(label)
            elif axis != "layer":
                place[shape.along(axis) - 1] = label
        return tuple(place)


def _checked_axes(by: Any, units: Sequence[int] | None) -> tuple[str, ...]:
    axes = (by,) if isinstance(by, str) else tuple(by)
    wrong = [axis for axis in axes if axis not in AXES]
    if wrong or not axes or len(set(axes)) < len(axes):
        raise BadRequest(
            f"by={by!r} are no axes that cells can be told apart by.",
            f"There are {', '.join(AXES)}.",
        )
    if ("unit" in axes) != (units is not None):
        raise BadRequest(
            "Units are an axis of their own, which is told which of them.",
            'Give both by=("layer", "unit") and units=[…], or neither.',
        )
    if ("unit" in axes and {"head", "kv_head"} & {*axes}) or {"head", "kv_head"} <= {*axes}:
        raise BadRequest(
            f"by={by!r} says twice which head: a unit is one of all heads, which lie side by side.",
            "Leave one of them out.",
        )
    return axes


def _labels(
    axis: str,
    points: Sequence[Address],
    shapes: dict[str, PointShape],
    length: int,
    units: Sequence[int] | None,
) -> tuple[Label, ...]:
    """What the places along an axis are called: by numbers.

    Raises:
        BadRequest: a point has no such axis, or another number of places along it than others have.
    """
    if axis == "layer":
        without = [address.name for address in points if address.layer is None]
        if without:
            raise BadRequest(f"{without[0]} is of no layer.", 'Leave "layer" out of by.')
        return tuple(sorted({address.layer for address in points if address.layer is not None}))
    if axis == "unit":
        assert units is not None
        numbers = tuple(dict.fromkeys(operator.index(unit) for unit in units))
        if not numbers or min(numbers) < 0:
            raise BadRequest(f"units={units!r} are no units.", "Count from 0.")
        for shape in shapes.values():
            shape.unit(max(numbers))
        return numbers
    along = {name: (shape.along(axis), shape) for name, shape in shapes.items()}
    if axis == "position":
        return tuple(range(length))
    counts = {name: shape.sizes[dim] for name, (dim, shape) in along.items()}
    count = next(iter(counts.values()))
    if len(set(counts.values())) > 1 or count is None:
        told = ", ".join(f"{name}: {count}" for name, count in [*counts.items()][:3])
        raise BadRequest(
            f"Not all points have as many heads ({told}, …).", "Patch them one after the other."
        )
    return tuple(range(count))
