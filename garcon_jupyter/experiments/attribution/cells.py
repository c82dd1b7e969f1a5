"""What of a point is one cell: the axes that are kept, and which numbers of a value belong to a place along them.

cells = Cells.of(rmodel.catalog, "layers.*.attn.z", ("layer", "head"), positions=14)
cells.axes                     # {"layer": (0, 1, …), "head": (0, 1, …)}
cells.index((4, 2))            # ("layers.4.attn.z", (slice(None), 2, slice(None)))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.points import Catalog, PointSpec

LAYER = "layer"

WORDS = {
    **dict.fromkeys(("p", "p_q"), "position"),
    "p_k": "key",
    **dict.fromkeys(("H", "K", "R", "G"), "head"),
    "A": "stream",
}
"""Letter of a shape → what an axis of it is called; all others but 1 are units."""


@dataclass(frozen=True)
class Cells:
    """The cells of points of one kind.

    Attributes:
        points: their names, by layer.
        words: what each dimension of a value is called, without that of the batch; "" where it is summed in any case.
        axes: the name of each axis, in order, with its places.
    """

    points: tuple[str, ...]
    words: tuple[str, ...]
    axes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, catalog: Catalog, pattern: str, by: Sequence[str], positions: int) -> Cells:
        """The cells of the points that a pattern selects.

        Args:
            by: the axes that are kept: "layer", and of a value's own "position", "head", "unit" (of attention scores "key").
            positions: tokens of a text.

        Raises:
            UnknownPoint, PointUnavailable: the model has no such point.
            BadRequest: the points are not of one kind, have no gradient or none of these axes.
        """
        addresses = catalog.select(pattern)
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
        words = tuple("" if d == "1" else WORDS.get(d, "unit") for d in spec.dims[1:])
        layered = addresses[0].layer is not None
        chosen = _axes_of(by, words, layered, several=len(addresses) > 1, of=pattern)
        shape = catalog.shape(addresses[0])[1:]
        sizes = [side if isinstance(side, int) else positions for side in shape]
        axes = {word: tuple(range(sizes[words.index(word)])) for word in chosen if word != LAYER}
        if LAYER in chosen:
            axes[LAYER] = tuple(address.layer or 0 for address in addresses)
        return cls(
            tuple(address.name for address in addresses),
            words,
            {word: axes[word] for word in chosen},
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """How many places there are along each axis."""
        return tuple(map(len, self.axes.values()))

    def places(self) -> list[tuple[int, ...]]:
        """Every cell, by its place along each axis."""
        return list(itertools.product(*map(range, self.shape)))

    def index(self, place: Sequence[int]) -> tuple[str, tuple[Any, ...]]:
        """A cell's point, and which numbers of a row's value there it is."""
        at = dict(zip(self.axes, place, strict=True))
        index = (at.get(word, slice(None)) for word in self.words)
        return self.points[at.get(LAYER, 0)], tuple(index)

    def gather(self, found: dict[str, Any]) -> Any:
        """Numbers of each point, as :meth:`summing` leaves them, along the axes."""
        import torch

        each = [found[point] for point in self.points]
        if LAYER not in self.axes:
            return each[0]
        return torch.stack(each, dim=list(self.axes).index(LAYER))

    def summing(self) -> Callable[[Any], Any]:
        """A function that sums one row's numbers over what is no axis; it goes to the server."""
        own = [word for word in self.axes if word != LAYER]
        summed = [at for at, word in enumerate(self.words) if word not in own]
        left = [word for word in self.words if word in own]
        order = [left.index(word) for word in own]

        def onto_cells(numbers: Any) -> Any:
            return (numbers.sum(summed) if summed else numbers).permute(order)

        return onto_cells


def _axes_of(
    by: Sequence[str], words: Sequence[str], layered: bool, several: bool, of: str
) -> list[str]:
    """The axes that were asked for, checked."""
    chosen = [by] if isinstance(by, str) else list(by)
    there = [*([LAYER] if layered else []), *filter(None, words)]
    unknown = [word for word in chosen if word not in there]
    if unknown or len(set(chosen)) != len(chosen):
        raise BadRequest(
            f"by={tuple(chosen)!r} of {of}: {'an axis twice' if not unknown else f'there is no axis {unknown[0]!r}'}.",
            f"It has {', '.join(there)}.",
        )
    if several and LAYER not in chosen:
        raise BadRequest(
            f"by={tuple(chosen)!r} would add up layers.",
            f"Give 'layer' as well, such as by={(LAYER, *chosen)!r}, or a point of one layer.",
        )
    return chosen
