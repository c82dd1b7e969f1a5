"""What writes into the residual stream, and what reads it, by the names of their points.

| A point that writes | its units | a unit's directions |
|---|---|---|
| ``embed.out`` | tokens | the embedding |
| ``layers.{i}.attn.z`` | heads | ``W_O·W_V``: all that a head can move, for a stream of length 1 |
| ``layers.{i}.mlp.post_activation`` | neurons | a column of the down projection |

| A point that reads | its units | a unit's directions |
|---|---|---|
| ``layers.{i}.attn.q``, ``.k``, ``.v`` | heads | the QK circuit from the side of its queries or of its keys, or the OV circuit |
| ``layers.{i}.mlp.pre_activation`` | neurons | a row of the gate projection (of the up projection, where nothing gates) |
| ``layers.{i}.mlp.pre_linear`` | neurons | a row of the up projection of a gated MLP |
| ``logits`` | tokens | the unembedding, less its mean over all tokens, which softmax does not see |

Norms are folded in (:mod:`~garcon_jupyter.experiments.connectivity.folding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.experiments.connectivity.factored_matrix import root
from garcon_jupyter.experiments.connectivity.folding import (
    check_one_stream,
    has_point,
    reading,
    takes_the_mean,
    weight,
    writing,
)
from garcon_jupyter.experiments.connectivity.heads import LayerHeads, heads_of, layers_of_heads
from garcon_jupyter.points import Address, Catalog

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.experiments.connectivity.weights import Weights

_MIDDLE = "layers.{i}.resid_mid"

Read = Callable[["Weights", int], "Tensor"]
"""From a model and a layer, float32 [units, width, D]: the directions of each unit; a width of 1 where it has one."""


@dataclass(frozen=True)
class End:
    """What stands at one end of connections: all units of a point.

    Attributes:
        address: the point.
        place: when in the forward it reads or writes; what writes reaches what reads at a later place.
        units: what they are called: token, head or neuron.
        read: its directions.
    """

    address: Address
    place: tuple[int, int]
    units: str
    read: Read

    def directions(self, weights: Weights) -> Tensor:
        """float32 [units, width, D]: the directions of each unit; a width of 1 where it has one."""
        layer = -1 if self.address.layer is None else self.address.layer
        return self.read(weights, layer)


def ends(weights: Weights, pattern: str, side: str) -> list[End]:
    """The ends that a name or pattern selects, in the order of the forward.

    Args:
        side: "writers" or "readers".

    Raises:
        UnknownPoint, PointUnavailable: the pattern selects nothing.
        BadRequest: what it selects does not write, or does not read.
        PointUnavailable: its weights do not say what it reads or writes; says why.
    """
    check_one_stream(weights.catalog)
    table = WRITERS if side == "writers" else READERS
    found = []
    for address in weights.catalog.select(pattern):
        if (kind := table.get(address.template)) is None:
            others = ", ".join(table)
            raise BadRequest(
                f"{address.name} is none of the {side} whose directions are weights.",
                f"They are {others}.",
            )
        units, read = kind
        if units == "neuron" and address.layer is not None:
            check_neurons(weights.catalog, address.layer)
        place = place_of(weights.catalog, address.template, address.layer)
        found.append(End(address, place, units, read))
    return _with_weights(weights, found)


def _with_weights(weights: Weights, found: list[End]) -> list[End]:
    """Of ends that are heads, those whose weights say what they are; all others as they are."""
    if not any(end.units == "head" for end in found):
        return found
    layers, left_out = layers_of_heads(weights)
    kept = [end for end in found if end.units != "head" or end.address.layer in layers]
    if not kept:
        raise PointUnavailable(
            f"{found[0].address.name} has no heads that can be read from weights: {'; '.join(left_out)}.",
            f"Those of layers {', '.join(map(str, layers))} can.",
        )
    return kept


def place_of(catalog: Catalog, template: str, layer: int | None) -> tuple[int, int]:
    """When in the forward: an MLP after the attention of its layer, where there is a stream between them."""
    if layer is None:
        return (-1, 0) if template == "embed.out" else (catalog.n_layers, 0)
    return layer, int(has_point(catalog, _MIDDLE, layer) and ".mlp." in template)


# -- tokens --------------------------------------------------------------------------------------


def embedding(weights: Weights, ids: Sequence[int] | None = None) -> Tensor:
    """The embeddings of tokens as they enter the stream, [V, D]; where a norm stands behind them, through it.

    Args:
        ids: only of these.
    """
    found = weights.get_parameter("embed.weight", None if ids is None else list(ids)).float()
    if (gain := weight(weights, "embed.norm.weight")) is not None:
        if "embed.norm.bias" in weights.catalog.parameters:
            found = found - found.mean(1, keepdim=True)
        found = found / found.square().mean(1, keepdim=True).sqrt() * gain
    return found


def token_directions(weights: Weights, ids: Sequence[int] | None = None) -> Tensor:
    """Streams that hold one token each, as a norm leaves them but for its gain: [V, D], of length √D."""
    found = embedding(weights, ids)
    if takes_the_mean(weights.catalog, "final_norm"):
        found = found - found.mean(1, keepdim=True)
    return found / found.square().mean(1, keepdim=True).sqrt()


def unembedding(weights: Weights) -> Tensor:
    """What each token's logit reads of the stream, [V, D]: the final norm folded in, the mean over all tokens taken away."""
    found = weights.get_parameter("unembed.weight").float()
    return reading(weights, found - found.mean(0), "final_norm")


# -- heads ---------------------------------------------------------------------------------------


def heads_write(heads: LayerHeads) -> Tensor:
    """All that each head can write, [H, d_v, D]."""
    values = heads.by_head(root(heads.values @ heads.values.mT))
    return (heads.outputs @ values).mT


def _read_by_queries(heads: LayerHeads) -> Tensor:
    return heads.by_head(root(heads.keys @ heads.keys.mT)).mT @ heads.queries


def _read_by_keys(heads: LayerHeads) -> Tensor:
    return root(heads.queries @ heads.queries.mT).mT @ heads.by_head(heads.keys)


def _read_by_values(heads: LayerHeads) -> Tensor:
    return root(heads.outputs.mT @ heads.outputs).mT @ heads.by_head(heads.values)


HEADS_READ = {"q": _read_by_queries, "k": _read_by_keys, "v": _read_by_values}
"""All that each head can read, [H, d, D], of each of its three ways."""


def _of_heads(read: Callable[[LayerHeads], Tensor]) -> Read:
    return lambda weights, layer: read(heads_of(weights, layer))


# -- neurons -------------------------------------------------------------------------------------


def _written_by_neurons(weights: Weights, layer: int) -> Tensor:
    at = f"layers.{layer}.mlp"
    down = weights.get_parameter(f"{at}.down_proj").float()
    if (gain := weight(weights, f"{at}.neuron_norm.weight")) is not None:
        down = down * gain
    return writing(weights, down, f"{at}.post_norm").T[:, None]


def _read_by_neurons(linear: bool) -> Read:
    def read(weights: Weights, layer: int) -> Tensor:
        at, parameters = f"layers.{layer}.mlp", weights.catalog.parameters
        gate = "gate_proj" if f"{at}.gate_proj" in parameters else "up_proj"
        rows = weights.get_parameter(f"{at}.{'up_proj' if linear else gate}").float()
        return reading(weights, rows, _norm_before_mlp(weights.catalog, layer))[:, None]

    return read


def _norm_before_mlp(catalog: Catalog, layer: int) -> str:
    """The MLP's own, or that of attention where both read one."""
    own = has_point(catalog, "layers.{i}.mlp.norm.out", layer)
    side_by_side = not has_point(catalog, _MIDDLE, layer)
    return f"layers.{layer}.attn.norm" if side_by_side and not own else f"layers.{layer}.mlp.norm"


def check_neurons(catalog: Catalog, layer: int) -> None:
    """Refuse an MLP whose weights are not its own, or not all there is.

    Raises:
        PointUnavailable: says why.
    """
    at = f"layers.{layer}.mlp"
    if f"{at}.down_proj" in catalog.parameters and f"{at}.own_down_proj" not in catalog.parameters:
        return
    raise PointUnavailable(
        f"Neurons of layer {layer} cannot be read from weights: there is no {at}.down_proj that is the layer's own.",
        "%garcon params lists the model's parameters.",
    )


def limits_of_neurons(catalog: Catalog, layers: Iterable[int]) -> list[str]:
    """What weights do not say of the neurons of some layers, a sentence each."""
    found = dict[str, None]()
    for at in (f"layers.{layer}.mlp" for layer in layers):
        if any(
            f"{at}.{norm}.weight" in catalog.parameters for norm in ("post_norm", "neuron_norm")
        ):
            found[
                "what neurons write passes a norm: its gain is folded in, and what it divides by is left out"
            ] = None
        if f"{at}.up_proj.bias" in catalog.parameters:
            found["biases are left out"] = None
    return list(found)


# -- the table -----------------------------------------------------------------------------------

WRITERS: dict[str, tuple[str, Read]] = {
    "embed.out": ("token", lambda weights, _: embedding(weights)[:, None]),
    "layers.{i}.attn.z": ("head", _of_heads(heads_write)),
    "layers.{i}.mlp.post_activation": ("neuron", _written_by_neurons),
}
"""Of each point that writes: what its units are, and their directions."""

READERS: dict[str, tuple[str, Read]] = {
    "layers.{i}.attn.q": ("head", _of_heads(HEADS_READ["q"])),
    "layers.{i}.attn.k": ("head", _of_heads(HEADS_READ["k"])),
    "layers.{i}.attn.v": ("head", _of_heads(HEADS_READ["v"])),
    "layers.{i}.mlp.pre_activation": ("neuron", _read_by_neurons(linear=False)),
    "layers.{i}.mlp.pre_linear": ("neuron", _read_by_neurons(linear=True)),
    "logits": ("token", lambda weights, _: unembedding(weights)[:, None]),
}
"""Of each point that reads: what its units are, and their directions."""
