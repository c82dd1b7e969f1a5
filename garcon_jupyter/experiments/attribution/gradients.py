"""Passes that leave value differences times gradients: one forward and one backward, of which only cells travel.

A batch has the clean and the corrupted texts of some pairs. At a point a probe keeps how the two differ until the backward pass comes
by, and multiplies it there with the gradient at the rows of a *path*. Rows of one batch know nothing of each other, so the loss is
the sum of the metric over all rows, and each row's gradient is its own. Only the logits that the metric reads are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.probes import Probe
from garcon_jupyter.experiments.activation_patching.measures import Measure
from garcon_jupyter.experiments.attribution.pair_batches import CLEAN, CORRUPTED, PairBatch
from garcon_jupyter.experiments.attribution.paths import Path
from garcon_jupyter.experiments.clean_passes import contexts

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client


@dataclass(frozen=True)
class GradientReading:
    """What is made of differences and gradients at some points.

    Attributes:
        points: names of points of one kind.
        path: roles whose gradients are averaged.
        reduce: of (clean − corrupted) × gradient, [pair, …], to what travels; runs on the server.
    """

    points: tuple[str, ...]
    path: Path
    reduce: Callable[[Any], Any]


def weigh(
    rmodel: Client,
    batch: PairBatch,
    measure: Measure,
    readings: Sequence[GradientReading],
    edits: Mapping[str, Path],
) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """One forward and one backward.

    Args:
        edits: for each point the rows that are given values between corrupted and clean there.

    Returns:
        The metric of each row; and for each reading, by point, what it makes of
        Σ (clean − corrupted) × gradient, in units of the metric.
    """
    made, roles = rmodel.probe_points, batch.roles
    with contexts(rmodel, "attribution") as name:
        probes = [
            made[point].probe(between(path, roles), name=name) for point, path in edits.items()
        ]
        for number, reading in enumerate(readings):
            entry = made[reading.points[0]]
            keep = entry.probe(_keep_difference(number, roles), name=name, read_only=True)
            multiply = entry.probe(
                _multiply(number, roles, reading), grad=True, name=name, read_only=True
            )
            probes += [*_at(reading.points, keep), *_at(reading.points, multiply)]
        measured = rmodel.backward(
            batch.ids(), batch.metric(measure), probes=probes, logits=measure.reads, each_row=True
        )
        recordings = rmodel.recordings(fetch=False)
        handles = [
            recordings[point, name].handle(f"cells_{number}")
            for number, reading in enumerate(readings)
            for point in reading.points
        ]
        fetched = rmodel.fetch(*handles)
    found = iter(fetched if len(handles) > 1 else [fetched])
    return measured, [{point: next(found) for point in reading.points} for reading in readings]


def _at(points: Sequence[str], probe: Probe) -> list[Probe]:
    """The same probe at several points of one kind: its function is pickled once."""
    return [Probe(replace(probe.spec, point=point)) for point in points]


def between(path: Path, roles: int) -> Callable[[Any, Any], Any]:
    """A probe that sets the rows of a path; no gradient goes on from there, as each value is given."""
    shares = list(zip(path.rows, path.shares, strict=True))

    def set_rows(save_ctx: Any, tensor: Any) -> Any:
        import torch

        new = tensor.unflatten(0, (roles, -1)).clone()
        clean, corrupted = new[CLEAN].detach(), new[CORRUPTED].detach()
        for row, share in shares:
            new[row] = torch.lerp(corrupted, clean, share)
        return new.flatten(0, 1)

    return set_rows


def _keep_difference(number: int, roles: int) -> Callable[[Any, Any], None]:
    """A probe that keeps how the clean values differ from the corrupted ones until the gradient comes."""
    kept = f"difference_{number}"

    def keep_difference(save_ctx: Any, tensor: Any) -> None:
        import torch

        each = tensor.detach().unflatten(0, (roles, -1))
        clean, corrupted = each[CLEAN], each[CORRUPTED]
        # What is masked in both runs is −∞ in both.
        setattr(save_ctx, kept, torch.where(clean == corrupted, 0, clean - corrupted))

    return keep_difference


def _multiply(number: int, roles: int, reading: GradientReading) -> Callable[[Any, Any], None]:
    """A gradient probe that leaves the difference times the gradient, reduced, and lets go of the difference."""
    kept, left = f"difference_{number}", f"cells_{number}"
    rows, weights, reduce = list(reading.path.rows), list(reading.path.weights), reading.reduce

    def multiply(save_ctx: Any, tensor: Any) -> None:
        each = tensor.unflatten(0, (roles, -1))
        gradient = sum(
            each[row].float() * weight for row, weight in zip(rows, weights, strict=True)
        )
        setattr(save_ctx, left, reduce(getattr(save_ctx, kept).float() * gradient).cpu())
        delattr(save_ctx, kept)

    return multiply
