"""What the dimensions of a point's value are: which of them positions, heads and units lie along.

Patching gives places of it other values, and attribution adds over them; both read here what a letter of the
table of points means to them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.points import Address, PointSpec

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

LETTERS: dict[str, tuple[str, ...]] = {
    "position": ("p", "p_q"),
    "key": ("p_k",),
    "head": ("H", "R"),
    "kv_head": ("K", "G"),
    "stream": ("A",),
}
"""Letters of what can be told apart. Heads are those that write by themselves, of attention or of a recurrence; those of keys and
values, or of what reads and writes a state, several of the former may share. What has none of these letters is units."""


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
            for many, few in zip(LETTERS["head"], LETTERS["kv_head"], strict=True)
            if few in address.spec.dims
        )
        return cls(address.name, address.spec.dims, sizes, shared)

    def along(self, axis: str) -> int:
        """The dimension that an axis goes along.

        Raises:
            BadRequest: there is none; says which there is where heads share keys and values.
        """
        letters = LETTERS[axis]
        if axis == "head" and not self.shared:
            letters = (*LETTERS["head"], *LETTERS["kv_head"])
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

    def of_units(self) -> list[int]:
        """The dimensions that have no other name, nor only one place."""
        named = {"b", "1", *(letter for letters in LETTERS.values() for letter in letters)}
        return [dim for dim, letter in enumerate(self.dims) if letter not in named]

    def unit(self, number: int) -> list[int]:
        """Where a unit is along the dimensions after that of positions; heads lie side by side.

        Raises:
            BadRequest: there is no such unit, or what lies there is not counted so.
        """
        after = self.sizes[2:]
        if self.dims[1] not in LETTERS["position"] or (len(after) == 2 and after[1] is None):
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
