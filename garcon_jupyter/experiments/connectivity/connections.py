"""The strongest connections between units: neurons, heads and tokens, from the weights alone.

connections(rmodel, "layers.3.mlp.post_activation", "layers.5.mlp.pre_activation", k=8)         # of a pair of layers
connections(rmodel, "layers.*.attn.z", "layers.5.mlp.pre_activation", unit=17)                  # heads → a neuron
connections(rmodel, "embed.out", "layers.5.mlp.pre_activation", unit=17)                        # tokens → it
connections(rmodel, "layers.5.mlp.post_activation", "logits", unit=17, per="writer")            # it → tokens

Of two units with one direction each, such as neurons, a connection is the product of what one writes and what the other reads: by how much
a neuron's input changes for each unit of another's output, up to what the norm in between divides by. Of a head it is the length of all
that it can write along a direction, or read of it, so that it has no sign.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import decoder
from garcon_jupyter.experiments.connectivity.ends import End, ends, limits_of_neurons
from garcon_jupyter.experiments.connectivity.heads import limits
from garcon_jupyter.experiments.connectivity.strongest import Strongest, products, share_of
from garcon_jupyter.experiments.connectivity.weights import RankWeights, at_the_weights
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Side = Literal["reader", "writer"]


def connections(
    rmodel: Client,
    writers: str,
    readers: str,
    k: int = 8,
    unit: int | Sequence[int] | None = None,
    per: Side = "reader",
) -> ExperimentResult:
    """The k strongest connections of each unit, from the weights alone, and how much of all they are.

    Args:
        writers: points that write into the stream: ``embed.out`` (tokens), ``layers.3.attn.z`` (heads),
            ``layers.3.mlp.post_activation`` (neurons); a pattern for those of several layers.
        readers: points that read it: ``layers.5.attn.q``, ``.k``, ``.v`` (heads), ``layers.5.mlp.pre_activation`` and
            ``.pre_linear`` (neurons, by gate and by linear part), ``logits`` (tokens); or a pattern.
        k: how many.
        unit: only of these units of the side that `per` names; None for all.
        per: "reader" for the k strongest writers of each reader, "writer" for the k strongest readers of each writer. That side is one
            point, the other may be a pattern, of which only what is before (or behind) it counts.

    Returns:
        Values [unit, rank], the strongest by size first, NaN where there are fewer than k. ``more`` has, like the values, the ``partner`` (−1
        for none) and its ``layer``, which tokens have not, and by unit the ``share``: the sum of squares of the k over that of all. The names
        of partners that are tokens are in ``facts["names"]``.

    Raises:
        UnknownPoint, PointUnavailable: there is no such point, or its weights do not say what it reads or writes; says why.
        BadRequest: a point does not write, or does not read; several points where one is needed; no unit of that number; nothing
            of the other side is before (or behind) it.

    Examples:
        >>> found = experiments.connections(
        ...     rmodel, "layers.0.mlp.post_activation", "layers.1.mlp.pre_activation", k=2, unit=5
        ... )
        >>> found.more["partner"].tolist()
        [[101, 131]]
        >>> round(found.more["share"].item(), 3)
        0.016
    """
    import torch

    own, others = _sides(rmodel, writers, readers, per, k)
    wanted = None if unit is None else tuple(map(int, [unit] if isinstance(unit, int) else unit))
    ask = StrongestPartners(own.address.name, [end.address.name for end in others], per, k, wanted)
    parts = at_the_weights(rmodel, ask)
    values, numbers = (
        torch.cat([getattr(p.found, of) for p in parts]) for of in ("values", "partners")
    )
    share = torch.cat([part.found.share for part in parts]).float()
    units = tuple(number for part in parts for number in part.units)
    layers, partners = _places(numbers, others, parts[0].sizes)
    facts = {
        "model": rmodel.facts["name"],
        "writers": writers,
        "readers": readers,
        "per": per,
        "limits": _limits(rmodel, own, others),
    }
    more = {"layer": layers, "partner": partners, "share": share}
    if others[0].units == "token":
        del more["layer"]
        words = decoder(rmodel, [n for n in partners.flatten().tolist() if n >= 0])
        facts["names"] = {"partner": {str(number): word for number, word in words.items()}}
    writer, reader = (others[0], own) if per == "reader" else (own, others[0])
    return ExperimentResult(
        "connections",
        values,
        {own.units: units, "rank": tuple(range(1, values.shape[1] + 1))},
        f"what {writer.units}s write that {reader.units}s read, up to what norms divide by",
        facts,
        more,
    )


def _sides(rmodel: Client, writers: str, readers: str, per: Side, k: int) -> tuple[End, list[End]]:
    """The one end whose units are told of, and those at the other side that it is connected with."""
    if per not in get_args(Side):
        raise BadRequest(f"per is {per!r}.", "'reader' or 'writer' is whose strongest are told.")
    if k < 1:
        raise BadRequest(f"k is {k}.", "Ask for at least 1.")
    writing, reading = ends(rmodel, writers, "writers"), ends(rmodel, readers, "readers")
    many, others = (reading, writing) if per == "reader" else (writing, reading)
    if len(many) != 1:
        raise BadRequest(
            f"{readers if per == 'reader' else writers!r} selects {len(many)} points, and the {per} is one.",
            f"Such as {many[0].address.name}; ask for each by its name.",
        )
    own = many[0]
    if per == "reader":
        kept = [end for end in others if end.place < own.place]
    else:
        kept = [end for end in others if end.place > own.place]
    if not kept:
        order = "comes before" if per == "reader" else "comes behind"
        raise BadRequest(
            f"Nothing of {writers if per == 'reader' else readers} {order} {own.address.name}.",
            "What is written is read in later layers, and by the MLP of a layer after its attention.",
        )
    return own, kept


@dataclass(frozen=True)
class FoundPartners:
    """What one rank found.

    Attributes:
        units: the units that were its own.
        found: their partners, numbered over all points of the other side.
        sizes: how many units each of these points has.
    """

    units: tuple[int, ...]
    found: Strongest
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class StrongestPartners:
    """The strongest partners of units of one point, as a function of the weights.

    Attributes:
        own: the point.
        others: points of the other side.
        per: which side the units are of.
        k: how many partners.
        units: which units; None for all.
    """

    own: str
    others: Sequence[str]
    per: Side
    k: int
    units: tuple[int, ...] | None

    def __call__(self, weights: RankWeights) -> FoundPartners:
        """Of the units that are this rank's.

        Raises:
            BadRequest: there is no unit of that number.
        """
        mine, other = ("readers", "writers") if self.per == "reader" else ("writers", "readers")
        own = ends(weights, self.own, mine)[0]
        directions = own.directions(weights)
        units = _units(own, len(directions), self.units)
        units = units[share_of(weights.rank, weights.world, len(units))]
        directions = directions[list(units)]
        found, sizes = Strongest.none(len(units), self.k, directions), [0]
        for name in self.others:
            partners = ends(weights, name, other)[0].directions(weights)
            for part, numbers in products(directions, partners):
                found.add(part, numbers, sum(sizes))
            sizes.append(len(partners))
        return FoundPartners(units, found.cpu(), tuple(sizes[1:]))


def _units(own: End, there: int, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """The numbers of the units that are asked for."""
    if wanted is None:
        return tuple(range(there))
    for number in wanted:
        if not 0 <= number < there:
            raise BadRequest(
                f"{own.address.name} has no {own.units} {number}.",
                f"It has 0 to {there - 1}.",
            )
    if not wanted:
        raise BadRequest("There is no unit.", "Give at least one, or None for all.")
    return wanted


def _places(numbers: Tensor, others: Sequence[End], sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The layer, and the number in its point, of partners that are numbered over all points; −1 where there is none."""
    import torch

    starts = torch.tensor([0, *itertools.accumulate(sizes)])
    at = torch.bucketize(numbers, starts, right=True) - 1
    layers = [-1 if end.address.layer is None else end.address.layer for end in others]
    there = numbers >= 0
    of_point = torch.tensor(layers)[at.clamp_min(0)]
    return of_point.where(there, -1), (numbers - starts[at.clamp_min(0)]).where(there, -1)


def _limits(rmodel: Client, own: End, others: Sequence[End]) -> list[str]:
    """What the weights of these ends do not say."""
    layers: dict[str, list[int]] = {"head": [], "neuron": [], "token": []}
    for end in (own, *others):
        if end.address.layer is not None:
            layers[end.units].append(end.address.layer)
    found = [*limits(rmodel.catalog, layers["head"])]
    return [*dict.fromkeys([*found, *limits_of_neurons(rmodel.catalog, layers["neuron"])])]
