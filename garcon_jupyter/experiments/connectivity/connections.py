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

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import decoder
from garcon_jupyter.experiments.connectivity.ends import End, ends
from garcon_jupyter.experiments.connectivity.heads import limits
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Side = Literal["reader", "writer"]

_AT_ONCE = 2**24
"""Products at a time: 64 MiB of float32."""


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
    own, others = _sides(rmodel, writers, readers, per, k)
    directions = own.directions(rmodel)
    units = _units(own, len(directions), unit)
    values, layers, partners, squares = _strongest(rmodel, directions[list(units)], others, k)
    share = values.nan_to_num().square().sum(1) / squares
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


def _units(own: End, there: int, wanted: int | Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of the units that are asked for."""
    if wanted is None:
        return tuple(range(there))
    units = tuple(map(int, [wanted] if isinstance(wanted, int) else wanted))
    for number in units:
        if not 0 <= number < there:
            raise BadRequest(
                f"{own.address.name} has no {own.units} {number}.",
                f"It has 0 to {there - 1}.",
            )
    if not units:
        raise BadRequest("There is no unit.", "Give at least one, or None for all.")
    return units


def _strongest(
    rmodel: Client, own: Tensor, others: Sequence[End], k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of units [n, width, D] the k strongest partners: values, layers and numbers [n, k], and the sum of all squares [n]."""
    import torch

    values = torch.full((len(own), k), math.nan)
    layers = torch.full((len(own), k), -1)
    partners = layers.clone()
    squares = torch.zeros(len(own), dtype=torch.float64)
    for end in others:
        layer = -1 if end.address.layer is None else end.address.layer
        for part, found in _products(own, end.directions(rmodel)):
            squares[part] += found.double().square().sum(1)
            numbers = torch.arange(found.shape[1]).expand_as(found)
            together = torch.cat([values[part], found], 1)
            best = together.abs().nan_to_num(nan=-1.0).topk(k, 1).indices
            values[part] = together.gather(1, best)
            partners[part] = torch.cat([partners[part], numbers], 1).gather(1, best)
            here = torch.full_like(numbers, layer)
            layers[part] = torch.cat([layers[part], here], 1).gather(1, best)
    return values, layers, partners, squares.float()


def _products(own: Tensor, others: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Connections [rows, partner] of some rows at a time, and which rows: products, or lengths where a side has several directions."""
    flat = others.flatten(0, 1)
    step = max(1, _AT_ONCE // (len(flat) * own.shape[1]))
    for first in range(0, len(own), step):
        part = slice(first, first + step)
        rows = own[part]
        found = rows.flatten(0, 1) @ flat.T
        if own.shape[1] == others.shape[1] == 1:
            yield part, found
            continue
        found = found.view(len(rows), own.shape[1], len(others), others.shape[1])
        yield part, found.square().sum((1, 3)).sqrt()


def _limits(rmodel: Client, own: End, others: Sequence[End]) -> list[str]:
    """What the weights of these ends do not say."""
    both, parameters = (own, *others), rmodel.catalog.parameters
    heads = [end.address.layer for end in both if end.units == "head"]
    found = dict.fromkeys(limits(rmodel.catalog, (i for i in heads if i is not None)))
    for at in (f"layers.{end.address.layer}.mlp" for end in both if end.units == "neuron"):
        if any(f"{at}.{norm}.weight" in parameters for norm in ("post_norm", "neuron_norm")):
            found[
                "what neurons write passes a norm: its gain is folded in, and what it divides by is left out"
            ] = None
        if f"{at}.up_proj.bias" in parameters:
            found["biases are left out"] = None
    return list(found)
