"""Passes 2 and 4: what is written into the arrays of the atlas, by each job for its own units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from garcon_jupyter.atlas.files import NOWHERE
from garcon_jupyter.features import rows as unit_rows
from garcon_jupyter.features import sums, widths
from garcon_jupyter.features.kept import RING, ranks
from garcon_jupyter.features.reducing import BINS, SIDES, Merging
from garcon_jupyter.features.rows import KINDS, SAMPLE, TOP, WIDE, UnitRows


@dataclass(frozen=True)
class FeatureSizes:
    """How much is kept of each unit.

    Attributes:
        units: how many there are.
        k: strongest tokens.
        sample: tokens of the uniform sample.
        before, after: tokens of a window before and after the example's.
        seed: of the lots.
    """

    units: int
    k: int
    sample: int
    before: int
    after: int
    seed: int = 0

    @property
    def window(self) -> int:
        """Tokens of a window."""
        return self.before + 1 + self.after

    @property
    def slots(self) -> dict[str, int]:
        """Examples of each kind."""
        return {"top": self.k, "sample": self.sample, "wide": widths.SLOTS}

    @property
    def examples(self) -> int:
        """Examples of a unit, of all kinds."""
        return sum(self.slots.values())

    @property
    def kept(self) -> int:
        """Tokens of a unit that a job of pass 1 keeps."""
        return self.k + self.sample + RING * widths.KEPT

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The arrays of the atlas, with what they have of each unit."""
        found: dict[str, tuple[str, tuple[int, ...]]] = {}
        for kind, slots in self.slots.items():
            found[f"{kind}_values"] = ("<f4", (slots,))
            found[f"{kind}_places"] = ("<i8", (slots,))
            found[f"{kind}_tokens"] = ("<i4", (slots, self.window))
            found[f"{kind}_around"] = ("<f4", (slots, self.window))
        found["histogram"] = ("<i8", (BINS,))
        found["fired"] = ("<i8", ())
        found["moments"] = ("<f8", (6,))
        return found

    @property
    def unit_bytes(self) -> int:
        """Bytes of a unit in the atlas."""
        return sum(
            np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in self.arrays.values()
        )


def examples_of(merging: Merging, sizes: FeatureSizes) -> UnitRows:
    """The examples of units that stay, with the slot of each."""
    found = []
    for kind, kept in ((TOP, merging.top), (SAMPLE, merging.sample)):
        group, _, place, value = kept.settle()
        found.append(unit_rows.made(group + merging.first, kind, ranks(group), place, value))
    unit, slot, place, value = widths.by_width(merging.wide, merging.sample, _highest(merging))
    found.append(unit_rows.made(unit + merging.first, WIDE, slot, place, value))
    return unit_rows.joined(found)


def _highest(merging: Merging) -> np.ndarray:
    return np.where(merging.high > 0, merging.high, 1.0)


def write_units(directory: Path, merging: Merging, sizes: FeatureSizes, tokens: int) -> UnitRows:
    """Write what is known of units without their windows.

    Args:
        directory: of the atlas.
        tokens: that were seen.

    Returns:
        Their examples.
    """
    found = examples_of(merging, sizes)
    span = slice(merging.first, merging.first + merging.units)
    for number, kind in enumerate(KINDS):
        mine = found.of(number)
        shape = (merging.units, sizes.slots[kind])
        values, places = np.full(shape, np.nan, "<f4"), np.full(shape, NOWHERE, "<i8")
        at = mine.unit - merging.first, mine.index
        values[at], places[at] = mine.value, mine.place
        _put(directory, f"{kind}_values", span, values)
        _put(directory, f"{kind}_places", span, places)
    counts = merging.counts.copy()
    rest = tokens - counts.sum(1)
    counts[:, SIDES] += rest
    _put(directory, "histogram", span, counts)
    _put(directory, "fired", span, merging.sums[:, sums.FIRED])
    zeros = rest > 0
    low = np.where(zeros, np.minimum(merging.low, 0), merging.low)
    high = np.where(zeros, np.maximum(merging.high, 0), merging.high)
    moments = sums.moments(merging.sums, max(tokens, 1))
    _put(directory, "moments", span, np.column_stack([moments, low, high]))
    return found


class WindowsOfUnits:
    """The windows of examples of some units, gathered and then written.

    Args:
        sizes: of what is kept.
        first: number of the first unit.
        units: how many.
    """

    def __init__(self, sizes: FeatureSizes, first: int, units: int) -> None:
        self._first, self._units = first, units
        self._held = {}
        for kind, slots in sizes.slots.items():
            shape = (units, slots, sizes.window)
            self._held[f"{kind}_tokens"] = np.full(shape, -1, "<i4")
            self._held[f"{kind}_around"] = np.full(shape, np.nan, "<f4")

    def take(self, found: UnitRows, tokens: np.ndarray, values: np.ndarray) -> None:
        """Take in windows of examples."""
        for number, kind in enumerate(KINDS):
            mine = (found.kind == number).nonzero()[0]
            at = found.unit[mine] - self._first, found.index[mine]
            self._held[f"{kind}_tokens"][at] = tokens[mine]
            self._held[f"{kind}_around"][at] = values[mine]

    def write(self, directory: Path) -> None:
        """Write them into the arrays of an atlas."""
        span = slice(self._first, self._first + self._units)
        for name, rows in self._held.items():
            _put(directory, name, span, rows)


def _put(directory: Path, name: str, span: slice, rows: np.ndarray) -> None:
    array = np.load(directory / f"{name}.npy", mmap_mode="r+")
    array[span] = rows
    array.flush()
