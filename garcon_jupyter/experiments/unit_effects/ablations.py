"""Units set to zero, each in a row of its own beside the run as it is: what they do in all, with nothing left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.background import Pace
from garcon_jupyter.experiments.clean_passes import contexts
from garcon_jupyter.experiments.unit_effects.gradient_pass import PlacedUnit
from garcon_jupyter.experiments.unit_effects.writers import UnitWriter

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.tokens import Tokens

TOKENS = 1024
"""Tokens of a request at most."""

LEAST_UNITS = 16
"""Units of a request at least, where its tokens allow: the run as it is is beside them in each."""


def ablated(
    rmodel: Client,
    tokens: Tokens,
    metric: Callable[[Any], Any],
    chosen: Sequence[UnitWriter],
    units: Sequence[PlacedUnit],
) -> tuple[Tensor, Tensor]:
    """What the metric loses when each unit is zero, and the length of what each stops writing, [unit]; NaN where no dictionary tells.

    Args:
        metric: logits [row, p, V] to a number for each row.
    """
    import torch

    length = tokens.shape[1]
    most = max(1, TOKENS // length - 1)
    least = min(LEAST_UNITS, most)
    pace, left = Pace(least, most), list(units)
    lost, written = [], []
    while left:
        size = max(pace.size, least)
        part, left = left[:size], left[size:]
        with pace.piece(len(part)):
            effects, lengths = _together(rmodel, tokens, metric, chosen, part)
        lost.append(effects)
        written.append(lengths)
    none = torch.empty(0, dtype=torch.float64)
    return torch.cat([none, *lost]), torch.cat([none, *written])


def _together(
    rmodel: Client,
    tokens: Tokens,
    metric: Callable[[Any], Any],
    chosen: Sequence[UnitWriter],
    units: Sequence[PlacedUnit],
) -> tuple[Tensor, Tensor]:
    """Some units, in a request."""
    import torch

    ids = tokens.ids.expand(1 + len(units), -1)
    places: dict[int, list[tuple[int, int, int]]] = {}
    for row, unit in enumerate(units, 1):
        places.setdefault(unit.writer, []).append((row, unit.position, unit.number))
    points = rmodel.probe_points
    told = [index for index in places if chosen[index].error]
    lengths = torch.full((len(units),), float("nan"), dtype=torch.float64)
    with contexts(rmodel, "ablation") as name:
        probes = [
            points[chosen[index].point].probe(_to_zero(mine), name=name)
            for index, mine in places.items()
        ]
        rebuilt = {
            index: f"{chosen[index].error.rpartition('.')[0]}.reconstruction" for index in told
        }
        probes += [
            points[rebuilt[index]].probe(_lengths(places[index]), name=name, read_only=True)
            for index in told
        ]
        measured = rmodel.forward(ids, probes=probes, logits=metric).double()
        if told:
            recordings = rmodel.recordings(fetch=False)
            handles = [recordings[rebuilt[index], name].handle("lengths") for index in told]
            got = rmodel.fetch(*handles)
            for index, found in zip(told, got if len(told) > 1 else [got], strict=True):
                lengths[[row - 1 for row, _, _ in places[index]]] = found.double()
    return measured[0] - measured[1:], lengths


def _to_zero(places: Sequence[tuple[int, int, int]]) -> Callable[[Any, Any], Any]:
    """A probe that sets a unit to zero in each row."""
    rows, positions, numbers = (list(axis) for axis in zip(*places, strict=True))

    def to_zero(save_ctx: Any, tensor: Any) -> Any:
        new = tensor.clone()
        new[rows, positions, numbers] = 0
        return new

    return to_zero


def _lengths(places: Sequence[tuple[int, int, int]]) -> Callable[[Any, Any], None]:
    """A probe that keeps how far each row's reconstruction is from that of the run as it is."""
    rows, positions, _ = (list(axis) for axis in zip(*places, strict=True))

    def lengths(save_ctx: Any, tensor: Any) -> None:
        change = tensor[rows, positions].flatten(1) - tensor[0, positions].flatten(1)
        save_ctx.lengths = change.norm(dim=-1).cpu()

    return lengths
