"""The residual stream at one place as a sum of parts: the embedding, and what each layer adds.

Which parts a block has, and what it does with their sum, differs between architectures. So the sum is not believed but held
against the stream that the model has after each layer: it must be that, or a multiple (a layer may scale what it leaves).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts, need
from garcon_jupyter.points import fill

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

ENTERS, LEAVES = "layers.{i}.resid_pre", "layers.{i}.resid_post"
POSITIONS = "pos_embed.out"

ADDED = {
    "attention": "layers.{i}.attn.contribution",
    "mixer": "layers.{i}.mixer.contribution",
    "mlp": "layers.{i}.mlp.contribution",
    "layer embedding": "layers.{i}.per_layer.contribution",
}
"""What a block adds: what it is called, and its point."""


@dataclass(frozen=True)
class Part:
    """A summand of the stream.

    Attributes:
        kind: "embedding", "positions", or one of :data:`ADDED`.
        layer: of the block that adds it; None for what enters the first.
        vector: float64 [D], as it is in the stream that leaves the last layer.
        factor: what layers after it multiply it by.
    """

    kind: str
    layer: int | None
    vector: Tensor
    factor: float = 1.0

    @property
    def name(self) -> str:
        """What it is called: "embedding", "attention 4"."""
        return self.kind if self.layer is None else f"{self.kind} {self.layer}"


def stream_parts(rmodel: Client, tokens: Tokens, position: int, tolerance: float) -> list[Part]:
    """The parts of the stream that leaves the last layer, at a position of a text.

    Raises:
        PointUnavailable: the model has no stream of which its points tell all parts.
        BadRequest: a block does something else than to add them up.
    """
    need(rmodel, "A sum of parts", ENTERS, LEAVES)
    layers = range(rmodel.catalog.n_layers)
    there = {
        layer: {
            kind: fill(template, layer)
            for kind, template in ADDED.items()
            if layer in rmodel.catalog.layers.get(template, ())
        }
        for layer in layers
    }
    points = [fill(ENTERS, 0), *(fill(LEAVES, layer) for layer in layers)]
    points += [point for parts in there.values() for point in parts.values()]
    if POSITIONS not in rmodel.catalog.refused:
        points.append(POSITIONS)
    values = at_place(rmodel, tokens, position, points)
    first = values[fill(ENTERS, 0)]
    parts = [Part("embedding", None, first)]
    if POSITIONS in values:
        positions = values[POSITIONS]
        parts = [Part("embedding", None, first - positions), Part("positions", None, positions)]
    for layer in layers:
        parts += [Part(kind, layer, values[point]) for kind, point in there[layer].items()]
        factor = _multiple(parts, values[fill(LEAVES, layer)], layer, tolerance)
        if factor != 1.0:
            parts = [
                Part(part.kind, part.layer, part.vector * factor, part.factor * factor)
                for part in parts
            ]
    return parts


def at_place(rmodel: Client, tokens: Tokens, position: int, points: list[str]) -> dict[str, Tensor]:
    """Values [b, p, D] of points at one position of a text, float64 [D]."""

    def keep_place(save_ctx: Any, tensor: Any) -> None:
        save_ctx.place = tensor[0, position].float().cpu()

    with contexts(rmodel, "place") as name:
        probes = [
            rmodel.probe_points[point].probe(keep_place, name=name, read_only=True)
            for point in points
        ]
        rmodel.forward(tokens, probes=probes, logits="none")
        return fetched(rmodel, points, name, "place")


def fetched(rmodel: Client, points: Sequence[str], name: str, attribute: str) -> dict[str, Tensor]:
    """What probes of a name saved at points, by point, in float64."""
    recordings = rmodel.recordings(fetch=False)
    handles = [recordings[point, name].handle(attribute) for point in points]
    values = rmodel.fetch(*handles)
    each = [values] if len(points) == 1 else values
    return {point: value.double() for point, value in zip(points, each, strict=True)}


def _multiple(parts: list[Part], left: Tensor, layer: int, tolerance: float) -> float:
    """What the stream that leaves a layer is of the sum of its parts: 1, or a number.

    Raises:
        BadRequest: it is no multiple.
    """
    import torch

    whole = torch.stack([part.vector for part in parts]).sum(0)
    size = float(left.norm()) + float(sum(part.vector.norm() for part in parts))
    if float((left - whole).norm()) <= tolerance * size:
        return 1.0
    factor = float(left @ whole / (whole @ whole))
    if float((left - factor * whole).norm()) <= tolerance * size:
        return factor
    raise BadRequest(
        f"The stream that leaves layer {layer} is no sum of what its parts add: {float((left - whole).norm()) / size:.1%} of it is missing.",
        "Logits of this model have no parts that add up; patching or attribution say what a part does.",
    )
