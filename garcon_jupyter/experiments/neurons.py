"""A unit's dashboard from live passes: its values on some texts, and what it writes to the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.connection.background import answering
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts, decoder, one_text
from garcon_jupyter.widgets import NeuronWidget, neuron_record

if TYPE_CHECKING:
    from garcon_jupyter.client.client import RemoteModel

COMPANIONS = 8
"""Correlated units that are named."""

EFFECTS = 12
"""Tokens whose logits it raises, and whose it lowers."""


def neuron_widget(
    rmodel: RemoteModel,
    point: str,
    unit: int,
    texts: Any,
    text: str = "",
    record: Mapping[str, Any] | None = None,
) -> NeuronWidget:
    """The dashboard of one unit; `record` of an atlas, else one made of `texts`."""
    shape = rmodel.probe_points[point].shape
    if len(shape) != 3 or not isinstance(shape[2], int):
        raise BadRequest(f"{point} has shape {shape}.", "Choose a point of shape [b, p, units].")
    if not 0 <= unit < shape[2]:
        raise BadRequest(f"{point} has no unit {unit}.", f"It has units 0 to {shape[2] - 1}.")

    def run(own: str) -> tuple[Sequence[str], Any]:
        tokens = one_text(rmodel, own)
        values, _ = _values(rmodel, point, unit, tokens)
        return rmodel.token_strings(tokens)[0], values[0]

    made = record if record is not None else unit_record(rmodel, point, unit, texts)
    return NeuronWidget(made, answering(run), text, f"{point} · unit {unit}")


def unit_record(rmodel: RemoteModel, point: str, unit: int, texts: Any) -> dict[str, Any]:
    """A record of one unit over some texts, run as one batch; only its own values travel."""
    tokens = rmodel._tokens(texts)
    values, companions = _values(rmodel, point, unit, tokens)
    values = np.where(tokens.mask.numpy(), values, np.nan)
    strings = rmodel.token_strings(tokens)
    logits = _effects(rmodel, point, unit)
    return neuron_record(values, strings, point, logits=logits, correlated=companions)


def _values(
    rmodel: RemoteModel, point: str, unit: int, tokens: Any
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


def _effects(rmodel: RemoteModel, point: str, unit: int) -> list[tuple[str, float]]:
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
