"""What a point's value is made of, as functions of other values: what the table of identities is written with.

A formula is given the values of a layer, and returns the value of the point, what others make of it, and what the
difference is relative to, where that is neither of them. It raises :class:`~garcon_jupyter.certificate.values.Missing` where
the layer lacks what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from garcon_jupyter.certificate.closeness import norms
from garcon_jupyter.certificate.values import Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor

Compared = tuple["Tensor", "Tensor"] | tuple["Tensor", "Tensor", "Tensor"]
"""(the point's value, what others make of it, perhaps what their difference is relative to): [b, p, …], and [b, p]."""

Formula = Callable[[PointValues], Compared]

MOST_EPSILON = 1e-3
"""What a norm may add to a mean square: no model adds more."""


# -- sums and projections ------------------------------------------------------------------------


def total(of: str, *parts: str) -> Formula:
    """The sum of several points."""

    def formula(n: PointValues) -> Compared:
        values = [n[part] for part in parts]
        return n[of], sum(values[1:], values[0]), norms(n[of], *values)

    return formula


def same(of: str, source: str) -> Formula:
    """The very value of another point."""
    return lambda n: (n[of], n[source])


def multiple(of: str, source: str) -> Formula:
    """Another point times one number."""
    return lambda n: (n[of], n[source] * factor(n[of], n[source]))


def factor(given: Tensor, source: Tensor) -> Tensor:
    """The number by which `source` is nearest to `given`, in the first text: others may have edits."""
    given, source = given[:1], source[:1]
    return (given * source).sum() / (source * source).sum().clamp(min=1e-300)


def projected(of: str, source: str, by: str) -> Formula:
    """Another point through a projection, with its bias."""

    def formula(n: PointValues) -> Compared:
        made = n.projected(by, n[source])
        return made.of(n[of]), made.out

    return formula


def projected_and_own(
    of: str, source: str, by: str, down: str, up: str, needed: bool = False
) -> Formula:
    """Another point through a projection that layers share, and through a narrow one of the layer's own.

    Args:
        needed: it must have one.
    """

    def formula(n: PointValues) -> Compared:
        own = f"{n.prefix}{down}" in n.parameters
        if needed and not own:
            raise Missing(down)
        made = n.projected(by, n[source])
        if not own:
            return made.of(n[of]), made.out
        middle = n.projected(down, n[source])
        if not middle.whole:
            raise Missing(f"all of {down}")
        rows = n.parameters.rows(f"{n.prefix}{up}", which=made.which)
        return made.of(n[of]), made.out + middle.out @ rows.value.T

    return formula


def times_one_number(formula: Formula) -> Formula:
    """What another formula makes, times one number."""

    def times(n: PointValues) -> Compared:
        given, made, *_ = formula(n)
        return given, made * factor(given, made)

    return times


def clipped(of: str, source: str, by: str) -> Formula:
    """Another point through a projection, and cut off at the largest number that is there."""

    def formula(n: PointValues) -> Compared:
        made = n.projected(by, n[source])
        large = n[of][:1].abs()
        bound = large.max()
        if int((large == bound).sum()) < 3:
            raise Missing("nothing is cut off")
        return made.of(n[of]), made.out.clamp(-bound, bound)

    return formula


def embedded(of: str, by: str, positions: bool = False) -> Formula:
    """The rows of an embedding that the tokens, or their positions, choose; times one number."""

    def formula(n: PointValues) -> Compared:
        import torch

        if of not in n:
            raise Missing(of)
        length = n.ids.shape[1]
        which = torch.arange(length) if positions else n.ids.flatten().unique()
        rows = n.parameters.rows(by, which=which)
        place = which if positions else torch.searchsorted(which, n.ids)
        found = rows.value[place].expand(*n[of].shape[:2], -1)
        return n[of], found * factor(n[of], found)

    return formula


# -- norms ---------------------------------------------------------------------------------------


def centred(x: Tensor, on: bool) -> Tensor:
    """A value less its mean, as a LayerNorm takes it; an RMSNorm takes it as it is."""
    return x - x.mean(-1, keepdim=True) if on else x


def epsilon(square_of_scale: Tensor, square: Tensor) -> Tensor:
    """What a norm adds to the mean square: the same at every token, so that of the first text."""
    return (square_of_scale - square)[:1].median().clamp(0.0, MOST_EPSILON)


def denominator(norm: str, *sources: str, centre: bool) -> Formula:
    """The denominator of a norm: √(mean square + ε) of the first of `sources` that the layer has."""

    def formula(n: PointValues) -> Compared:
        square = centred(_entering(n, sources), centre).pow(2).mean(-1, keepdim=True)
        scale = n[f"{norm}.scale"]
        return scale, (square + epsilon(scale.pow(2), square)).sqrt()

    return formula


def normalized(norm: str, *sources: str, centre: bool) -> Formula:
    """What a norm reads, by its denominator."""

    def formula(n: PointValues) -> Compared:
        return n[f"{norm}.normalized"], centred(_entering(n, sources), centre) / n[f"{norm}.scale"]

    return formula


def _entering(n: PointValues, sources: tuple[str, ...]) -> Tensor:
    """The first of several points that the layer has; ``last:`` is the last layer's, and ``+`` stands between those of a sum."""
    for source in sources:
        layer = n.at(n.catalog.n_layers - 1) if source.startswith("last:") else n
        names = source.removeprefix("last:").split("+")
        if all(name in layer for name in names):
            values = [layer[name] for name in names]
            return sum(values[1:], values[0])
    raise Missing(sources[-1])


def gained(norm: str) -> Formula:
    """A normalised value times the gain, and the bias; without either where the norm has none."""

    def formula(n: PointValues) -> Compared:
        gain, bias = n.optional(f"{norm}.weight"), n.optional(f"{norm}.bias")
        made = n[f"{norm}.normalized"]
        return n[f"{norm}.out"], (made if isinstance(gain, float) else made * gain) + bias

    return formula


def normed(of: str, source: str, by: str, centre: bool, together: bool = False) -> Formula:
    """A point through a norm whose inside has no points.

    Args:
        by: of its gain and bias.
        together: over all heads at once; else over the last dimension alone.
    """

    def formula(n: PointValues) -> Compared:
        value, gain = n[source], n.weight(f"{by}.weight")
        heads = value.shape[2:]
        if together or gain.numel() not in (heads[-1], math.prod(heads)):
            value = value.flatten(2)
        gain, bias = _shaped(gain, value), n.optional(f"{by}.bias")
        middle = centred(value, centre)
        target = n[of].reshape(value.shape) - (
            bias if isinstance(bias, float) else _shaped(bias, value)
        )
        return target, scaled_by_token(target, middle, gain, True)

    return formula


def rescaled(of: str, source: str, by: str, centre: bool) -> Formula:
    """A point through a norm of which the denominator is a point as well.

    Args:
        by: of its denominator, gain and bias.
    """

    def formula(n: PointValues) -> Compared:
        gain, bias = n.weight(f"{by}.weight"), n.optional(f"{by}.bias")
        return n[of], centred(n[source], centre) / n[f"{by}.scale"] * gain + bias

    return formula


def scaled_by_token(given: Tensor, x: Tensor, gain: Tensor | float, whole: bool) -> Tensor:
    """x / √(mean square + ε) × gain, with the ε that fits `given`; the mean is over the last dimension.

    Args:
        whole: whether all of x is there; of a part the number is taken that fits each token best.
    """
    direction = x * gain
    squares = (direction**2).sum(-1, keepdim=True).clamp(min=1e-300)
    inverse = (given * direction).sum(-1, keepdim=True) / squares
    if not whole:
        return direction * inverse
    square = x.pow(2).mean(-1, keepdim=True)
    made: Tensor = direction / (square + epsilon(inverse.pow(-2), square)).sqrt()
    return made


def _shaped(gain: Tensor, value: Tensor) -> Tensor:
    """A gain as the last dimensions of a value have it."""
    return gain if gain.numel() == value.shape[-1] else gain.reshape(value.shape[2:])
