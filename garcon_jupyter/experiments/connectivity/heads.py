"""Queries, keys, values and outputs of the heads of a layer, as their weights say, with the norms folded in.

What weights cannot say is told (:func:`limits`), and a layer of which they say nothing is left out, with the reason
(:func:`layers_of_heads`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.experiments.connectivity.folding import (
    check_one_stream,
    has_point,
    reading,
    takes_the_mean,
    weight,
    writing,
)
from garcon_jupyter.points import Catalog

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.experiments.connectivity.weights import Weights

Z = "layers.{i}.attn.z"
_JOINT = "layers.{i}.attn.joint"


@dataclass(frozen=True, eq=False)
class LayerHeads:
    """The heads of a layer: H that ask and write, of which H/K in a row share keys and values.

    Attributes:
        layer: its number.
        queries: float32 [H, d, D], of the stream, its norm folded in.
        keys: float32 [K, d, D], likewise.
        values: float32 [K, d_v, D], likewise.
        outputs: float32 [H, D, d_v], into the stream.
    """

    layer: int
    queries: Tensor
    keys: Tensor
    values: Tensor
    outputs: Tensor

    @property
    def group(self) -> int:
        """How many heads share keys and values."""
        return len(self.queries) // len(self.keys)

    def by_head(self, shared: Tensor) -> Tensor:
        """What is said for each key/value head, [K, …], said for each head, [H, …]."""
        return shared.repeat_interleave(self.group, 0)


def heads_of(weights: Weights, layer: int) -> LayerHeads:
    """The heads of a layer that :func:`layers_of_heads` names.

    Raises:
        PointUnavailable: its weights are packed.
        BadRequest: its projections are not those of H heads.
    """
    at = f"layers.{layer}.attn"
    heads = weights.catalog.sizes["H"]
    q, k, v, o = (_projection(weights, f"{at}.{name}_proj") for name in "qkvo")
    size = len(q) // heads
    groups = len(k) // size
    queries = reading(weights, _normed(weights, q, layer, "q", heads), f"{at}.norm")
    keys = reading(weights, _normed(weights, k, layer, "k", groups), f"{at}.norm")
    values = reading(weights, v, f"{at}.norm")
    if (gain := weight(weights, f"{at}.z_norm.weight")) is not None:
        o = o * gain
    outputs = writing(weights, o, f"{at}.post_norm")
    width = len(o)
    if heads % groups or len(v) % groups or o.shape[1] != heads * (len(v) // groups):
        raise BadRequest(
            f"Projections of layer {layer} put out {len(q)}, {len(k)} and {len(v)} numbers and read {o.shape[1]}, which are not those of {heads} heads.",
            f"Look at them with rmodel.get_parameter({at + '.q_proj'!r}).",
        )
    return LayerHeads(
        layer,
        queries.view(heads, size, width),
        keys.view(groups, size, width),
        values.view(groups, -1, width),
        outputs.view(width, heads, -1).transpose(0, 1),
    )


def _projection(weights: Weights, name: str) -> Tensor:
    return weights.get_parameter(name).float()


def _normed(weights: Weights, matrix: Tensor, layer: int, name: str, heads: int) -> Tensor:
    """A projection [heads·d, D] to queries or keys, with the norm of their own where there is one: over each head, or all of them.

    A model whose other norms take the mean away takes it away here as well, of each head.
    """
    if not has_point(weights.catalog, f"layers.{{i}}.attn.{name}_normed", layer):
        return matrix
    at = f"layers.{layer}.attn"
    by_head = matrix.view(heads, -1, matrix.shape[1])
    if takes_the_mean(weights.catalog, f"{at}.norm"):
        by_head = by_head - by_head.mean(1, keepdim=True)
    if (gain := weight(weights, f"{at}.{name}_norm.weight")) is not None:  # [d], or [heads·d]
        by_head = by_head * gain.view(-1, by_head.shape[1], 1)
    return by_head.flatten(0, 1)


# -- of which layers, and how far ----------------------------------------------------------------


def layers_of_heads(weights: Weights) -> tuple[list[int], list[str]]:
    """The layers whose heads can be read from weights, and why the others cannot.

    Raises:
        PointUnavailable: there is none; says why.
    """
    catalog = weights.catalog
    check_one_stream(catalog)
    why = {layer: _why_not(catalog, layer) for layer in range(catalog.n_layers)}
    layers = [layer for layer, reason in why.items() if not reason]
    if not layers:
        reasons = "; ".join(dict.fromkeys(why.values())) or catalog.refused.get(Z, "")
        raise PointUnavailable(
            f"No layer has heads that can be read from weights alone: {reasons}.",
            "%garcon params lists the model's parameters.",
        )
    left_out: dict[str, list[int]] = {}
    for layer in sorted({*why} - {*layers}):
        left_out.setdefault(why[layer], []).append(layer)
    return layers, [
        f"layer{'s' * (len(of) > 1)} {', '.join(map(str, of))}: left out, {reason}"
        for reason, of in left_out.items()
    ]


def _why_not(catalog: Catalog, layer: int) -> str:
    """Why the heads of a layer cannot be read from weights; "" where they can."""
    if not has_point(catalog, Z, layer):
        return catalog.refused.get(Z, "nothing attends there")
    if has_point(catalog, _JOINT, layer):
        return "attention reads the token's embedding beside the stream"
    at = f"layers.{layer}.attn"
    if f"{at}.kv_a_proj" in catalog.parameters:
        return "latent attention compresses keys and values through a norm of their own"
    missing = [name for name in "qkvo" if f"{at}.{name}_proj" not in catalog.parameters]
    return f"there is no {missing[0]}_proj of its own" if missing else ""


def limits(catalog: Catalog, layers: Iterable[int]) -> list[str]:
    """What weights do not say of the heads of some layers, a sentence each."""
    found = dict.fromkeys(sentence for layer in layers for sentence in _limits(catalog, layer))
    _, _, note = catalog.places.get("layers.{i}.resid_post", "").partition(". ")
    if note:
        found[f"a layer puts out {note}: what that does on the way is left out"] = None
    return list(found)


def _limits(catalog: Catalog, layer: int) -> Iterator[str]:
    at = f"layers.{layer}.attn"

    def has(point: str) -> bool:
        return has_point(catalog, f"layers.{{i}}.attn.{point}", layer)

    def told(point: str, word: str) -> bool:
        # Places are words for people: where these change, a limit is not told, and no number is another.
        return word in catalog.places.get(f"layers.{{i}}.attn.{point}", "")

    if any(f"{at}.{x}_proj.bias" in catalog.parameters for x in "qkvo"):
        yield "biases are left out"
    if has("q_rot"):
        yield "rotary positions are left out: queries and keys are those of equal positions"
    elif "pos_embed.out" in catalog.refused:
        yield f"positions are left out: {catalog.refused.get('layers.{i}.attn.q_rot', 'they are not in the stream')}"
    if has("q_normed"):
        known = f"{at}.q_norm.weight" in catalog.parameters
        gain = "its gain is folded in" if known else "it has no gain that is known"
        yield f"queries and keys pass a norm of their own: {gain}, and what it divides by is left out"
    if any(f"{at}.{norm}.weight" in catalog.parameters for norm in ("post_norm", "z_norm")):
        yield "what heads write passes a norm: its gain is folded in, and what it divides by is left out"
    if has("gate"):
        yield "a gate multiplies what heads write: it is taken for open"
    if told("v", "v_norm"):
        yield "values pass a norm: what it divides by is left out"
    if told("q", "clipped"):
        yield "queries, keys and values are clipped: that is left out"
