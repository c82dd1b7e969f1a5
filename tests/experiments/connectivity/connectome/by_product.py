"""Every connection of small models in float64, from transformers' own modules: the whole product, with nothing left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from garcon_jupyter.experiments.connectivity.connectome.files import Connectome
from tests.oracle import Plain


@dataclass(frozen=True)
class Neurons:
    """Neurons of all layers, float64.

    Attributes:
        reads: of each way, [layer, M, D], the norm before it folded in.
        bare: the same without the norm's gain.
        writes: [layer, M, D], the norm behind it folded in.
    """

    reads: dict[str, Tensor]
    bare: dict[str, Tensor]
    writes: Tensor


def _stack(layers: list[Tensor]) -> Tensor:
    return torch.stack([layer.detach().double() for layer in layers])


def gated(plain: Plain, before: str, behind: str = "", offset: float = 0.0) -> Neurons:
    """Of a model with Llama's MLP, whose norms are called so."""
    layers = plain.model.model.layers
    gain = _stack([getattr(layer, before).weight for layer in layers])[:, None] + offset
    bare = {
        "gate": _stack([layer.mlp.gate_proj.weight for layer in layers]),
        "linear": _stack([layer.mlp.up_proj.weight for layer in layers]),
    }
    writes = _stack([layer.mlp.down_proj.weight.T for layer in layers])
    if behind:
        writes = writes * (_stack([getattr(x, behind).weight for x in layers])[:, None] + offset)
    return Neurons({part: rows * gain for part, rows in bare.items()}, bare, writes)


def gpt2(plain: Plain) -> Neurons:
    """GPT-2's: no gate, weights [in, out], and norms that take the mean away from all that is read, so that what is written has none."""
    layers = plain.model.transformer.h
    bare = _stack([layer.mlp.c_fc.weight.T for layer in layers])
    reads = bare * _stack([layer.ln_2.weight for layer in layers])[:, None]
    writes = _stack([layer.mlp.c_proj.weight for layer in layers])
    return Neurons(
        {"gate": reads - reads.mean(-1, keepdim=True)},
        {"gate": bare - bare.mean(-1, keepdim=True)},
        writes - writes.mean(-1, keepdim=True),
    )


FAMILIES: dict[str, Callable[[Plain], Neurons]] = {
    "llama": lambda plain: gated(plain, "post_attention_layernorm"),
    "gemma2": lambda plain: gated(
        plain, "pre_feedforward_layernorm", "post_feedforward_layernorm", 1.0
    ),
    "gpt2": gpt2,
}


def between_layers(reads: Tensor, writes: Tensor) -> Tensor:
    """All connections [reader, writer] of neurons [layer, M, D], both counted over all layers; NaN where the reader is not later."""
    layers, units, _ = reads.shape
    every = reads.flatten(0, 1) @ writes.flatten(0, 1).T
    numbers = torch.arange(layers).repeat_interleave(units)
    return every.masked_fill(numbers[:, None] <= numbers, torch.nan)


def agrees(found: Connectome, table: str, every: Tensor) -> bool:
    """Whether values, partners and sums of squares of a table are those of all connections [unit, partner], NaN where there is none."""
    k = found.k
    order = every.abs().nan_to_num(nan=-1).argsort(1, descending=True)[:, :k]
    values = every.gather(1, order)
    partners = order.masked_fill(values.isnan(), -1)
    ours, numbers, squares = (
        torch.tensor(found.array(f"{table}_{what}")) for what in ("values", "partners", "squares")
    )
    return (
        bool(torch.equal(ours.isnan(), values.isnan()))
        and torch.allclose(ours.double().nan_to_num(), values.nan_to_num(), atol=2e-5, rtol=1e-5)
        and bool((numbers == partners).double().mean() > 0.995)  # but for ties
        and torch.allclose(squares, every.square().nansum(1), rtol=1e-5)
    )
