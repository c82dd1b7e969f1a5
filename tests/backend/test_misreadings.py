"""Plausible readings of single architectures that are wrong: each would be told from what is served."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.backend.cases import IDS, MASK, Case, apart, load
from tests.by_hand.arithmetic import rotated

FAR = 0.1
"""Relative distance from which on two tensors are two different things."""

Cases = Callable[[str], Case]


@pytest.fixture
def cases(loaded: dict[str, Case], tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """A case by its name."""

    def of(name: str) -> Case:
        if name not in loaded:
            loaded[name] = load(name, tmp_path_factory.mktemp(name))
        return loaded[name]

    return of


def seen(case: Case, *names: str) -> list[Tensor]:
    """Values of layer 1, or of modules."""
    full = [name if ":" in name or name[6:10] == "norm" else f"layers.1.{name}" for name in names]
    values = case.ours.values(IDS, MASK, full)
    return [values[name] for name in full]


# -- fused projections -----------------------------------------------------------------------


def test_keys_and_values_of_codegen_in_their_usual_order(cases: Cases) -> None:
    """Four blocks of heads, in each queries, *values*, keys."""
    fused, q, k, v = seen(
        cases("codegen"),
        "module:transformer.h.1.attn.qkv_proj.output",
        *("attn.q", "attn.k", "attn.v"),
    )
    blocks = fused.unflatten(-1, (4, 3, -1)).unbind(-2)
    usual = [part.flatten(-2).view_as(q) for part in blocks]
    assert apart(q, usual[0]) == 0
    assert apart(k, usual[1]) > FAR and apart(v, usual[2]) > FAR
    three = [part.reshape(q.shape) for part in fused.chunk(3, -1)]
    assert all(apart(ours, part) > FAR for ours, part in zip((q, k, v), three, strict=True))


@pytest.mark.parametrize("name", ["falcon_40b", "falcon_rw", "gpt_bigcode_many"])
def test_all_queries_before_all_keys(cases: Cases, name: str) -> None:
    """Each group of heads has its queries, its key and its value side by side."""
    attention = "self_attention.query_key_value" if "falcon" in name else "attn.c_attn"
    module = f"module:transformer.h.1.{attention}.output"
    fused, q, k = seen(cases(name), module, "attn.q", "attn.k")
    flat = fused[..., : q[0, 0].numel()]
    assert apart(q, flat.reshape(q.shape)) > FAR
    after = fused[..., q[0, 0].numel() :][..., : k[0, 0].numel()]
    assert apart(k, after.reshape(k.shape)) > FAR


@pytest.mark.parametrize(
    ("name", "module"),
    [("olmo", "model.layers.1.self_attn.v_proj"), ("mpt", "transformer.blocks.1.attn.Wqkv")],
)
def test_values_before_they_are_clipped(cases: Cases, name: str, module: str) -> None:
    """What the heads mix is clipped; what the projection puts out is not."""
    case = cases(name)
    plain: Any = AutoModelForCausalLM.from_pretrained(case.path, attn_implementation="eager")
    put_out: list[Tensor] = []
    plain.get_submodule(module).register_forward_hook(lambda m, a, out: put_out.append(out.clone()))
    with torch.no_grad():
        plain(IDS, attention_mask=MASK)
    (v,) = seen(case, "attn.v")
    unclipped = put_out[0][..., -v[0, 0].numel() :].reshape(v.shape)
    v, unclipped = v[MASK.bool()], unclipped[MASK.bool()]
    assert apart(v, unclipped) > FAR and v.abs().max() == 1
    assert apart(v, unclipped.clamp(-1, 1)) <= 1e-5


def test_an_edit_beyond_what_is_clipped_to_is_clipped(cases: Cases) -> None:
    for name in ("olmo", "mpt"):
        ours = cases(name).ours
        far = ours.forward(IDS, MASK, {"layers.1.attn.v": lambda value: value * 50})
        near = ours.forward(IDS, MASK, {"layers.1.attn.v": lambda v: (v * 50).clamp(-1, 1)})
        assert torch.equal(far, near)


# -- norms -----------------------------------------------------------------------------------


def test_the_norm_before_the_blocks_for_the_final_one(cases: Cases) -> None:
    """NanoChat calls one module twice in a pass: its first call is of the embedding."""
    case, called = cases("nanochat"), []
    plain: Any = AutoModelForCausalLM.from_pretrained(case.path)
    plain.model.norm.register_forward_hook(lambda m, a, out: called.append(out))
    with torch.no_grad():
        plain(IDS, attention_mask=MASK)
    visits: list[Tensor] = []
    case.ours.forward(IDS, MASK, {"final_norm.out": lambda value: visits.append(value.clone())})
    assert len(called) == 2 and len(visits) == 1
    assert apart(visits[0] * MASK[:, :, None], called[1] * MASK[:, :, None]) <= 1e-5
    assert apart(visits[0], called[0]) > FAR
    enters = case.ours.values(IDS, MASK, ["layers.0.resid_pre", "embed.out"])
    assert apart(enters["layers.0.resid_pre"], called[0]) <= 1e-5
    assert apart(enters["layers.0.resid_pre"], enters["embed.out"]) > FAR


def test_the_final_norm_of_each_step_of_a_generation(cases: Cases) -> None:
    """One visit a step, of the last norm."""
    seen_at: list[Tensor] = []
    ours = cases("nanochat").ours
    found = ours.generated(
        IDS[:1],
        probes={"final_norm.out": lambda context, value: seen_at.append(value.clone())},
        max_new_tokens=3,
    )
    assert found is not None and [value.shape[1] for value in seen_at] == [9, 1, 1]
    last = ours.values(found.ids[:, :-1], None, ["final_norm.out"])["final_norm.out"]
    assert apart(seen_at[-1][:, 0], last[:, -1]) <= 1e-5


def test_queries_of_nanochat_turned_as_llamas(cases: Cases) -> None:
    q, turned = seen(cases("nanochat"), "attn.q", "attn.q_rot")
    positions = (MASK.cumsum(1) - 1).clamp(min=0)
    right, wrong = (rotated(q, sign * positions, 10000.0, q.shape[-1]) for sign in (-1, 1))
    assert apart(turned, right) <= 1e-5 and apart(turned, wrong) > FAR


def test_what_heads_mix_for_what_is_projected(cases: Cases) -> None:
    """BitNet has a norm between, of all heads; and another between neurons and down projection."""
    case = cases("bitnet")
    z, normed, out = seen(case, "attn.z", "attn.z_normed", "attn.out")
    weight = case.ours.parameter("layers.1.attn.o_proj")
    assert apart(normed.flatten(2) @ weight.T, out) <= 1e-5
    assert apart(z.flatten(2) @ weight.T, out) > FAR
    neurons, normed, out = seen(
        case, "mlp.post_activation", "mlp.post_activation_normed", "mlp.out"
    )
    weight = case.ours.parameter("layers.1.mlp.down_proj")
    assert apart(normed @ weight.T, out) <= 1e-5 and apart(neurons @ weight.T, out) > FAR


# -- streams ---------------------------------------------------------------------------------


def test_the_mlp_module_of_mpt_for_what_it_adds(cases: Cases) -> None:
    """Its output is the stream after the block, so without it nothing would be left."""
    case = cases("mpt")
    module, added, after = seen(
        case, "module:transformer.blocks.1.ffn.output", "mlp.contribution", "resid_post"
    )
    assert apart(module, added) > FAR and apart(module, after) <= 1e-6
    without = case.ours.values(IDS, MASK, ["layers.1.resid_mid"])["layers.1.resid_mid"]
    kept: list[Tensor] = []
    edits: dict[str, Any] = {
        "layers.1.mlp.contribution": torch.zeros_like,
        "layers.1.resid_post": lambda value: kept.append(value.clone()),
    }
    case.ours.forward(IDS, MASK, edits)
    assert apart(kept[0], without) <= 1e-6


def test_the_mlps_output_of_falcon_kept_by_reference(cases: Cases) -> None:
    """Its model adds attention to that very tensor afterwards."""
    case, kept = cases("falcon"), []
    plain: Any = AutoModelForCausalLM.from_pretrained(case.path, attn_implementation="eager")
    plain.transformer.h[1].mlp.register_forward_hook(lambda m, a, out: kept.append(out))
    with torch.no_grad():
        plain(IDS, attention_mask=MASK)
    attention, mlp = (x[MASK.bool()] for x in seen(case, "attn.contribution", "mlp.contribution"))
    reference = kept[0][MASK.bool()]
    assert apart(mlp, reference) > FAR and apart(mlp + attention, reference) <= 1e-5


def test_alibi_twice(cases: Cases) -> None:
    """Falcon's eager code adds it to scores and to the mask; what is served adds it once."""
    case = cases("falcon_rw")
    plain: Any = AutoModelForCausalLM.from_pretrained(case.path, attn_implementation="eager")
    with torch.no_grad():
        twice = plain(IDS, attention_mask=MASK).logits
    served = case.ours.forward(IDS, MASK)
    real = MASK.bool()
    assert apart(served[real], case.clean.values["logits"][real]) <= 1e-5
    assert apart(served[real], twice[real]) > 0.01


# -- routers ---------------------------------------------------------------------------------


def test_weights_of_a_softmax_over_all_experts(cases: Cases) -> None:
    for name in ("granitemoe", "phimoe", "minimax_m2"):
        logits, weights, indices = seen(
            cases(name), *(f"mlp.router.{part}" for part in ("logits", "weights", "indices"))
        )
        all_of = logits.softmax(-1).gather(-1, indices)
        assert apart(weights, all_of) > FAR, name
        renormalised = all_of / all_of.sum(-1, keepdim=True)
        same = name == "granitemoe"  # where it is the softmax of the chosen
        assert (apart(weights, renormalised) <= 1e-5) == same, name


def test_weights_of_phimoe_that_add_up_to_one(cases: Cases) -> None:
    (weights,) = seen(cases("phimoe"), "mlp.router.weights")
    assert (weights.sum(-1) > 1.2).any()


def test_experts_of_minimax_m2_chosen_without_the_bias(cases: Cases) -> None:
    found = [
        cases("minimax_m2").clean.values[f"layers.{i}.mlp.router.{part}"]
        for i in range(4)
        for part in ("logits", "indices")
    ]
    differ = [
        not torch.equal(logits.topk(3, -1).indices.sort(-1).values, indices.sort(-1).values)
        for logits, indices in zip(found[::2], found[1::2], strict=True)
    ]
    assert any(differ)


# -- scores ----------------------------------------------------------------------------------


def test_scores_of_gpt_neo_scaled(cases: Cases) -> None:
    """It does not scale them; layer 0 sees everything."""
    values = cases("gpt_neo").ours.values(
        IDS, MASK, [f"layers.0.attn.{x}" for x in ("q", "k", "scores")]
    )
    q, k, scores = values.values()
    bare = torch.einsum("bqhd,bkhd->bhqk", q, k)
    there = scores > -1e30
    assert apart(scores[there], bare[there]) <= 1e-5
    assert apart(scores[there], bare[there] * q.shape[-1] ** -0.5) > FAR


@pytest.mark.parametrize("name", ["gptj", "gpt_neo", "bloom", "codegen", "mpt", "falcon"])
def test_a_softmax_of_the_users_own_is_none_of_the_models(cases: Cases, name: str) -> None:
    """Probes of projections run while attention does, and may do what attention does."""
    ours, met = cases(name).ours, list[Tensor]()
    see: dict[str, Any] = {
        **{f"layers.1.attn.{x}": lambda value: met.append(value.softmax(-1)) for x in "qvz"},
        "layers.1.attn.k": lambda value: met.append(torch.nn.functional.softmax(value, 1)),
        "layers.1.attn.pattern": lambda pattern: met.append(pattern.clone()),
    }
    clean = ours.values(IDS, MASK, ["layers.1.attn.pattern"])["layers.1.attn.pattern"]
    ours.forward(IDS, MASK, see)
    patterns = [value for value in met if value.shape == clean.shape]
    assert len(met) == 5 and len(patterns) == 1 and torch.equal(patterns[0], clean)
