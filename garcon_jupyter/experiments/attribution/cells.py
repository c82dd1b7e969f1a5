"""What of a point is one cell: the axes that are kept, and which numbers of a value belong to a place along them.

cells = Cells.of(rmodel, "layers.*.attn.z", ("layer", "head"), positions=14)
cells.axes                     # {"layer": (0, 1, …), "head": (0, 1, …)}
cells.place((4, 2))            # (4, (-1, 2, -1)): the point, and where in a row's value
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.grid import ALL, GridCell
from garcon_jupyter.experiments.point_shapes import LETTERS, PointShape
from garcon_jupyter.points import Address, PointSpec

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

LAYER, UNIT = "layer", "unit"

BY_POSITION = ("position", "key")
"""Axes that are as long as a text."""


@dataclass(frozen=True)
class Cells:
    """The cells of points of one kind.

    Attributes:
        pattern: by which they were selected.
        points: their names, by layer.
        dims: of a row's value, how many dimensions it has.
        along: for each axis but "layer" the dimension of a row's value that it goes along.
        axes: the name of each axis, in order, with its places.
    """

    pattern: str
    points: tuple[str, ...]
    dims: int
    along: dict[str, int]
    axes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, rmodel: Client, pattern: str, by: Sequence[str], positions: int) -> Cells:
        """The cells of the points that a pattern selects.

        Args:
            by: the axes that are kept: "layer", and of a value's own "position", "head", "kv_head", "unit" (of attention scores "key").
            positions: tokens of the longest text.

        Raises:
            UnknownPoint, PointUnavailable: the model has no such point.
            BadRequest: the points are not of one kind, have no gradient or none of these axes.
        """
        addresses = rmodel.catalog.select(pattern)
        kinds = list(dict.fromkeys(address.template for address in addresses))
        if len(kinds) > 1:
            raise BadRequest(
                f"{pattern!r} selects points of {len(kinds)} kinds: {', '.join(kinds[:3])}.",
                "Attribute one kind after the other, such as layers.*.attn.z.",
            )
        spec = addresses[0].spec
        if not isinstance(spec, PointSpec) or spec.dims[0] != "b" or not spec.differentiable:
            raise BadRequest(
                f"{addresses[0].name} has no value of each row and position with a gradient.",
                "Choose points such as layers.*.attn.z, layers.*.resid_pre or layers.*.mlp.post_activation.",
            )
        shape = PointShape.of(rmodel, addresses[0])
        chosen = (by,) if isinstance(by, str) else tuple(by)
        along = _dims_of(chosen, shape, addresses, pattern)
        axes: dict[str, tuple[int, ...]] = {}
        for axis in chosen:
            if axis == LAYER:
                axes[LAYER] = tuple(address.layer or 0 for address in addresses)
            else:
                size = shape.sizes[along[axis] + 1]
                axes[axis] = tuple(range(positions if size is None else size))
        return cls(pattern, tuple(a.name for a in addresses), len(shape.dims) - 1, along, axes)

    # -- as they are patched -----------------------------------------------------------------

    @property
    def patterns(self) -> tuple[str, ...]:
        """The points, as they were selected."""
        return (self.pattern,)

    @property
    def names(self) -> list[str]:
        """Names of all points, in order; cells have their numbers."""
        return [*self.points]

    def cell(self, at: tuple[int, ...]) -> GridCell:
        """A cell, by its place along each axis."""
        labels = dict(zip(self.axes, at, strict=True))
        point = labels.pop(LAYER, 0)
        place = [ALL] * max(self.dims, 3)
        for axis, index in labels.items():
            place[self.along[axis]] = index
        layer = self.axes.get(LAYER, (0,) * len(self.points))[point]
        return GridCell(at, ((point, tuple(place)),), layer, labels.get("position"))

    # -- as they are added up ----------------------------------------------------------------

    def summing(self) -> Callable[[Any], Any]:
        """A function that sums pairs' numbers [pair, …] over what is no axis; it goes to the server."""
        order = [1 + self.along[axis] for axis in self.axes if axis != LAYER]
        summed = [dim for dim in range(1, 1 + self.dims) if dim not in order]
        left = [dim for dim in range(1, 1 + self.dims) if dim in order]
        onto = [0, *(1 + left.index(dim) for dim in order)]

        def onto_cells(numbers: Any) -> Any:
            return (numbers.sum(summed) if summed else numbers).permute(onto)

        return onto_cells

    def gather(self, found: dict[str, Tensor]) -> Tensor:
        """Numbers [pair, …] of each point, as :meth:`summing` leaves them, along the axes; NaN where texts have no such position."""
        import torch

        each = [found[point] for point in self.points]
        if LAYER not in self.axes:
            values = each[0]
        else:
            values = torch.stack(each, dim=1 + list(self.axes).index(LAYER))
        whole = values.new_full((len(values), *map(len, self.axes.values())), float("nan"))
        whole[tuple(slice(size) for size in values.shape)] = values
        return whole


def _dims_of(
    chosen: tuple[str, ...], shape: PointShape, addresses: Sequence[Address], pattern: str
) -> dict[str, int]:
    """For each axis but "layer" the dimension of a row's value that it goes along; checked."""
    layered, units = addresses[0].layer is not None, shape.of_units()
    heads = [axis for axis in ("head", "kv_head") if any(d in LETTERS[axis] for d in shape.dims)]
    there = [LAYER] if layered else []
    there += [axis for axis in LETTERS if any(d in LETTERS[axis] for d in shape.dims)]
    there += [UNIT] if units else []
    unknown = [
        axis
        for axis in chosen
        if axis not in (LAYER, UNIT, *LETTERS) or (axis == LAYER and not layered)
    ]
    unknown += [UNIT] if UNIT in chosen and not units else []
    if unknown or len(set(chosen)) != len(chosen):
        raise BadRequest(
            f"by={chosen!r} of {pattern}: {f'there is no axis {unknown[0]!r}' if unknown else 'an axis twice'}.",
            f"It has {', '.join(there)}.",
        )
    if len(addresses) > 1 and LAYER not in chosen:
        raise BadRequest(
            f"by={chosen!r} would add up layers.",
            f"Give 'layer' as well, such as by={(LAYER, *chosen)!r}, or a point of one layer.",
        )
    if UNIT in chosen and heads and not {"head", "kv_head"} & {*chosen}:
        raise BadRequest(
            f"by={chosen!r} would add up the units of all heads, which have nothing in common but their numbers.",
            f"Give {heads[0]!r} as well.",
        )
    along = {axis: shape.along(axis) for axis in chosen if axis not in (LAYER, UNIT)}
    if UNIT in chosen:
        along[UNIT] = units[0]
    if len(set(along.values())) < len(along):
        raise BadRequest(f"by={chosen!r} says twice which head.", "Leave one of them out.")
    return {axis: dim - 1 for axis, dim in along.items()}
