"""A unit from live passes: its values on some texts, what fires with it, and what it writes to the logits.

unit_on_texts(rmodel, "layers.4.mlp.post_activation", 17, ["The capital of France"]).values   # [text, token]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts, decoder

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

COMPANIONS = 8
"""Correlated units that are named."""

EFFECTS = 12
"""Tokens whose logits it raises, and whose it lowers."""


@dataclass(frozen=True)
class UnitOnTexts:
    """A unit on some texts.

    Attributes:
        values: float32 [text, token], NaN at padding.
        strings: the tokens of each text.
        correlated: units of the same point whose values correlate with its own, the strongest first.
        logits: tokens with what the unit adds to their logits by its direct path, the most raised and the most
            lowered; empty where it is no neuron of an MLP.
    """

    values: NDArray[np.float32]
    strings: list[list[str]]
    correlated: list[tuple[str, float]]
    logits: list[tuple[str, float]]


def check_unit(rmodel: Client, point: str, unit: int) -> None:
    """Refuse what is no unit of a point [b, p, units].

    Raises:
        BadRequest: the point has another shape, or fewer units.
    """
    shape = rmodel.probe_points[point].shape
    if len(shape) != 3 or not isinstance(shape[2], int):
        raise BadRequest(f"{point} has shape {shape}.", "Choose a point of shape [b, p, units].")
    if not 0 <= unit < shape[2]:
        raise BadRequest(f"{point} has no unit {unit}.", f"It has units 0 to {shape[2] - 1}.")


def unit_on_texts(rmodel: Client, point: str, unit: int, texts: Any) -> UnitOnTexts:
    """A unit over some texts, run as one batch; only its own values travel.

    Raises:
        BadRequest: the point has no such unit.
    """
    check_unit(rmodel, point, unit)
    tokens = rmodel._tokens(texts)
    values, companions = values_of_unit(rmodel, point, unit, tokens)
    values = np.where(tokens.mask.numpy(), values, np.float32("nan"))
    strings = rmodel.token_strings(tokens)
    return UnitOnTexts(values, strings, companions, _effects(rmodel, point, unit))


def values_of_unit(
    rmodel: Client, point: str, unit: int, tokens: Any
) -> tuple[Any, list[tuple[str, float]]]:
    """The unit's values [text, token], and the units whose values correlate with them most."""
    mask = tokens.mask

    def probe(save_ctx: Any, tensor: Any) -> None:
        own = tensor[:, :, unit].float()
        save_ctx.values = own.cpu()
        flat = tensor.float()[mask.to(tensor.device)]
        flat = flat - flat.mean(0)
        norms = flat.norm(dim=0).clamp_min(1e-12)
        both = (flat[:, unit] @ flat) / (norms * norms[unit])
        both[unit] = -2.0
        best = both.topk(min(COMPANIONS, len(both)))
        save_ctx.companions = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    with contexts(rmodel, "neuron") as name:
        probes = [rmodel.probe_points[point].probe(probe, name=name, read_only=True)]
        rmodel.forward(tokens, probes=probes, logits="none")
        recording = rmodel.recordings(fetch=False)[point, name]
        handles = [recording.handle(part) for part in ("values", "companions")]
        values, companions = rmodel.fetch(*handles)
    named = [(f"unit {other}", size) for other, size in companions if size > 0]
    return values.numpy(), named


def _effects(rmodel: Client, point: str, unit: int) -> list[tuple[str, float]]:
    """What one unit of an MLP's neurons adds to the logits, by its direct path: output weights times final
    gain times unembedding. Nothing for other points."""
    layer = rmodel.catalog.point(point).layer
    if not point.endswith(".mlp.post_activation") or layer is None or ".experts." in point:
        return []
    written = rmodel.get_parameter(f"layers.{layer}.mlp.down_proj", (slice(None), unit)).float()
    gained = written * rmodel.get_parameter("final_norm.weight").float()

    def effect(save_ctx: Any, tensor: Any) -> None:
        logits = save_ctx.params["unembed.weight"].float() @ gained.to(tensor.device)
        logits = logits - logits.mean()
        for side, sign in (("up", 1.0), ("down", -1.0)):
            best = (logits * sign).topk(EFFECTS)
            setattr(save_ctx, side, (best.indices.tolist(), (best.values * sign).tolist()))

    point_of = rmodel.probe_points["final_norm.out"]
    with contexts(rmodel, "effect") as name:
        params = ["unembed.weight"]
        probes = [point_of.probe(effect, name=name, params=params, read_only=True)]
        rmodel.forward([[0]], probes=probes, logits="none")
        recording = rmodel.recordings(fetch=False)[point_of.name, name]
        up, down = rmodel.fetch(recording.handle("up"), recording.handle("down"))
    words = decoder(rmodel, [*up[0], *down[0]])
    pairs = [*zip(*up, strict=True), *zip(*down, strict=True)]
    return [(words[token], value) for token, value in pairs]
