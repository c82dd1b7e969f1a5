"""What a unit does on stretches of text, parted for explaining, calibrating and scoring.

The parts are those of the activation server of the *Transformer Debugger* (Mossing et al. 2024), after *Language models can
explain neurons in language models* (Bills et al. 2023): the strongest examples are dealt out in turn to ``train``,
``calibration``, ``valid`` and ``test``, the random ones to the last three, and each of these has as many random ones as strongest.
An explanation is written from ``train`` alone.

Two things differ from there. An atlas keeps the strongest *tokens*, several of which may be of one sentence; its windows overlap then, and
what is in ``train`` would be in ``test`` as well. So of windows that overlap, or read alike, the first is kept. And beside the parts
there are :attr:`UnitExcerpts.intervals`, over the whole range of the unit's values: explanations that hold for the strongest examples
often do not hold for weaker ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np

from garcon_jupyter.atlas.files import Atlas, Example, Record
from garcon_jupyter.errors import BadData

TOP = 10
"""The highest level: values are told to a language model as whole numbers from 0 to this."""

QUIET = 0.1
"""Share of the largest value up to which a unit is said not to fire."""

PARTS = ("train", "calibration", "valid", "test")
"""Into which the strongest examples are dealt out; the random ones into all but the first."""

LENT = 20
"""Windows of other units that are looked at where a unit's own sample has none on which it is quiet."""


@dataclass(frozen=True)
class Excerpt:
    """A unit on a stretch of text.

    Attributes:
        tokens: the texts of the tokens.
        values: the unit's value at each, in the units of the point.
        document: number of the document, and
        first: the place of the first token in it; -1 where that is not known.
        assumed: whether the values are taken for 0, and not known.
    """

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    document: int = -1
    first: int = -1
    assumed: bool = False

    @property
    def peak(self) -> float:
        """The largest value."""
        return max(self.values)

    @property
    def text(self) -> str:
        """The tokens, joined."""
        return "".join(self.tokens)

    @cached_property
    def digest(self) -> str:
        """Of tokens and values, by which answers about it are kept."""
        return digest_of([self.tokens, self.values])

    def overlaps(self, other: Excerpt) -> bool:
        """Whether both have a token of a document in common, or read alike."""
        if self.tokens == other.tokens:
            return True
        if self.document < 0 or self.document != other.document:
            return False
        return self.first < other.first + len(other.tokens) and other.first < self.first + len(
            self.tokens
        )


def digest_of(what: object) -> str:
    """SHA-256 of something as JSON, 32 hex digits."""
    written = json.dumps(what, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class UnitExcerpts:
    """What a unit does on text: the *record* that it is explained from.

    Attributes:
        point: name of the point; in other people's files, of the layer.
        unit: number of the unit in it.
        largest: its largest value.
        train, calibration, valid, test: the parts; the strongest examples first, then as many random ones (none in train).
        intervals: excerpts on which it fires, none of them in train, in intervals of its values, the lowest first.
        quiet: excerpts on which it does not fire: nowhere above a tenth of `largest`.
    """

    point: str
    unit: int
    largest: float
    train: tuple[Excerpt, ...]
    calibration: tuple[Excerpt, ...]
    valid: tuple[Excerpt, ...]
    test: tuple[Excerpt, ...]
    intervals: tuple[tuple[Excerpt, ...], ...] = field(default=())
    quiet: tuple[Excerpt, ...] = field(default=())

    @cached_property
    def digest(self) -> str:
        """Of all that is in it."""
        return digest_of(asdict(self))

    @property
    def name(self) -> str:
        """Point and unit, as they are shown."""
        return f"{self.point} {self.unit}"

    def part(self, name: str) -> tuple[Excerpt, ...]:
        """A part by its name.

        Raises:
            BadData: there is none of this name.
        """
        if name not in PARTS:
            raise BadData(f"There is no part {name!r}.", f"Use {', '.join(PARTS)}.")
        found: tuple[Excerpt, ...] = getattr(self, name)
        return found


def levels(values: Sequence[float], largest: float, top: int = TOP) -> list[int]:
    """Values as whole numbers from 0 to `top`: ``min(top, floor(top · max(x, 0) / largest))``.

    Args:
        values: of a unit, [n].
        largest: its largest value.

    Returns:
        [n]; zeros where `largest` is not above 0.
    """
    if largest <= 0:
        return [0] * len(values)
    scaled = np.floor(top * np.maximum(np.asarray(values, np.float64), 0.0) / largest)
    return [int(level) for level in np.minimum(scaled, top)]


def parted(
    point: str,
    unit: int,
    top: Sequence[Excerpt],
    sample: Sequence[Excerpt],
    intervals: Sequence[Sequence[Excerpt]] = (),
    others: Iterable[Excerpt] = (),
    largest: float | None = None,
) -> UnitExcerpts:
    """Part what is known of a unit.

    Args:
        point, unit: which it is.
        top: where it is strongest, best first.
        sample: at random, in an order of value or none.
        intervals: at random in intervals of its values, the lowest first; by default the sample in five of equal count.
        others: on which it is taken to be quiet; used only where the sample has nothing on which it is.
        largest: its largest value; by default the one of `top`.

    Raises:
        BadData: it never fires, or there is too little of it: less than four strongest examples, or three random ones, that do not overlap.
    """
    largest = max((one.peak for one in top), default=0.0) if largest is None else float(largest)
    if not largest > 0:
        raise BadData(f"Unit {unit} of {point} never fires.", "Choose another unit.")
    best = _apart(top)
    random = _apart(sample, best)
    dealt, rest = len(best) // len(PARTS), len(random) // (len(PARTS) - 1)
    each = min(dealt, rest)
    if not each:
        raise BadData(
            f"Of unit {unit} of {point} there are {len(best)} strongest and {len(random)} random examples that do not overlap.",
            "Make the atlas with a larger k (at least 4), a larger sample, or of more documents.",
        )
    strong = {
        name: best[n : dealt * len(PARTS) : len(PARTS)][: None if n == 0 else each]
        for n, name in enumerate(PARTS)
    }
    weak = {
        name: random[n : rest * (len(PARTS) - 1) : len(PARTS) - 1][:each]
        for n, name in enumerate(PARTS[1:])
    }
    parts = {name: (*strong[name], *weak.get(name, ())) for name in PARTS}
    held_out = _held_out(intervals or _of_equal_count(random), parts["train"], QUIET * largest)
    quiet = tuple(one for one in random if one.peak <= QUIET * largest)
    if not quiet:
        known = [*best, *random]
        quiet = tuple(one for one in others if not any(one.overlaps(mine) for mine in known))
    return UnitExcerpts(point, unit, largest, **parts, intervals=held_out, quiet=quiet)


def _apart(excerpts: Iterable[Excerpt], before: Sequence[Excerpt] = ()) -> list[Excerpt]:
    """Excerpts of which none overlaps another, nor one of those before."""
    found: list[Excerpt] = []
    for one in excerpts:
        if one.tokens and not any(one.overlaps(other) for other in (*before, *found)):
            found.append(one)
    return found


def _of_equal_count(sample: Sequence[Excerpt], parts: int = 5) -> list[list[Excerpt]]:
    ordered = sorted(sample, key=lambda one: one.peak)
    return [
        list(map(ordered.__getitem__, cut)) for cut in np.array_split(range(len(sample)), parts)
    ]


def _held_out(
    intervals: Sequence[Sequence[Excerpt]], train: Sequence[Excerpt], quiet: float
) -> tuple[tuple[Excerpt, ...], ...]:
    found = []
    for part in intervals:
        kept = tuple(one for one in _apart(part, train) if one.peak > quiet)
        if kept:
            found.append(kept)
    return tuple(found)


# -- of an atlas -----------------------------------------------------------------------------------


def of_record(record: Record) -> UnitExcerpts:
    """What an atlas knows of a unit, a neuron or a latent, parted.

    Where the atlas has intervals of equal width (:meth:`garcon_jupyter.RemoteModel.features` makes them) these are taken, else those of
    equal count. Its sample is then of tokens at which the unit fires, so windows on which it does not are those of other units
    of the point; what it does there is not known, and taken for 0 (``assumed``).

    Raises:
        BadData: it never fires, or the atlas has too little of it.
    """
    wide = "wide_values" in record._atlas.index["arrays"]
    return parted(
        record.point,
        record.unit,
        [_excerpt(one) for one in record.examples],
        [_excerpt(one) for one in record.sample],
        [[_excerpt(one) for one in part] for part in record.equal_width] if wide else (),
        _lent(record),
        float(record.moments["high"]),
    )


def _excerpt(example: Example, assumed: bool = False) -> Excerpt:
    values = [0.0] * len(example.tokens) if assumed else example.values
    return Excerpt(
        tuple(example.tokens),
        tuple(float(value) for value in values),
        example.document,
        example.offset - example.at,
        assumed,
    )


def _lent(record: Record) -> Iterable[Excerpt]:
    """Windows of other units of the point, one of each, beginning with the next."""
    atlas: Atlas = record._atlas
    units, found = atlas.units[record.point], 0
    for step in range(1, units):
        other = atlas[record.point, (record.unit + step) % units]
        for example in other.sample[:1]:
            yield _excerpt(example, assumed=True)
            found += 1
        if found >= LENT:
            return
