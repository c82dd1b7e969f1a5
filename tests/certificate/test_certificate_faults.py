"""A hundred faults and more, each in one place of a family: the certificate finds every one.

Some are mistakes that people make when they write a family, each declared here; some are what can go wrong at any site, tried
at points that a seeded choice spreads over the families.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import garcon_jupyter as garcon
from garcon_backend.hook_sites.other_sites import ScaledOutput
from garcon_backend.hook_sites.sites import (
    InAttention,
    Input,
    Inside,
    Output,
    SharedInput,
)
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.routers import softmax_router
from garcon_backend.hook_sites.views import FusedPart, Heads, Interleaved
from garcon_backend.models.families import FAMILIES, decoder
from garcon_backend.models.family import rows_in_turn, rows_of_each_head, rows_of_part
from garcon_backend.models.fused_rows import every_row
from tests import checkpoints
from tests.certificate.faults import (
    HEADS,
    PAIRS,
    SEEN,
    Fault,
    Loaded,
    field,
    going_wrong,
    instead,
    site,
    swapped,
    weight,
    weights_swapped,
    without_weight,
)

MADE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2},
    **{
        family: {"num_hidden_layers": 2}
        for family in ("llama", "gpt_neox", "mixtral", "olmo2", "granite", "cohere", "qwen3")
    },
    "gemma2": {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_oss": {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
    "bloom": {"n_layer": 2},
    "qwen3_moe": {"num_hidden_layers": 2, "mlp_only_layers": []},
}
"""Families whose declarations are spoilt, with two layers each."""

LAYER = "layers.{i}."
NEXT = "model.layers.{i}.post_attention_layernorm"


def _path(template: str, old: str, new: str) -> Fault:
    """A point on another module, or on another side of none that there is."""
    return site(template, lambda s: replace(s, path=s.path.replace(old, new)))  # type: ignore[type-var]


LLAMA: dict[str, Fault] = {
    "q and k swapped": swapped(f"{LAYER}attn.q", f"{LAYER}attn.k"),
    "k and v swapped": swapped(f"{LAYER}attn.k", f"{LAYER}attn.v"),
    "rotated q and k swapped": swapped(f"{LAYER}attn.q_rot", f"{LAYER}attn.k_rot"),
    "scores and pattern swapped": swapped(f"{LAYER}attn.scores", f"{LAYER}attn.pattern"),
    "gate and up swapped": swapped(f"{LAYER}mlp.pre_activation", f"{LAYER}mlp.pre_linear"),
    "norms swapped": swapped(f"{LAYER}attn.norm.out", f"{LAYER}mlp.norm.out"),
    "halves swapped": swapped(f"{LAYER}attn.contribution", f"{LAYER}mlp.contribution"),
    "stream entering and leaving swapped": swapped(f"{LAYER}resid_pre", f"{LAYER}resid_post"),
    "q not yet rotated": instead(f"{LAYER}attn.q_rot", f"{LAYER}attn.k_rot"),
    "what leaves for what enters": site(f"{LAYER}resid_pre", lambda s: Output(decoder.BLOCK)),
    "what enters for what leaves": site(f"{LAYER}resid_post", lambda s: Input(decoder.BLOCK)),
    "the middle after the norm": site(f"{LAYER}resid_mid", lambda s: Output(NEXT)),
    "the middle for the norm alone": site(f"{LAYER}resid_mid", lambda s: Input(NEXT, aside=True)),
    "the norm before its gain": instead(f"{LAYER}attn.norm.out", f"{LAYER}attn.norm.normalized"),
    "the gain taken for none": instead(f"{LAYER}attn.norm.normalized", f"{LAYER}attn.norm.out"),
    "z after its projection": site(
        f"{LAYER}attn.z", lambda s: Output(f"{decoder.ATTN}.o_proj", Heads())
    ),
    "attention's output before its projection": site(
        f"{LAYER}attn.out", lambda s: Input(f"{decoder.ATTN}.o_proj")
    ),
    "neurons before the gate": instead(f"{LAYER}mlp.post_activation", f"{LAYER}mlp.pre_linear"),
    "pre-activations after it": site(
        f"{LAYER}mlp.pre_activation", lambda s: Output(f"{decoder.MLP}.act_fn")
    ),
    "the MLP reads the stream": instead(f"{LAYER}mlp.in", f"{LAYER}resid_mid"),
    "attention reads the stream": instead(f"{LAYER}attn.in", f"{LAYER}resid_pre"),
    "what is added is the stream": instead(f"{LAYER}mlp.contribution", f"{LAYER}resid_post"),
    "the final norm before its gain": instead("final_norm.out", "final_norm.normalized"),
    "the final norm is the last layer's first": _path(
        "final_norm.out", "model.norm", "model.layers.1.input_layernorm"
    ),
    "the embedding after a block": site("embed.out", lambda s: Output("model.layers.0")),
    "a centred norm": field(f"{LAYER}attn.norm.scale", steps=norms.layer_norm),
    "a gain that is less one": field(f"{LAYER}mlp.norm.normalized", steps=norms.gemma_rms_norm),
    "all norms centred": lambda family: replace(
        family,
        points={
            t: replace(s, steps=norms.layer_norm) if isinstance(s, Inside) and "norm" in t else s
            for t, s in family.points.items()
        },
    ),
    "a layer late": _path(f"{LAYER}mlp.out", "layers.{i}", "layers.0"),
    "a layer early": _path(f"{LAYER}attn.q", "layers.{i}", "layers.1"),
    "the stream of the first layer": _path(f"{LAYER}resid_post", "layers.{i}", "layers.0"),
    "scores of the last layer": _path(f"{LAYER}attn.scores", "layers.{i}", "layers.1"),
    "q_proj for k_proj": weights_swapped(f"{LAYER}attn.q_proj", f"{LAYER}attn.k_proj"),
    "k_proj for v_proj": weights_swapped(f"{LAYER}attn.k_proj", f"{LAYER}attn.v_proj"),
    "gate_proj for up_proj": weights_swapped(f"{LAYER}mlp.gate_proj", f"{LAYER}mlp.up_proj"),
    "a projection transposed": weight(f"{LAYER}attn.o_proj", lambda w: replace(w, transposed=True)),
    "down_proj transposed": weight(f"{LAYER}mlp.down_proj", lambda w: replace(w, transposed=True)),
    "a gain plus one": weight(f"{LAYER}attn.norm.weight", lambda w: replace(w, offset=1.0)),
    "another norm's gain": weights_swapped(f"{LAYER}attn.norm.weight", f"{LAYER}mlp.norm.weight"),
    "the final gain plus one": weight("final_norm.weight", lambda w: replace(w, offset=1.0)),
    "a parameter of the first layer": weight(
        f"{LAYER}mlp.up_proj", lambda w: replace(w, path=w.path.replace("{i}", "0"))
    ),
    "rows in turn": weight(f"{LAYER}attn.v_proj", lambda w: replace(w, rows=rows_in_turn(0, 2))),
    "half of a parameter": weight(
        f"{LAYER}mlp.gate_proj", lambda w: replace(w, rows=rows_of_part(0, 2))
    ),
    "unembedding and embedding swapped": weights_swapped("embed.weight", "unembed.weight"),
}

GPT2: dict[str, Fault] = {
    "a projection not transposed": weight(
        f"{LAYER}attn.o_proj", lambda w: replace(w, transposed=False)
    ),
    "a square projection not transposed": weight(
        f"{LAYER}attn.q_proj", lambda w: replace(w, transposed=False, rows=every_row)
    ),
    "parts by head": field(f"{LAYER}attn.q", view=Interleaved(0, 3)),
    "the second part for the first": field(f"{LAYER}attn.q", view=FusedPart(1, 3, heads=True)),
    "rows by head": weight(
        f"{LAYER}attn.k_proj", lambda w: replace(w, rows=rows_of_each_head(1, 3))
    ),
    "rows of another part": weight(
        f"{LAYER}attn.v_proj", lambda w: replace(w, rows=rows_of_part(1, 3))
    ),
    "a bias left out": without_weight(f"{LAYER}attn.o_proj.bias"),
    "the MLP's bias left out": without_weight(f"{LAYER}mlp.down_proj.bias"),
    "a norm's bias left out": without_weight(f"{LAYER}attn.norm.bias"),
    "the final norm's bias left out": without_weight("final_norm.bias"),
    "a norm that does not centre": field(f"{LAYER}attn.norm.scale", steps=norms.rms_norm),
    "positions for tokens": swapped("embed.out", "pos_embed.out"),
    "positions a row late": weight(
        "pos_embed.weight", lambda w: replace(w, rows=lambda x, sizes: x[1:])
    ),
    "the second norm's input alone": field(
        f"{LAYER}mlp.in", aside=True, path="transformer.h.{i}.ln_2"
    ),
}

NEOX: dict[str, Fault] = {
    "parts side by side": field(f"{LAYER}attn.k", view=FusedPart(1, 3, heads=True)),
    "rows side by side": weight(
        f"{LAYER}attn.q_proj", lambda w: replace(w, rows=rows_of_part(0, 3))
    ),
    "the values' part for the keys'": field(f"{LAYER}attn.k", view=Interleaved(2, 3)),
    "heads not yet parted": weight(
        f"{LAYER}attn.v_proj", lambda w: replace(w, rows=rows_of_each_head(1, 3))
    ),
    "a bias of another part": weight(
        f"{LAYER}attn.q_proj.bias", lambda w: replace(w, rows=rows_of_each_head(2, 3))
    ),
    "the first norm for the second": weights_swapped(
        f"{LAYER}attn.norm.weight", f"{LAYER}mlp.norm.weight"
    ),
}

GEMMA: dict[str, Fault] = {
    "gains as they are stored": weight(
        f"{LAYER}attn.norm.weight", lambda w: replace(w, offset=0.0)
    ),
    "a post-norm's gain as it is stored": weight(
        f"{LAYER}attn.post_norm.weight", lambda w: replace(w, offset=0.0)
    ),
    "what is put out for what is added": instead(f"{LAYER}attn.contribution", f"{LAYER}attn.out"),
    "the MLP's output for what is added": site(
        f"{LAYER}mlp.contribution", lambda s: Output(decoder.MLP)
    ),
    "what is added for what is put out": instead(f"{LAYER}mlp.out", f"{LAYER}mlp.contribution"),
    "a norm in its steps without one": field(f"{LAYER}attn.norm.scale", steps=norms.rms_norm),
    "the post-norms swapped": weights_swapped(
        f"{LAYER}attn.post_norm.weight", f"{LAYER}mlp.post_norm.weight"
    ),
    "the middle before the post-norm": site(f"{LAYER}resid_mid", lambda s: SharedInput(NEXT)),
}

OTHERS: dict[str, dict[str, Fault]] = {
    "mixtral": {
        "the router's logits for its weights": field(f"{LAYER}mlp.router.weights", item=0),
        "indices for weights": field(f"{LAYER}mlp.router.weights", item=2),
        "gate and up of experts swapped": weights_swapped(
            f"{LAYER}mlp.experts.{{e}}.gate_proj", f"{LAYER}mlp.experts.{{e}}.up_proj"
        ),
        "gate and up of experts in turn": weight(
            f"{LAYER}mlp.experts.{{e}}.gate_proj", lambda w: replace(w, rows=rows_in_turn(0, 2))
        ),
        "an expert's projection transposed": weight(
            f"{LAYER}mlp.experts.{{e}}.down_proj", lambda w: replace(w, transposed=True)
        ),
        "always the first expert": field(f"{LAYER}mlp.experts.{{e}}.post_activation", part="0"),
        "another expert's parameters": weight(
            f"{LAYER}mlp.experts.{{e}}.down_proj",
            lambda w: replace(w, rows=lambda x, sizes: x.flip(0)),
        ),
    },
    "qwen3_moe": {
        "weights that add up": field(f"{LAYER}mlp.router.logits", steps=softmax_router),
        "an expert's projections swapped": weights_swapped(
            f"{LAYER}mlp.experts.{{e}}.gate_proj", f"{LAYER}mlp.experts.{{e}}.up_proj"
        ),
    },
    "gpt_oss": {
        "a router without bias": without_weight(f"{LAYER}mlp.router.bias"),
        "gate and up one after the other": weight(
            f"{LAYER}mlp.experts.{{e}}.gate_proj", lambda w: replace(w, rows=rows_of_part(0, 2))
        ),
        "experts without bias": without_weight(f"{LAYER}mlp.experts.{{e}}.down_proj.bias"),
        "an output projection without bias": without_weight(f"{LAYER}attn.o_proj.bias"),
    },
    "olmo2": {
        "what is put out for what is added": instead(
            f"{LAYER}attn.contribution", f"{LAYER}attn.out"
        ),
        "the edit of an input reaches the stream": field(f"{LAYER}attn.in", aside=False),
        "the middle for the MLP alone": site(
            f"{LAYER}resid_mid", lambda s: Input(decoder.MLP, aside=True)
        ),
        "queries not yet normed": instead(f"{LAYER}attn.q_normed", f"{LAYER}attn.q"),
        "the norms of queries and keys swapped": weights_swapped(
            f"{LAYER}attn.q_norm.weight", f"{LAYER}attn.k_norm.weight"
        ),
        "a gain in the model's dtype plus one": weight(
            f"{LAYER}mlp.post_norm.weight", lambda w: replace(w, offset=1.0)
        ),
    },
    "granite": {
        "what is added without its multiplier": site(
            f"{LAYER}attn.contribution", lambda s: Output(decoder.ATTN)
        ),
        "another multiplier": field(f"{LAYER}mlp.contribution", factor="embedding_multiplier"),
        "the multiplier twice": site(
            f"{LAYER}mlp.out", lambda s: ScaledOutput(decoder.MLP, "residual_multiplier")
        ),
    },
    "cohere": {
        "the edit of one half's input reaches the other": field(f"{LAYER}attn.in", aside=False),
        "a norm that does not centre": field(f"{LAYER}attn.norm.scale", steps=norms.rms_norm),
    },
    "qwen3": {
        "the norm of keys for that of queries": swapped(
            f"{LAYER}attn.q_normed", f"{LAYER}attn.k_normed"
        ),
        "a norm's gain left out": weight(
            f"{LAYER}attn.k_norm.weight", lambda w: replace(w, offset=0.5)
        ),
        "rotated before they are normed": site(
            f"{LAYER}attn.q_normed", lambda s: InAttention(decoder.ATTN, "q_rot")
        ),
    },
    "bloom": {
        "a module's output for what it adds": site(
            f"{LAYER}attn.contribution", lambda s: Output("transformer.h.{i}.self_attention")
        ),
        "the MLP's stream for what it adds": site(
            f"{LAYER}mlp.contribution", lambda s: Output("transformer.h.{i}.mlp")
        ),
        "the embedding after its norm": site(
            "embed.out", lambda s: Output("transformer.word_embeddings_layernorm")
        ),
    },
}


def _anywhere(seed: int = 0) -> Iterator[tuple[tuple[str, str], Fault]]:
    """What can go wrong at any site, each at a few points, chosen with a seed."""
    choose = random.Random(seed)
    for name, wrong in SEEN.items():
        for family in ("llama", "gpt2", "gpt_neox"):
            absent = (
                {f"{LAYER}resid_mid"} if family == "gpt_neox" else set()
            )  # its halves are side by side
            fitting = [t for t in FAMILIES[family].points if _fits(name, t) and t not in absent]
            template = choose.choice(fitting)
            yield (family, f"{name} at {template}"), going_wrong(template, wrong)
    for name, wrong in HEADS.items():
        for part in ("q", "v", "z", "q_rot", "k_rot"):
            template = f"{LAYER}attn.{part}"
            yield ("llama", f"{name} at {template}"), going_wrong(template, wrong)
    for name, wrong in PAIRS.items():
        for part in ("scores", "pattern"):
            template = f"{LAYER}attn.{part}"
            yield ("qwen3", f"{name} at {template}"), going_wrong(template, wrong)


def _fits(name: str, template: str) -> bool:
    """Whether a fault can be told at a point from none: a scale that is halved may be one; scores have no token axis."""
    if template in (f"{LAYER}attn.scores", f"{LAYER}attn.pattern"):
        return "token" not in name
    narrow = template.endswith("scale")
    return not (narrow and name in ("half a shard",))


FAULTS: dict[tuple[str, str], Fault] = {
    **{
        (family, name): fault
        for family, faults in {
            "llama": LLAMA,
            "gpt2": GPT2,
            "gpt_neox": NEOX,
            "gemma2": GEMMA,
            **OTHERS,
        }.items()
        for name, fault in faults.items()
    },
    **dict(_anywhere()),
}
"""By family and name."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    """The checkpoints whose families are spoilt."""
    return {
        family: Loaded(checkpoints.make(family, tmp_path_factory.mktemp(family), **config))
        for family, config in MADE.items()
    }


@pytest.mark.parametrize("family", MADE)
def test_without_a_fault_all_holds(family: str, loaded: dict[str, Loaded]) -> None:
    certificate = garcon.connect(loaded[family].through()).certify()
    assert [*certificate.broken()] == []


@pytest.mark.sampled
@pytest.mark.parametrize(("family", "name"), FAULTS)
def test_a_fault_is_found(family: str, name: str, loaded: dict[str, Loaded]) -> None:
    rmodel = garcon.connect(loaded[family].through(FAULTS[family, name]))
    assert not rmodel.certify().holds


def test_they_are_a_hundred() -> None:
    assert len(FAULTS) >= 100 and len(MADE) >= 8
