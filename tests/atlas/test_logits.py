"""From neurons to the logits through the norms on the way, against the norms of plain transformers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from garcon_jupyter.atlas.logits import to_the_logits
from tests import checkpoints
from tests.backend.bare_rank import BareRank
from tests.oracle import Plain

LAYER = 2
AFTER = "post_feedforward_layernorm"
FAMILIES: dict[str, tuple[str, str, str, str]] = {
    # a layer, its output weights, the norm after its MLP, the final norm
    "llama": ("model.layers", "mlp.down_proj", "", "model.norm"),
    "gpt2": ("transformer.h", "mlp.c_proj", "", "transformer.ln_f"),
    "gpt_neox": ("gpt_neox.layers", "mlp.dense_4h_to_h", "", "gpt_neox.final_layer_norm"),
    "gemma2": ("model.layers", "mlp.down_proj", AFTER, "model.norm"),
    "gemma3_text": ("model.layers", "mlp.down_proj", AFTER, "model.norm"),
    "olmo2": ("model.layers", "mlp.down_proj", AFTER, "model.norm"),
}


def straight(norm: Any, directions: Tensor) -> Tensor:
    """What a norm makes of directions, but for what it divides by: of each direction alone, times what that was
    divided by."""
    if isinstance(norm, nn.LayerNorm):
        divisor = (directions.var(1, keepdim=True, correction=0) + norm.eps).sqrt()
        return (norm(directions) - norm.bias) * divisor
    eps = getattr(norm, "variance_epsilon", None) or norm.eps
    return norm(directions) * (directions.square().mean(1, keepdim=True) + eps).sqrt()


def stored(plain: Plain, family: str) -> Tensor:
    """What each neuron writes, [units, D]."""
    layers, out, _, _ = FAMILIES[family]
    weight = plain.module(f"{layers}.{LAYER}.{out}").weight
    return weight if family == "gpt2" else weight.T  # a Conv1D is the other way round


@torch.no_grad()
def expected(plain: Plain, family: str) -> Tensor:
    """[units, V]"""
    layers, _, after, final = FAMILIES[family]
    directions = stored(plain, family)
    for path in (f"{layers}.{LAYER}.{after}" if after else "", final):
        directions = straight(plain.module(path), directions) if path else directions
    return plain.model.get_output_embeddings()(directions)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_neurons_reach_the_logits_through_the_norms(family: str, tmp_path: Path) -> None:
    path = checkpoints.make(family, tmp_path)
    served = BareRank(path)
    model: Any = SimpleNamespace(
        parameters=served.catalog.parameters, get_parameter=served.parameter
    )
    unembed = served.parameter("unembed.weight")
    found = {
        what: torch.from_numpy(rows)
        for what, rows in to_the_logits(model, f"layers.{LAYER}.", unembed)
    }
    plain = Plain(path)
    scores = expected(plain, family)
    for word, largest in (("up", True), ("down", False)):
        best = scores.topk(10, 1, largest=largest)
        assert torch.allclose(found[f"logits_{word}_values"], best.values, atol=1e-4), word
        there = scores.gather(1, found[f"logits_{word}"].long())
        assert torch.allclose(there, best.values, atol=1e-4), word
    # Without the norms the answer would be another.
    bare = stored(plain, family) @ plain.model.get_output_embeddings().weight.T
    assert float((bare.topk(10, 1).values - found["logits_up_values"]).abs().max()) > 0.01


@torch.no_grad()
def test_direct_effect_is_that_of_a_small_push(tmp_path: Path) -> None:
    """The tokens that a neuron raises are those that the model's own head raises where the stream is pushed along
    the neuron's direction, once the scale of the stream is held."""
    plain = Plain(checkpoints.make("gpt2", tmp_path))
    plain.model.double()
    norm, head = plain.module("transformer.ln_f"), plain.model.get_output_embeddings()
    stream = torch.randn(1, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pushed = stream + 1e-6 * stored(plain, "gpt2")

    def held(x: Tensor) -> Tensor:
        return norm(x) * (x.var(1, keepdim=True, correction=0) + norm.eps).sqrt() - norm.bias * (
            (x.var(1, keepdim=True, correction=0) + norm.eps).sqrt() - 1
        )

    effect = (head(held(pushed)) - head(held(stream))) / 1e-6
    assert torch.allclose(effect, expected(plain, "gpt2"), atol=1e-5)
