"""Units set to zero, each in a row of its own beside the run as it is: what they do in all, with nothing left out.

How long it is what latents write is seen beside it, by how far the reconstruction of the row is from that of the run as it is. Where
latents write into later layers as well, later latents would answer to what the ablation changes; so that is seen in a pass in which
every row reads what the run as it is reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.probes import Probe
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


Places = dict[int, list[tuple[int, int, int]]]
"""(row, position, number) of units, by the number of their writer."""


def _together(
    rmodel: Client,
    tokens: Tokens,
    metric: Callable[[Any], Any],
    chosen: Sequence[UnitWriter],
    units: Sequence[PlacedUnit],
) -> tuple[Tensor, Tensor]:
    """Some units, in a request; in two, where some write into several layers."""
    import torch

    ids = tokens.ids.expand(1 + len(units), -1)
    places: Places = {}
    for row, unit in enumerate(units, 1):
        places.setdefault(unit.writer, []).append((row, unit.position, unit.number))
    across = {index: mine for index, mine in places.items() if len(chosen[index].rebuilt) > 1}
    alone = {index: mine for index, mine in places.items() if index not in across}
    squares = torch.full((len(units),), float("nan"), dtype=torch.float64)
    with contexts(rmodel, "ablation") as name:
        probes = _zero_probes(rmodel, chosen, places, name)
        probes += _length_probes(rmodel, written := _written(chosen, alone), name)
        measured = rmodel.forward(ids, probes=probes, logits=metric).double()
        _add_squares(rmodel, written, name, squares)
        if across:
            of = {chosen[index].dictionary for index in across}
            probes = [
                rmodel.probe_points[writer.host].probe(_as_it_is, name=name)
                for writer in chosen
                if writer.dictionary in of
            ]
            probes += _zero_probes(rmodel, chosen, across, name)
            probes += _length_probes(rmodel, written := _written(chosen, across), name)
            rmodel.forward(ids, probes=probes, logits="none")
            _add_squares(rmodel, written, name, squares)
    return measured[0] - measured[1:], squares.sqrt()


def _written(chosen: Sequence[UnitWriter], places: Places) -> dict[str, list[tuple[int, int, int]]]:
    """By reconstruction the places of the latents that are in it."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for index, mine in places.items():
        for point in chosen[index].rebuilt:
            found.setdefault(point, []).extend(mine)
    return found


def _zero_probes(
    rmodel: Client, chosen: Sequence[UnitWriter], places: Places, name: str
) -> list[Probe]:
    return [
        rmodel.probe_points[chosen[index].point].probe(_to_zero(mine), name=name)
        for index, mine in places.items()
    ]


def _length_probes(
    rmodel: Client, places: Mapping[str, Sequence[tuple[int, int, int]]], name: str
) -> list[Probe]:
    return [
        rmodel.probe_points[point].probe(_squares(mine), name=name, read_only=True)
        for point, mine in places.items()
    ]


def _add_squares(
    rmodel: Client,
    places: Mapping[str, Sequence[tuple[int, int, int]]],
    name: str,
    squares: Tensor,
) -> None:
    """Add to each unit's number what the reconstructions say that it writes, squared."""
    if not places:
        return
    recordings = rmodel.recordings(fetch=False)
    handles = [recordings[point, name].handle("squares") for point in places]
    got = rmodel.fetch(*handles)
    for mine, found in zip(places.values(), got if len(handles) > 1 else [got], strict=True):
        rows = [row - 1 for row, _, _ in mine]
        squares[rows] = squares[rows].nan_to_num(0.0) + found.double()


def _to_zero(places: Sequence[tuple[int, int, int]]) -> Callable[[Any, Any], Any]:
    """A probe that sets a unit to zero in each row."""
    rows, positions, numbers = (list(axis) for axis in zip(*places, strict=True))

    def to_zero(save_ctx: Any, tensor: Any) -> Any:
        new = tensor.clone()
        new[rows, positions, numbers] = 0
        return new

    return to_zero


def _as_it_is(save_ctx: Any, tensor: Any) -> Any:
    """A probe by which every row goes on with what the first has."""
    return tensor[:1].expand_as(tensor).clone()


def _squares(places: Sequence[tuple[int, int, int]]) -> Callable[[Any, Any], None]:
    """A probe that keeps how far each row's reconstruction is from that of the run as it is, squared."""
    rows, positions, _ = (list(axis) for axis in zip(*places, strict=True))

    def squares(save_ctx: Any, tensor: Any) -> None:
        change = tensor[rows, positions].flatten(1) - tensor[0, positions].flatten(1)
        save_ctx.squares = change.double().pow(2).sum(-1).cpu()

    return squares
