"""Numbers that are kept for an agent: told in short, read in slices, and let go of when there are too many."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadRequest, UnknownName

INLINE = 64
"""So many numbers of an array are told outright."""

STRONGEST = 10
"""So many of the largest are told with where they are."""

SLICE = 2000
"""Numbers of one slice, at most."""

DIGITS = 6

Place = int | str
Cut = int | list[int] | None
"""What of a dimension is read: a place, [first, end), or all of it."""


@dataclass(frozen=True)
class KeptArray:
    """Numbers with named axes.

    Attributes:
        name: by which they are asked for.
        values: any real dtype; NaN where there is no number.
        axes: the name of each dimension; labels of its places, or None where they are counted from 0.
        of: what they are, in words.
    """

    name: str
    values: np.ndarray
    axes: Mapping[str, Sequence[Place] | None]
    of: str

    def told(self, strongest: int = STRONGEST) -> dict[str, Any]:
        """In short: shape, statistics, the strongest, and all of it where it is small."""
        shape = [*self.values.shape]
        short: dict[str, Any] = {
            "kept_as": self.name,
            "axes": dict(zip(self.axes, shape, strict=True)),
            "dtype": self.values.dtype.name,
        }
        if self.values.size <= INLINE:
            short["values"] = plain(self.values)
            return short
        return {
            **short,
            "statistics": statistics(self.values),
            "strongest": self.strongest(strongest),
        }

    def strongest(self, count: int = STRONGEST) -> list[dict[str, Any]]:
        """The numbers of the largest size, each with the labels of its place."""
        flat = np.abs(self.values.astype(np.float64)).ravel()
        flat[~np.isfinite(flat)] = -1
        order = np.argsort(-flat, kind="stable")[:count]
        rows = []
        for at in order[flat[order] >= 0]:
            place = np.unravel_index(at, self.values.shape)
            labels = zip(self.axes.items(), place, strict=True)
            row: dict[str, Any] = {
                name: int(index) if known is None else known[int(index)]
                for (name, known), index in labels
            }
            rows.append({**row, "value": number(self.values[place])})
        return rows

    def cut(self, cuts: Sequence[Cut]) -> KeptArray:
        """A slice.

        Raises:
            BadRequest: more cuts than dimensions, places that there are not, or too many numbers.
        """
        if len(cuts) > self.values.ndim:
            raise BadRequest(
                f"{self.name} has {self.values.ndim} dimensions and is cut along {len(cuts)}.",
                f"They are {', '.join(self.axes)}.",
            )
        index: list[Any] = []
        left: dict[str, Sequence[Place] | None] = {}
        every = [*cuts, *[None] * (self.values.ndim - len(cuts))]
        for (name, known), size, chosen in zip(
            self.axes.items(), self.values.shape, every, strict=True
        ):
            where = _slice(self.name, name, size, chosen)
            index.append(where)
            if isinstance(where, slice):
                left[name] = known[where] if known else range(*where.indices(size))
        values = self.values[tuple(index)]
        return KeptArray(self.name, values, left, self.of)

    def numbers(self) -> dict[str, Any]:
        """All of it, with the labels of its places.

        Raises:
            BadRequest: there are more than :data:`SLICE` numbers.
        """
        if self.values.size > SLICE:
            raise BadRequest(
                f"This slice of {self.name} has {self.values.size:,} numbers, and one answer has at most {SLICE:,}.",
                f"Give places: a number, or [first, end], for each of {', '.join(self.axes)}.",
            )
        labels = {
            name: list(known) if known is not None else [*range(size)]
            for (name, known), size in zip(self.axes.items(), self.values.shape, strict=True)
        }
        return {"name": self.name, "of": self.of, "axes": labels, "values": plain(self.values)}


def _slice(array: str, axis: str, size: int, chosen: Cut) -> int | slice:
    if chosen is None:
        return slice(0, size)
    if isinstance(chosen, int):
        if not -size <= chosen < size:
            raise BadRequest(
                f"{array} has no place {chosen} along {axis}.", f"It has 0 to {size - 1}."
            )
        return chosen % size
    if len(chosen) != 2 or not 0 <= chosen[0] < chosen[1] <= size:
        raise BadRequest(
            f"{chosen} is no part of the {size} places along {axis}.",
            f"Give [first, end) with 0 ≤ first < end ≤ {size}.",
        )
    return slice(*chosen)


@dataclass
class Shelf:
    """What is kept for a session, under names of its own. The oldest goes when there is no room.

    Attributes:
        room: bytes.
    """

    room: int = 1 << 28
    _arrays: OrderedDict[str, KeptArray] = field(default_factory=OrderedDict)
    _made: int = 0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def keep(
        self, values: np.ndarray, axes: Mapping[str, Sequence[Place] | None], of: str
    ) -> KeptArray:
        """Keep numbers."""
        with self._lock:
            self._made += 1
            kept = KeptArray(f"array {self._made}", values, axes, of)
            self._arrays[kept.name] = kept
            while len(self._arrays) > 1 and self.bytes > self.room:
                self._arrays.popitem(last=False)
            return kept

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        return sum(each.values.nbytes for each in self._arrays.values())

    def __getitem__(self, name: str) -> KeptArray:
        """What is kept under a name.

        Raises:
            UnknownName: nothing, or no more.
        """
        if name not in self._arrays:
            raise UnknownName.among(
                "kept array", name, self._arrays, "Answers tell their names as kept_as."
            )
        return self._arrays[name]


def statistics(values: np.ndarray) -> dict[str, Any]:
    """Mean, deviation and ends of the numbers, and how many are none."""
    wide = values.astype(np.float64).ravel()
    real = wide[np.isfinite(wide)]
    if not real.size:
        return {"numbers": 0, "none": int(wide.size)}
    return {
        "mean": number(real.mean()),
        "std": number(real.std()),
        "min": number(real.min()),
        "max": number(real.max()),
        "none": int(wide.size - real.size),
    }


def number(value: Any) -> Any:
    """A number as it is told: six digits; None where it is none."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    wide = float(value)
    return float(f"{wide:.{DIGITS}g}") if math.isfinite(wide) else None


def plain(values: np.ndarray) -> Any:
    """An array as nested lists of told numbers."""
    if not values.ndim:
        return number(values[()])
    return [plain(part) for part in values]
