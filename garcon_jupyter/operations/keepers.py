"""The probes of operations, which run on the server: what keeps a reduced value, and what edits.

They are sent by value or by name, so this file imports nothing that a server lacks. What they do is a closed set: nothing of a request
is ever run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ProbeFunction = Callable[[Any, Any], None]


def keeper(
    reduce: str,
    position: int | None,
    unit: int | None,
    positions: Sequence[int] | None,
    units: Sequence[int] | None,
    k: int,
    order: str,
) -> ProbeFunction:
    """A probe that keeps what is answered of a value.

    Args:
        reduce: one of :data:`garcon_jupyter.operations.readings.REDUCTIONS`.
        position, unit: the dimensions that positions and units lie along; None where the value has none.
        positions, units: which are kept; None for all.
        k: of "strongest", how many.
        order: by which they are ranked: "largest", "smallest" or "size".
    """

    def keep(save_ctx: Any, tensor: Any) -> None:
        import torch

        value = tensor.detach()
        value = (
            value.to(torch.promote_types(value.dtype, torch.float32)) if reduce != "none" else value
        )
        mask = save_ctx.here.mask
        for dim, chosen in ((position, positions), (unit, units)):
            if dim is not None and chosen is not None:
                value = value.index_select(dim, torch.tensor(chosen, device=value.device))
        if mask is not None and positions is not None:
            mask = mask[:, list(positions)]
        if reduce == "norm":
            value = value.norm(dim=-1)
        elif reduce in ("mean", "max", "min", "sum"):
            value = _over_positions(reduce, value, position, mask)
        elif reduce == "strongest":
            _keep_strongest(save_ctx, value, position, mask, k, order)
            return
        save_ctx.value = value.clone().cpu()

    return keep


def _real(value: Any, position: int | None, mask: Any) -> Any:
    """True where a value is of a real token, in the shape of the value; None where all are."""
    if mask is None or position is None or mask.shape != (value.shape[0], value.shape[position]):
        return None
    shape = [1] * value.dim()
    shape[0], shape[position] = mask.shape
    return mask.to(value.device).bool().reshape(shape).expand(value.shape)


def _over_positions(reduce: str, value: Any, position: int | None, mask: Any) -> Tensor:
    """One number for each unit: over the real tokens of each text."""
    dim = 1 if position is None else position
    real = _real(value, position, mask)
    if reduce in ("max", "min"):
        worst = float("-inf") if reduce == "max" else float("inf")
        kept = value if real is None else value.masked_fill(~real, worst)
        most: Tensor = kept.amax(dim) if reduce == "max" else kept.amin(dim)
        return most
    kept = value if real is None else value.masked_fill(~real, 0)
    total: Tensor = kept.double().sum(dim)
    if reduce == "mean":
        total = total / (value.shape[dim] if real is None else real.sum(dim))
    return total.float()


def _keep_strongest(
    save_ctx: Any, value: Any, position: int | None, mask: Any, k: int, order: str
) -> None:
    """The k strongest numbers of each text, with their places after the batch dimension."""
    import torch

    rank = {"largest": value, "smallest": -value, "size": value.abs()}[order]
    real = _real(value, position, mask)
    if real is not None:
        rank = rank.masked_fill(~real, float("-inf"))
    shape = value.shape[1:]
    best = rank.flatten(1).topk(min(k, rank[0].numel()), dim=1).indices
    places, rest = [], best
    for size in reversed(shape):
        places.append(rest % size)
        rest = rest // size
    save_ctx.places = torch.stack(places[::-1], -1).cpu()
    save_ctx.value = value.flatten(1).gather(1, best).cpu()
    save_ctx.there = rank.flatten(1).gather(1, best).isfinite().cpu()


def keep_tensor(save_ctx: Any, tensor: Any) -> None:
    """A probe that keeps the whole value on the server, for a later pass to be given."""
    save_ctx.tensor = tensor.detach()


def changer(
    kind: str,
    position: int | None,
    unit: int | None,
    positions: Sequence[int] | None,
    units: Sequence[int] | None,
    value: float | Sequence[float] | None,
) -> ProbeFunction:
    """A probe that edits a value at chosen positions and units.

    Args:
        kind: one of :data:`garcon_jupyter.operations.edits.KINDS`.
        position, unit: the dimensions that positions and units lie along; None where the value has none.
        positions, units: where; None for everywhere.
        value: a number, or one for each unit that is edited, or for each place of the last dimension.
    """

    def change(save_ctx: Any, tensor: Any) -> None:
        import torch

        dims = [dim for dim in (position, unit) if dim is not None]
        view = tensor.movedim(
            dims, [*range(len(dims))]
        )  # a view: what is put there is put in place
        index: list[Any] = [slice(None)] * len(dims)
        chosen = {position: positions, unit: units}
        lists: list[Any] = [
            None if (at := chosen[dim]) is None else torch.tensor(at, device=tensor.device)
            for dim in dims
        ]
        if len(dims) == 2 and None not in lists:
            index = [lists[0][:, None], lists[1][None, :]]
        else:
            index = [slice(None) if places is None else places for places in lists]
        part = view[tuple(index)]
        if kind == "patch":
            source = save_ctx.source.tensor.to(tensor.device, tensor.dtype)
            view[tuple(index)] = source.movedim(dims, [*range(len(dims))])[tuple(index)]
            return
        if kind == "ablate":
            view[tuple(index)] = 0
            return
        number = torch.as_tensor(value, device=tensor.device, dtype=tensor.dtype)
        if number.dim() and (units is not None or number.shape[0] != part.shape[-1]):
            number = number.reshape([-1] + [1] * (part.dim() - len(dims)))  # one for each unit
        if kind == "scale":
            view[tuple(index)] = part * number
        elif kind == "add":
            view[tuple(index)] = part + number
        else:
            view[tuple(index)] = number.expand(part.shape)

    return change
