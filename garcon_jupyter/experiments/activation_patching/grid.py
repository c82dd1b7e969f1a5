"""The cells of a sweep, by the axes that they are laid out on.

A cell is a set of places: of each point that it is about, an index along each dimension of its value. What a letter of a
point's shape means is in the table of points; here it is said which axis goes along it.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.points import Address, PointSpec

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.result import Label

AXES = ("layer", "position", "head", "kv_head", "unit")
"""What cells can be told apart by."""

HEADS: dict[str, tuple[str, ...]] = {"head": ("H", "R"), "kv_head": ("K", "G")}
"""Letters of heads: those that write by themselves, of attention or of a recurrence; those of keys and values, or of what reads
and writes a state, which several of the former may share."""

POSITIONS = ("p", "p_q")

ALL = -1

_DIMS = 3
"""Dimensions of a value beside that of rows, at most."""


@dataclass(frozen=True)
class PointShape:
    """What the dimensions of a point's value are.

    Attributes:
        point: its name.
        dims: letters; of a module that no family names, "b", "p" and the rest as one.
        sizes: of each, where it is known before the tokens are.
        shared: whether several heads read a head of its keys or values.
    """

    point: str
    dims: tuple[str, ...]
    sizes: tuple[int | None, ...]
    shared: bool = False

    @classmethod
    def of(cls, rmodel: Client, address: Address) -> PointShape:
        """The shape of a point whose rows are runs.

        Raises:
            PointUnavailable: they are not, so it cannot be patched.
        """
        if (why := _UNPATCHED.get(address.template)) or address.expert is not None:
            raise PointUnavailable(
                f"{address.name} cannot be patched: {why or _ROUTED}.",
                "Patch a point that each token has for itself, such as layers.*.resid_pre.",
            )
        if not isinstance(address.spec, PointSpec):
            return cls(address.name, ("b", "p", "?"), (None, None, None))
        shape = rmodel.catalog.shape(address)
        sizes = tuple(size if isinstance(size, int) else None for size in shape)
        of_all = rmodel.catalog.size
        shared = any(
            of_all(few) != of_all(many)
            for many, few in zip(*HEADS.values(), strict=True)
            if few in address.spec.dims
        )
        return cls(address.name, address.spec.dims, sizes, shared)

    def along(self, axis: str) -> int:
        """The dimension that an axis goes along.

        Raises:
            BadRequest: there is none; says which there is where heads share keys and values.
        """
        letters = HEADS.get(axis, POSITIONS)
        if axis == "head" and not self.shared:
            letters = (*HEADS["head"], *HEADS["kv_head"])
        found = next((dim for dim, letter in enumerate(self.dims) if letter in letters), None)
        if found is not None:
            return found
        if axis == "head" and self.shared:
            raise BadRequest(
                f"{self.point} is of heads that share keys and values: one of its is no head, as several read it.",
                'Patch it by "kv_head"; what a single head does is in attn.q, attn.z and attn.head_out.',
            )
        raise BadRequest(
            f"{self.point} has the shape [{', '.join(self.dims)}]: no {axis.replace('_', ' ')}.",
            "Leave it out of by, or choose points that have one.",
        )

    def unit(self, number: int) -> list[int]:
        """Where a unit is along the dimensions after that of positions; heads lie side by side.

        Raises:
            BadRequest: there is no such unit, or what lies there is not counted so.
        """
        after = self.sizes[2:]
        if self.dims[1] not in POSITIONS or (len(after) == 2 and after[1] is None):
            raise BadRequest(
                f"{self.point} has the shape [{', '.join(self.dims)}], whose units have no numbers.",
                "Patch it by position or head.",
            )
        known = [size for size in after if size is not None]
        if len(known) == len(after) and number >= math.prod(known):
            raise BadRequest(
                f"{self.point} has no unit {number}: it has {math.prod(known)}.", "Count from 0."
            )
        return [number] if len(after) == 1 else [*divmod(number, known[1])]


_ROUTED = "its rows are the tokens that an expert is given, which differ from run to run"

_UNPATCHED = {
    "logits": "the metric reads the logits, and nothing comes after them",
    "pos_embed.out": "positions are the same in all runs",
}
"""Points, and why there is nothing to patch at them."""


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
