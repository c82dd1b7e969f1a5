"""Folded weights of heads, of families that fold differently: against the model's own values on a text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import experiments
from garcon_jupyter.experiments.connectivity.folding import takes_the_mean
from garcon_jupyter.experiments.connectivity.heads import heads_of, layers_of_heads
from tests.experiments.connectivity.conftest import Connect

IDS = [[0, 40, 41, 42, 99, 7, 11]]


FOLDED: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {},  # LayerNorm; q, k and v in one projection
    "gpt_neox": {},  # LayerNorm; q, k and v of each head together
    "gemma2": {},  # gains are stored less one
    "olmo": {"clip_qkv": None},  # LayerNorm without parameters
    "nanochat": {},  # RMSNorm without parameters
    "cohere": {},  # LayerNorm without bias
    "nemotron": {},  # LayerNorm whose gain is stored less one
    "mpt": {},  # LayerNorm without bias; what is projected is clipped, which is told as a limit
    "olmo2": {},  # no norm before attention
    "falcon": {},  # one key and value for all heads
    "phi3": {},
    "jamba": {},  # every other layer attends
    "qwen3_next": {},  # queries share a projection with the gate
    "bitnet": {},  # a norm of all heads before the output projection
}
"""Families that differ in what stands between stream and heads."""


def attending(rmodel: garcon.RemoteModel) -> int:
    return layers_of_heads(rmodel)[0][1]


def same_up_to_a_constant(a: Tensor, b: Tensor) -> bool:
    """Of each token against the first, [p, …], to 1e-4 of the largest: a bias adds the same to all."""
    a, b = a - a[:1], b - b[:1]
    return bool((a - b).abs().max() < 1e-4 * b.abs().max())


def aligned(a: Tensor, b: Tensor) -> bool:
    """Each token's [p, n] in the same direction: what a norm divides by differs from token to token."""
    return bool((torch.cosine_similarity(a, b, -1) > 1 - 1e-6).all())


@pytest.mark.parametrize("family", FOLDED)
def test_queries_keys_and_values_are_those_of_the_stream(of_family: Connect, family: str) -> None:
    """They read resid_pre, over the norm's scale, as attn.q, attn.k and attn.v have it, but for a bias."""
    rmodel = of_family(family, **FOLDED[family])
    layer = attending(rmodel)
    heads, look = heads_of(rmodel, layer), rmodel.look(IDS)
    at = f"layers.{layer}"
    x = look[f"{at}.resid_pre"][0].double()
    if f"{at}.attn.norm.scale" in rmodel.probe_points:
        x = x / look[f"{at}.attn.norm.scale"][0].double()
    normed = f"{at}.attn.q_norm.weight" in rmodel.parameters
    for name, weights in (("q", heads.queries), ("k", heads.keys), ("v", heads.values)):
        read = torch.einsum("hnd,pd->phn", weights.double(), x)
        read = read.clamp(-1, 1) if family == "mpt" else read
        after = "_normed" if normed and name != "v" else ""
        seen = look[f"{at}.attn.{name}{after}"][0].double()
        if after:
            together = family == "olmo2"  # its norms go over all heads
            assert aligned(read.flatten(1), seen.flatten(1)) if together else aligned(read, seen)
        else:
            assert same_up_to_a_constant(read, seen), name


@pytest.mark.parametrize("family", FOLDED)
def test_what_heads_write_is_what_attention_adds(of_family: Connect, family: str) -> None:
    """Mixed values by the output weights, as attn.contribution has it, but for a bias, and the mean that no reader sees."""
    rmodel = of_family(family, **FOLDED[family])
    layer = attending(rmodel)
    at, look = f"layers.{layer}.attn", rmodel.look(IDS)
    z = look[f"{at}.z"][0].double()
    if f"{at}.gate" in rmodel.probe_points:
        z = z * look[f"{at}.gate"][0].double().sigmoid()
    written = torch.einsum("hdv,phv->pd", heads_of(rmodel, layer).outputs.double(), z)
    seen = look[f"{at}.contribution"][0].double()
    if rmodel.catalog.centred:
        assert not same_up_to_a_constant(written, seen), "the mean is in it"
        seen = seen - seen.mean(-1, keepdim=True)
    norms = (f"{at}.post_norm.weight", f"{at}.z_norm.weight")
    if any(name in rmodel.parameters for name in norms):
        assert aligned(written, seen)
    else:
        assert same_up_to_a_constant(written, seen)


def test_norms_of_queries_take_the_mean_away_where_others_do(of_family: Connect) -> None:
    """Cohere's are LayerNorms of each head, whose gains have no name here."""
    rmodel = of_family("cohere", use_qk_norm=True)
    queries = heads_of(rmodel, 1).queries
    assert queries.abs().max() > 0.1 and queries.mean(1).abs().max() < 1e-6
    limits = experiments.composition(rmodel).facts["limits"]
    assert any("no gain that is known" in limit for limit in limits)


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "olmoe"])
def test_gains_of_the_norms_of_queries_and_keys_are_folded_in(
    of_family: Connect, family: str
) -> None:
    rmodel = of_family(family)
    heads, look = heads_of(rmodel, 1), rmodel.look(IDS)
    x = look["layers.1.resid_pre"][0].double() / look["layers.1.attn.norm.scale"][0].double()
    for weights, name in ((heads.queries, "q_normed"), (heads.keys, "k_normed")):
        read = torch.einsum("hnd,pd->phn", weights.double(), x)
        seen = look[f"layers.1.attn.{name}"][0].double()
        together = family == "olmoe"  # its norms go over all heads
        assert aligned(read.flatten(1), seen.flatten(1)) if together else aligned(read, seen)


@pytest.mark.parametrize("family", [*FOLDED, "bloom", "qwen3", "gemma4_text", "kimi_linear"])
def test_which_norms_take_the_mean_away_is_in_the_catalog(of_family: Connect, family: str) -> None:
    """Held against what norms put out: the sum of a token's numbers before the gain."""
    rmodel = of_family(family)
    names = [
        n.removesuffix(".normalized") for n in rmodel.probe_points if n.endswith("norm.normalized")
    ]
    look = rmodel.look(IDS)
    found = {name for name in names if look[f"{name}.normalized"][0].mean(-1).abs().max() < 1e-5}
    said = {name for name in names if takes_the_mean(rmodel.catalog, name)}
    assert found == said and names


def test_limits_are_told(of_family: Connect) -> None:
    def told(family: str) -> str:
        return " | ".join(experiments.composition(of_family(family)).facts["limits"])

    assert told("llama") == (
        "rotary positions are left out: queries and keys are those of equal positions"
    )
    assert told("gpt2") == "biases are left out"
    assert "positions are left out: positions are a bias of scores (ALiBi)" in told("bloom")
    assert "queries and keys pass a norm of their own" in told("qwen3")
    assert "what heads write passes a norm" in told("gemma2")
    assert "a gate multiplies" in told("qwen3_next")
    assert told("jamba").startswith("layers 0, 2: left out, nothing attends there")
    assert "clipped" in told("olmo")
    assert "1.5 times mlp.norm.out" in told("minimax")
    assert "layer 1: left out, there is no v_proj of its own" in told("gemma4_text")


def test_layers_that_do_not_attend_are_no_places_of_the_axes(of_family: Connect) -> None:
    found = experiments.composition(of_family("jamba"))
    assert found.axes["writer layer"] == (1, 3) and found.values.shape == (2, 4, 2, 4)
