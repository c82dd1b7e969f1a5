"""What is known of a dictionary without its weights: enough to name it, to draw it, and to say whether a model has its points."""

from __future__ import annotations

import math
from dataclasses import dataclass

from garcon_jupyter.dictionaries.form import Form
from garcon_jupyter.dictionaries.formula import formula
from garcon_jupyter.errors import PointUnavailable, UnclearPoint, UnknownPoint, WrongDictionary
from garcon_jupyter.points import Catalog


@dataclass(frozen=True)
class NamedPoint:
    """A point as a file names it.

    Attributes:
        named: the file's own word for it.
        points: those that it may mean: one where it is clear, none where nothing is known.
    """

    named: str
    points: tuple[str, ...] = ()

    @property
    def point(self) -> str:
        """The one point that it means.

        Raises:
            UnclearPoint: it may mean several, or nothing is known of it.
        """
        if len(self.points) == 1:
            return self.points[0]
        if self.points:
            raise UnclearPoint(
                f"{self.named!r} may be {' or '.join(self.points)}: the file does not say which.",
                "Say it with at=; the right one leaves the least variance unexplained.",
                self.points,
            )
        said = (
            f"{self.named!r} is no name of a point that is known"
            if self.named
            else "no point is named in the files"
        )
        raise UnclearPoint(
            f"Where the dictionary belongs is not known: {said}.",
            "Say it with at=, such as at='layers.3.resid_post'.",
        )


@dataclass(frozen=True)
class Description:
    """A dictionary without its weights.

    Attributes:
        path: of its files.
        format: whose layout they have.
        kind: what the format calls it.
        form: what it computes.
        d_in: numbers that it reads of a token, at each of its inputs.
        d_out: numbers that it writes.
        latents: how many directions it has (of each layer, if it is cross-layer).
        reads: the points that it reads, in order.
        writes: the points that it writes, in order.
        dtype: of the stored weights.
        nbytes: of the stored weights.
        model: that it was trained on, as the files say; "" where they do not.
        heads: whether what it reads are all heads of a token side by side, head by head.
        notes: what a reader of other tools should know, a sentence each.
        untrained: positions of a text that it was not trained on, as its files say, or as its library leaves them out: the first, most
            often, whose values are a hundred times those of others. Splices let them by.
    """

    path: str
    format: str
    kind: str
    form: Form
    d_in: int
    d_out: int
    latents: int
    reads: tuple[NamedPoint, ...]
    writes: tuple[NamedPoint, ...]
    dtype: str
    nbytes: int
    model: str = ""
    heads: bool = False
    notes: tuple[str, ...] = ()
    untrained: tuple[int, ...] = ()

    @property
    def formula(self) -> str:
        """What it computes, in one line."""
        return formula(self.form, self.d_in)

    @property
    def inputs(self) -> int:
        """How many points it reads."""
        return len(self.reads)

    def __str__(self) -> str:
        read = ", ".join(" or ".join(place.points) or place.named or "?" for place in self.reads)
        written = ", ".join(
            " or ".join(place.points) or place.named or "?" for place in self.writes
        )
        where = read if read == written else f"{read} → {written}"
        sizes = f"{self.d_in} → {self.latents}" + (
            f" → {self.d_out}" if self.d_out != self.d_in else ""
        )
        lines = [f"{self.format} {self.kind}, {sizes}, at {where}", self.formula, *self.notes]
        if self.untrained:
            lines.append(
                f"It was not trained on {positions_said(self.untrained)} of a text, which splices let by; bypass=[] lets none by."
            )
        return "\n".join(lines)


def positions_said(positions: tuple[int, ...]) -> str:
    """Positions in words, such as "position 0"."""
    return f"position{'s' if len(positions) > 1 else ''} {', '.join(map(str, positions))}"


def check_belongs(description: Description, catalog: Catalog) -> None:
    """Refuse a dictionary whose points a model lacks, or has with another number of units.

    Raises:
        WrongDictionary: says which point, and both numbers.
        UnclearPoint: its files do not say where it belongs.
    """
    sides = (
        (description.reads, description.d_in, "reads"),
        (description.writes, description.d_out, "writes"),
    )
    for places, width, verb in sides:
        for place in places:
            try:
                address = catalog.point(place.point)
            except (UnknownPoint, PointUnavailable) as error:
                if isinstance(error, UnclearPoint):
                    raise
                raise WrongDictionary(
                    f"{description.path} {verb} {place.point}: {error.problem}",
                    "Give the dictionary of a layer that this model has" + _trained_on(description),
                ) from error
            sizes = [size for size in catalog.shape(address)[2:] if isinstance(size, int)]
            if (has := math.prod(sizes)) != width:
                raise WrongDictionary(
                    f"{description.path} {verb} {width} numbers of {place.point}, where this model has {has}.",
                    "Give a dictionary that was trained on this model" + _trained_on(description),
                )


def _trained_on(description: Description) -> str:
    return f"; its files name {description.model}." if description.model else "."
