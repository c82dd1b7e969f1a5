"""What a neuron says: the tokens that its output makes more, and less, likely, by its direct way to the logits.

A neuron writes its activation times its *direction*, a column of ``mlp.down_proj``, into the residual stream. Were
nothing else to read it there, the final norm would scale it, and the unembedding turn it into logits. So the
direction goes through what the norms do to every direction alike: their gains, and, where a norm is a LayerNorm, the
mean that it takes away. What a norm divides by depends on everything else in the stream and is left out: it is
positive, so signs and order of the tokens stay, and the values are those of a stream whose scale is 1. A soft cap
of the logits is left out as well, and so are all later layers, which may read the direction too.

A latent of a dictionary writes along its row of the decoder, into the point that the dictionary writes: the stream itself, or what is
added to it, with the norm that stands between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.dictionaries import ServedDictionary

LOGITS = 10
"""Tokens of each unit, of either kind."""

_AT_ONCE = 256
"""Units at a time."""


_NORMS = {
    "mlp.out": "mlp.post_norm",
    "mlp.contribution": "",
    "attn.out": "attn.post_norm",
    "attn.contribution": "",
    "mixer.contribution": "",
    "resid_pre": "",
    "resid_mid": "",
    "resid_post": "",
}
"""Points of a layer into which a dictionary may write on a direct way to the logits, and the norm on it but for the final one."""

_LATENTS_AT_ONCE = 4096
"""Rows of a decoder that are read at a time."""


def to_the_logits(model: Client, layer: str, unembed: Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """(array, rows) of the neurons of a layer.

    Args:
        layer: what the names of its points and parameters begin with, such as "layers.4.".
        unembed: float32 [V, D].
    """
    out = model.get_parameter(f"{layer}mlp.down_proj").float().T
    yield from _strongest([_normed(model, out, f"{layer}mlp.post_norm")], unembed)


def writes_to_the_stream(writes: str) -> bool:
    """Whether what is written to a point has a direct way to the logits, by name: along the stream."""
    return _norm_behind(writes) is not None


def _norm_behind(writes: str) -> str | None:
    """The norm between a point and the stream, "" for none; None where there is no way."""
    if writes == "embed.out":
        return ""
    start, number, point = (*writes.split(".", 2), "", "")[:3]
    if start != "layers" or point not in _NORMS:
        return None
    return f"layers.{number}.{_NORMS[point]}" if _NORMS[point] else ""


def of_latents(
    model: Client, dictionary: ServedDictionary, unembed: Tensor
) -> Iterator[tuple[str, np.ndarray]]:
    """(array, rows) of the latents of a dictionary, by their rows of the decoder.

    What the dictionary's own scaling back multiplies with is positive, and left out where it depends on the token.

    Args:
        unembed: float32 [V, D].
    """
    norm = _norm_behind(dictionary.points.writes)
    form, latents = dictionary.description.form, dictionary.points.latents

    def directions() -> Iterator[Tensor]:
        for first in range(0, latents, _LATENTS_AT_ONCE):
            rows = dictionary.weight("decoder", first, min(first + _LATENTS_AT_ONCE, latents))
            rows = rows.float()
            if form.decoder_norms == "latents":  # latents are in units of these
                rows = rows / rows.norm(dim=1, keepdim=True)
            if form.norm_out.kind == "scale":
                rows = rows / form.norm_out.scale[0]
            yield _normed(model, rows, norm or "")

    yield from _strongest(directions(), unembed)


def _strongest(directions: Iterable[Tensor], unembed: Tensor) -> Iterator[tuple[str, np.ndarray]]:
    """(array, rows): of directions [units, D], piece by piece, the tokens that they make more, and less, likely."""
    k = min(LOGITS, len(unembed))
    found: dict[str, list[Tensor]] = {}
    for part in (part for piece in directions for part in piece.split(_AT_ONCE)):
        scores = part @ unembed.T
        for what, largest in (("up", True), ("down", False)):
            best = scores.topk(k, 1, largest=largest)
            found.setdefault(f"logits_{what}", []).append(best.indices.int())
            found.setdefault(f"logits_{what}_values", []).append(best.values)
    for what, parts in found.items():
        yield what, torch.cat(parts).numpy()


def _normed(model: Client, directions: Tensor, first: str) -> Tensor:
    """Directions [units, D] as the norms on the way leave them, but for what the norms divide by.

    Args:
        first: the norm before they are in the stream; "" for none.
    """
    for norm in (first, "final_norm"):
        if f"{norm}.weight" not in model.parameters:
            continue
        if f"{norm}.bias" in model.parameters:  # a LayerNorm
            directions = directions - directions.mean(1, keepdim=True)
        directions = directions * model.get_parameter(f"{norm}.weight").float()
    return directions
