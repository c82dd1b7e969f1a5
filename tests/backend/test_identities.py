"""What must hold between the points and parameters of any architecture, on our own numbers.

And what must hold between batches: padding changes nothing, and a lower precision little.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu, softplus

from tests import by_hand, checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import EVERY, IDS, MASK, Case, apart

LAYERS = range(4)


class Numbers:
    """All values and parameters of a case, by name; `at(i)` are those of one layer."""

    def __init__(self, case: Case) -> None:
        self.catalog = case.ours.catalog
        self.values = case.ours.values(IDS, MASK, self.catalog.names())
        self.parameters = {n: case.ours.parameter(n) for n in self.catalog.parameters}
        self.token_index = dict(case.ours.token_index)
        self.prefix = ""

    def at(self, layer: int) -> Numbers:
        inside = Numbers.__new__(Numbers)
        vars(inside).update(vars(self), prefix=f"layers.{layer}.")
        return inside

    def __getitem__(self, name: str) -> Tensor:
        return self.values[self.prefix + name]

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.values

    def weight(self, name: str) -> Tensor:
        return self.parameters[self.prefix + name]

    def linear(self, name: str, x: Tensor) -> Tensor:
        bias = self.parameters.get(f"{self.prefix}{name.removesuffix('.weight')}.bias")
        return x @ self.weight(name).T + (0 if bias is None else bias)


@pytest.fixture(scope="module")
def kept() -> dict[str, Numbers]:
    return {}


@pytest.fixture
def numbers(case: Case, kept: dict[str, Numbers]) -> Numbers:
    if case.name not in kept:
        kept[case.name] = Numbers(case)
    return kept[case.name]


def repeated(numbers: Numbers, heads: Tensor) -> Tensor:
    """[b, p, K, d] as [b, p, H, d]."""
    return heads.repeat_interleave(numbers.catalog.sizes["H"] // heads.shape[2], 2)


@pytest.mark.parametrize("layer", LAYERS)
def test_attention(case: Case, numbers: Numbers, layer: int) -> None:
    n = numbers.at(layer)
    if not attends(n):
        return
    for name in "qkv":
        projected = n.linear(f"attn.{name}_proj", n["attn.in"])
        assert apart(n[f"attn.{name}"].flatten(2), projected) <= 1e-5
    if "attn.pattern" not in n:
        assert case.name in ("gptj", "gpt_neo", "bloom")
        return
    sinks: Any = getattr(case.ours.model.get_submodule(module_of(n)), "sinks", None)
    assert apart(n["attn.pattern"], softmax_beside(n["attn.scores"], sinks)) <= 1e-5
    mixed = torch.einsum("bhqk,bkhd->bqhd", n["attn.pattern"], repeated(n, n["attn.v"]))
    assert apart(n["attn.z"], mixed) <= 1e-5


def attends(n: Numbers) -> bool:
    """Whether a layer does; some have a mixer of another kind instead."""
    assert any(f"{half}.in" in n for half in ("attn", "mixer", "mlp"))
    return "attn.in" in n


def module_of(n: Numbers) -> str:
    """Path of the attention of a layer, in the families whose attention has sinks, and others like them."""
    path = f"model.{n.prefix}self_attn"
    return path if path in n.catalog.modules else ""


def softmax_beside(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """The pattern of scores; with a sink in each head, what is left for the keys."""
    if sinks is None:
        return scores.softmax(-1)
    beside = sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, beside], -1).softmax(-1)[..., :-1]


@pytest.mark.parametrize("layer", LAYERS)
def test_heads_add_up(numbers: Numbers, layer: int) -> None:
    n = numbers.at(layer)
    if not attends(n):
        return
    z = n["attn.z"] * n["attn.gate"].sigmoid() if "attn.gate" in n else n["attn.z"]
    by_head = n.weight("attn.o_proj").unflatten(1, z.shape[2:])
    written = torch.einsum("bphd,ohd->bpho", z, by_head)
    assert apart(n["attn.head_out"], written) <= 1e-5
    bias = n.parameters.get(f"{n.prefix}attn.o_proj.bias", torch.zeros(()))
    assert apart(n["attn.out"], n["attn.head_out"].sum(2) + bias) <= 1e-5


@pytest.mark.parametrize("layer", LAYERS)
def test_neurons_write_the_mlps_output(numbers: Numbers, layer: int) -> None:
    n = numbers.at(layer)
    if "mlp.out" not in n:
        assert "mixer.in" in n or "attn.in" in n
        return
    if "mlp.post_activation" in n:
        written = n.linear("mlp.down_proj", n["mlp.post_activation"])
    else:
        written = written_by_experts(n)
    assert apart(n["mlp.out"], written) <= 1e-5


def written_by_experts(n: Numbers) -> Tensor:
    out = torch.zeros_like(n["mlp.out"]).flatten(0, 1)
    indices, weights = n["mlp.router.indices"].flatten(0, 1), n["mlp.router.weights"].flatten(0, 1)
    for expert in range(n.catalog.n_experts):
        name = f"mlp.experts.{expert}.post_activation"
        token = n.token_index[n.prefix + name]
        weight = (weights * (indices == expert)).sum(-1)[token, None]
        out[token] += weight * n.linear(f"mlp.experts.{expert}.down_proj", n[name])
    chosen = out.view_as(n["mlp.out"])
    return chosen + n["mlp.shared.out"] if "mlp.shared.out" in n else chosen


@pytest.mark.parametrize("layer", LAYERS)
def test_neurons(case: Case, numbers: Numbers, layer: int) -> None:
    n = numbers.at(layer)
    if "mlp.out" not in n:
        return
    act = {
        "gelu_new": lambda x: gelu(x, approximate="tanh"),
        "gelu_pytorch_tanh": lambda x: gelu(x, approximate="tanh"),
        "gelu": gelu,
        "silu": silu,
        "relu": relu,
        "relu2": lambda x: relu(x).square(),
        "xielu": lambda x: xielu(case, layer, x),
    }[activation(case.theirs.config)]
    if "mlp.post_activation" not in n:
        x = n["mlp.in"].flatten(0, 1)
        for expert in range(n.catalog.n_experts):
            at = f"mlp.experts.{expert}"
            read = x[n.token_index[f"{n.prefix}{at}.post_activation"]]
            up = n.linear(f"{at}.up_proj", read)
            if case.name == "nemotron_h":  # without gates
                assert apart(n[f"{at}.post_activation"], act(up)) <= 1e-5
                continue
            gate = n.linear(f"{at}.gate_proj", read)
            if case.name == "gpt_oss":
                gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
                neurons = (up + 1) * gate * torch.sigmoid(1.702 * gate)
            else:
                neurons = act(gate) * up
            assert apart(n[f"{at}.post_activation"], neurons) <= 1e-5
    elif "mlp.pre_linear" in n:
        gate, up = (n.linear(f"mlp.{name}_proj", n["mlp.in"]) for name in ("gate", "up"))
        gate = gate * getattr(case.theirs.config, "mlp_multipliers", [1.0])[0]
        assert apart(n["mlp.pre_activation"], gate) <= 1e-5
        assert apart(n["mlp.pre_linear"], up) <= 1e-5
        assert apart(n["mlp.post_activation"], act(gate) * up) <= 1e-5
    else:
        up = n.linear("mlp.up_proj", n["mlp.in"])
        assert apart(n["mlp.pre_activation"], up) <= 1e-5
        assert apart(n["mlp.post_activation"], act(up)) <= 1e-5


def xielu(case: Case, layer: int, x: Tensor) -> Tensor:
    """Apertus's activation, whose two numbers each layer has learned."""
    own: Any = case.ours.model.get_submodule(f"model.layers.{layer}.mlp.act_fn")
    above, below = softplus(own.alpha_p), own.beta + softplus(own.alpha_n)
    negative = (torch.expm1(x.clamp(max=float(own.eps))) - x) * below + own.beta * x
    return torch.where(x > 0, above * x * x + own.beta * x, negative)


def activation(config: Any) -> str:
    if config.model_type == "bloom":
        return "gelu_pytorch_tanh"
    if config.model_type.startswith("lfm2"):
        return "silu"
    names = ("activation_function", "hidden_activation", "hidden_act", "mlp_hidden_act")
    return next(getattr(config, name) for name in names if getattr(config, name, None))


@pytest.mark.parametrize("layer", LAYERS)
def test_router(case: Case, numbers: Numbers, layer: int) -> None:
    n = numbers.at(layer)
    if "mlp.router.logits" not in n:
        assert "mlp.post_activation" in n or "mlp.out" not in n
        return
    logits = n.linear("mlp.router", n["mlp.in"])
    assert apart(n["mlp.router.logits"], logits) <= 1e-5
    if case.name == "nemotron_h":  # in the best groups; see by hand
        scores = logits.sigmoid().gather(-1, n["mlp.router.indices"])
        weights = scores / scores.sum(-1, keepdim=True) * case.theirs.config.routed_scaling_factor
        assert apart(n["mlp.router.weights"], weights) <= 1e-5
        return
    if case.name == "lfm2_moe":  # scored one by one, and chosen with a bias
        scores = logits.sigmoid()
        bias = case.ours.model.get_submodule(f"model.{n.prefix}feed_forward").expert_bias
        indices = (scores + bias).topk(n.catalog.sizes["k"], -1).indices
        weights = scores.gather(-1, indices)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
        assert torch.equal(n["mlp.router.indices"], indices)
        factor = case.theirs.config.routed_scaling_factor
        assert apart(n["mlp.router.weights"], weights * factor) <= 1e-5
        return
    if case.name in ("gpt_oss", "granitemoehybrid"):  # a softmax over the chosen ones alone
        chosen = logits.topk(n.catalog.sizes["k"], -1)
        assert torch.equal(n["mlp.router.indices"], chosen.indices)
        assert apart(n["mlp.router.weights"], chosen.values.softmax(-1)) <= 1e-5
        return
    best = logits.softmax(-1).topk(n.catalog.sizes["k"], -1)
    assert torch.equal(n["mlp.router.indices"], best.indices)
    one = getattr(case.theirs.config, "norm_topk_prob", case.name != "jamba")
    total = best.values.sum(-1, keepdim=True) if one else 1
    assert apart(n["mlp.router.weights"], best.values / total) <= 1e-5


@pytest.mark.parametrize("layer", LAYERS)
def test_the_residual_stream_is_a_sum(numbers: Numbers, layer: int) -> None:
    n = numbers.at(layer)
    parts = [name for name in ("attn", "mixer", "mlp") if f"{name}.contribution" in n]
    added = [n[f"{name}.contribution"] for name in parts]
    assert apart(n["resid_post"], n["resid_pre"] + sum(added)) <= 1e-5
    if "resid_mid" in n:
        assert apart(n["resid_mid"], n["resid_pre"] + sum(added[:-1])) <= 1e-5
    if layer:
        assert torch.equal(n["resid_pre"], numbers.at(layer - 1)["resid_post"])


def test_norms(case: Case, numbers: Numbers) -> None:
    norms = [f"layers.{i}.{part}.norm" for i in LAYERS for part in ("attn", "mixer", "mlp")]
    for norm in (*norms, "final_norm"):
        if f"{norm}.out" not in numbers:
            continue
        gain = numbers.weight(f"{norm}.weight")
        bias = numbers.parameters.get(f"{norm}.bias", torch.zeros(()))
        normalized = numbers[f"{norm}.normalized"]
        assert apart(numbers[f"{norm}.out"], normalized * gain + bias) <= 1e-5
        assert apart(normalized * numbers[f"{norm}.scale"], read_by(numbers, norm, case)) <= 1e-5


def read_by(numbers: Numbers, norm: str, case: Case) -> Tensor:
    """What a norm reads, centred where it centres."""
    layer, _, part = norm.removesuffix(".norm").rpartition(".")
    if norm == "final_norm":
        x = numbers[f"layers.{LAYERS[-1]}.resid_post"]
    else:
        middle = part == "mlp" and f"{layer}.resid_mid" in numbers
        x = numbers[f"{layer}.resid_mid" if middle else f"{layer}.resid_pre"]
    centres = f"{norm}.bias" in numbers.parameters or case.name.startswith("cohere")
    return x - x.mean(-1, keepdim=True) if centres else x


def test_both_ends(case: Case, numbers: Numbers) -> None:
    embedded = numbers.weight("embed.weight")[IDS]
    if case.name.startswith("gemma"):
        embedded = embedded * math.sqrt(numbers.catalog.sizes["D"])
    assert apart(numbers["embed.out"], embedded) <= 1e-5
    learned = numbers.values.get("pos_embed.out", torch.zeros(()))
    enters = numbers["embed.out"] * getattr(case.theirs.config, "embedding_multiplier", 1.0)
    if case.name == "bloom":  # a norm stands between them
        enters = case.ours.model.get_submodule("transformer.word_embeddings_layernorm")(enters)
    assert apart(numbers.at(0)["resid_pre"], enters + learned) <= 1e-5
    logits = numbers.linear("unembed.weight", numbers["final_norm.out"])
    logits = logits * getattr(case.theirs.config, "logit_scale", 1.0)
    logits = logits / getattr(case.theirs.config, "logits_scaling", 1.0)
    logits = logits * getattr(case.theirs.config, "lm_head_multiplier", 1.0)
    if cap := getattr(case.theirs.config, "final_logit_softcapping", None):
        logits = cap * (logits / cap).tanh()
    assert apart(numbers["logits"], logits) <= 1e-5


# -- batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_text_has_the_numbers_it_has_alone(case: Case, side: str) -> None:
    names = case.ours.catalog.names()
    alone = IDS[1:, :6]
    ids, mask = IDS.clone(), torch.ones_like(IDS)
    kept = slice(0, 6) if side == "right" else slice(3, 9)
    mask[1] = 0
    mask[1, kept], ids[1, kept] = 1, alone[0]
    padded = case.ours.values(ids, mask, names)
    rows = {
        name: torch.isin(index, torch.arange(9, 18)[kept])
        for name, index in case.ours.token_index.items()
    }
    single = case.ours.values(alone, None, names)
    found = {}
    for name, value in padded.items():
        spec = case.ours.catalog.point(name).spec
        assert spec is not None
        if spec.dims[0] == "n":
            own = value[rows[name]]
        else:
            cuts = {"b": slice(1, 2), "p": kept, "p_q": kept, "p_k": kept}
            own = value[tuple(cuts.get(dim, slice(None)) for dim in spec.dims)]
        found[name] = apart(own, single[name])
    assert {name: distance for name, distance in found.items() if distance > 1e-5} == {}


@pytest.mark.parametrize("family", sorted({family for family, _ in EVERY.values()}))
def test_bfloat16(family: str, tmp_path: Path) -> None:
    """Rounding to 8 bits: 5 % at most, against the same rounded weights in full precision."""
    path = checkpoints.make(family, tmp_path, dtype=torch.bfloat16, **EVERY[family][1])
    ours, theirs = BareRank(path), by_hand.by_hand(family, path).run(IDS, MASK).values
    names = [
        n
        for n in ours.catalog.names()
        if n.startswith(("layers.0.", "embed")) and "router" not in n
    ]
    names = [name for name in names if "experts" not in name]  # a tie may go the other way
    values = ours.values(IDS, MASK, names)
    assert values["embed.out"].dtype == torch.bfloat16
    far = {name: apart(values[name], theirs[name]) for name in names}
    assert {name: distance for name, distance in far.items() if distance > 0.05} == {}
    assert max(far.values()) > 1e-4, "that was not bfloat16"
