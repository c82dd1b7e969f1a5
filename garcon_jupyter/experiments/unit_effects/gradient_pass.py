"""One forward and one backward over two rows of a prompt, of which only the strongest travel.

In the first row gradients are the model's own. In the second, the gradient at each writer's entry into the stream is replaced by
the direction of the answer: what arrives at the writer's units is then what they do directly, past all other parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.probes import Probe
from garcon_jupyter.experiments.clean_passes import contexts
from garcon_jupyter.experiments.unit_effects.writers import HEADS, NEURONS, UnitWriter

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.tokens import Tokens

ROWS = 2
OWN, DIRECT = 0, 1

ACTIVATION, BY_GRADIENT, BY_DIRECT_WAY = "activation", "activation × gradient", "direct effect"
RANKED = (BY_GRADIENT, ACTIVATION, BY_DIRECT_WAY)
"""By which units can be the strongest."""


@dataclass(frozen=True)
class PlacedUnit:
    """A unit of a writer at a position, with what the pass says of it.

    Attributes:
        writer: its number among the writers.
        written: length of what it writes; NaN for latents, of which ablation tells.
    """

    writer: int
    position: int
    number: int
    activation: float
    by_gradient: float
    direct: float
    written: float

    def strength(self, by: str) -> float:
        """The size of one of its numbers."""
        of = {
            ACTIVATION: self.activation,
            BY_GRADIENT: self.by_gradient,
            BY_DIRECT_WAY: self.direct,
        }
        return abs(of[by])


@dataclass
class GradientsOfUnits:
    """What the pass finds.

    Attributes:
        units: the strongest, by size.
        sums: of each dictionary, activation × gradient of all its latents, gradient × error, and what bias and skip connection
            have of output × gradient.
    """

    units: list[PlacedUnit]
    sums: dict[str, dict[str, float]] = field(default_factory=dict)


def gradients_of_units(
    rmodel: Client,
    tokens: Tokens,
    loss: Callable[[Any], Any],
    reads: str,
    chosen: Sequence[UnitWriter],
    directions: Sequence[Tensor | None],
    by: str,
    strongest: int,
) -> GradientsOfUnits:
    """The strongest units of all writers.

    Args:
        loss: logits [row, p, V] to a number for each row.
        directions: of each writer the direction of the answer at its entry, [p, D]; None where it has no direct way.
    """
    ids = tokens.ids.expand(ROWS, -1)
    summed = [w.error for w in chosen if w.error and _splice_of(rmodel, w.dictionary) != "none"]
    told = {
        w.rebuilt[0]: way is not None
        for w, way in zip(chosen, directions, strict=True)
        if w.rebuilt
    }
    with contexts(rmodel, "effects") as name:
        probes: list[Probe] = []
        for writer, direction in zip(chosen, directions, strict=True):
            linear = direction is not None and all(told[point] for point in writer.rebuilt)
            probes += _probes(
                rmodel, writer, direction, linear, by, strongest, name, writer.error in summed
            )
        rmodel.backward(ids, loss, probes=probes, logits=reads, each_row=True)
        recordings = rmodel.recordings(fetch=False)
        handles = [
            recordings[writer.point, name].handle(what)
            for writer in chosen
            for what in ("places", "numbers", "total")
        ]
        points = [p for w in chosen if w.error in summed for p in (w.rebuilt[0], w.error)]
        handles += [recordings[point, name].handle("sum") for point in points]
        got = iter(rmodel.fetch(*handles))
    units: list[PlacedUnit] = []
    totals = []
    for index in range(len(chosen)):
        places, numbers, total = next(got), next(got), next(got)
        totals.append(float(total))
        each = zip(places.tolist(), numbers.tolist(), strict=True)
        units += [PlacedUnit(index, *place, *values) for place, values in each]
    units.sort(key=lambda unit: -unit.strength(by))
    sums: dict[str, dict[str, float]] = {}
    for writer, total in zip(chosen, totals, strict=True):
        if writer.error in summed:
            rebuilt, error = float(next(got)), float(next(got))
            found = sums.setdefault(writer.dictionary, {"latents": 0.0, "error": 0.0, "bias": 0.0})
            for part, more in (("latents", total), ("error", error), ("bias", rebuilt - total)):
                found[part] += more  # of all its layers together
    return GradientsOfUnits(units[:strongest], sums)


def _splice_of(rmodel: Client, dictionary: str) -> str:
    return next((s.error for s in rmodel.splices if s.dictionary == dictionary), "live")


def _probes(
    rmodel: Client,
    writer: UnitWriter,
    direction: Tensor | None,
    linear: bool,
    by: str,
    strongest: int,
    name: str,
    summed: bool,
) -> list[Probe]:
    """Those of one writer; `linear` where all that its units write has a direct way."""
    points = rmodel.probe_points
    params = [writer.weight] if writer.weight else []
    numbers = _rank(writer.kind, writer.weight, by, strongest, linear)
    made = [
        points[writer.point].probe(_keep, name=name, read_only=True),
        points[writer.point].probe(numbers, grad=True, name=name, read_only=True, params=params),
        points[writer.entry].probe(_replace(direction), grad=True, name=name),
    ]
    if summed:
        for point in (writer.rebuilt[0], writer.error):
            made.append(points[point].probe(_keep, name=name, read_only=True))
            made.append(points[point].probe(_sum, grad=True, name=name, read_only=True))
    return made


def _keep(save_ctx: Any, tensor: Any) -> None:
    save_ctx.value = tensor[0].detach()


def _sum(save_ctx: Any, tensor: Any) -> None:
    # Of the first row, whose gradient no probe replaces.
    save_ctx.sum = (save_ctx.value.double() * tensor[0].double()).sum().cpu()
    del save_ctx.value


def _replace(direction: Tensor | None) -> Callable[[Any, Any], Any]:
    """A gradient probe that gives the second row the direction of the answer."""

    def replace(save_ctx: Any, tensor: Any) -> Any:
        new = tensor.clone()
        new[DIRECT] = 0 if direction is None else direction.to(tensor.device, tensor.dtype)
        return new

    return replace


def _rank(
    kind: str, weight: str, by: str, strongest: int, linear: bool
) -> Callable[[Any, Any], None]:
    """A gradient probe that leaves the strongest units: their places, and their numbers."""
    heads, neurons = kind == HEADS, kind == NEURONS
    order = RANKED.index(by)

    def rank(save_ctx: Any, tensor: Any) -> None:
        import torch

        value = save_ctx.value
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        own, direct = (value * tensor[row].to(value.dtype) for row in (OWN, DIRECT))
        active, written = value, torch.full_like(value, float("nan"))
        if heads:
            own, direct, active = own.sum(-1), direct.sum(-1), value.norm(dim=-1)
            matrix = save_ctx.params[weight].to(value.dtype).unflatten(1, value.shape[1:])
            written = torch.einsum("phd,Dhd->phD", value, matrix).norm(dim=-1)
        elif neurons:
            written = value.abs() * save_ctx.params[weight].to(value.dtype).norm(dim=0)
        if not linear:
            direct = torch.full_like(direct, float("nan"))
        scores = (own, active, direct)[order].abs().flatten()
        best = scores.topk(min(strongest, len(scores))).indices
        best = best[scores[best] > 0]
        units = active.shape[1]
        columns = [part.flatten()[best] for part in (active, own, direct, written)]
        save_ctx.places = torch.stack([best // units, best % units], 1).cpu()
        save_ctx.numbers = torch.stack(columns, 1).cpu()
        save_ctx.total = own.double().sum().cpu()
        del save_ctx.value

    return rank
