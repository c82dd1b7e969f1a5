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
from tests.backend.cases import BARE, EVERY, IDS, MASK, Case, apart

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
    for name in () if "attn.kv_latent" in n else "qkv":  # of these, test_latent
        if f"attn.{name}" not in n:  # layers that share the keys and values of another
            assert case.name in ("gemma4_text", "gemma3n_text") and layer > 1 and name != "q"
            continue
        stored = f"{n.prefix}attn.{name}_proj" in n.parameters
        read = n["attn.in" if "attn.in" in n else "attn.joint"]
        projected = n.linear(f"attn.{name if stored else 'k'}_proj", read)
        projected = projected + own_of_layer(n, f"attn.{name}", read)
        projected = clipped(case, projected)
        if name == "v" and case.name.startswith(("gemma4", "gemma3n")):  # a norm without gains
            heads = projected.view_as(n["attn.v"])
            projected = (heads / heads.square().mean(-1, keepdim=True).sqrt()).flatten(2)
        assert apart(n[f"attn.{name}"].flatten(2), projected) <= 1e-5
    if "attn.pattern" not in n:
        assert case.name == "falcon_rw"  # a kernel's
        return
    sinks: Any = getattr(case.ours.model.get_submodule(module_of(n)), "sinks", None)
    assert apart(n["attn.pattern"], softmax_beside(n["attn.scores"], sinks)) <= 1e-5
    values = n["attn.v"] if "attn.v" in n else numbers.at(layer - 2)["attn.v"]
    mixed = torch.einsum("bhqk,bkhd->bqhd", n["attn.pattern"], repeated(n, values))
    assert apart(n["attn.z"], mixed) <= 1e-5


def attends(n: Numbers) -> bool:
    """Whether a layer does; some have a mixer of another kind instead."""
    assert any(f"{half}.in" in n for half in ("attn", "mixer", "mlp"))
    return "attn.in" in n or "attn.joint" in n


def own_of_layer(n: Numbers, name: str, x: Tensor) -> Tensor:
    """What a layer adds to a projection that others share, where it does."""
    if f"{n.prefix}{name}_own_down_proj" not in n.parameters:
        return torch.zeros(())
    return n.linear(f"{name}_own_up_proj", n.linear(f"{name}_own_down_proj", x))


def clipped(case: Case, x: Tensor) -> Tensor:
    """What a model that clips queries, keys and values leaves of them."""
    config = case.theirs.config
    bound = getattr(getattr(config, "attn_config", config), "clip_qkv", None)
    return x if bound is None else x.clamp(-bound, bound)


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
    if "attn.z_normed" in n:
        z = n["attn.z_normed"]
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
    if "mlp.post_activation_normed" in n:
        written = n.linear("mlp.down_proj", n["mlp.post_activation_normed"])
    elif "mlp.post_activation" in n:
        written = n.linear("mlp.down_proj", n["mlp.post_activation"])
    else:
        written = written_by_experts(n)
    assert apart(n["mlp.out"], written) <= 1e-5


def written_by_experts(n: Numbers) -> Tensor:
    out = torch.zeros_like(n["mlp.out"]).flatten(0, 1)
    # Llama 4's scores are in the neurons already.
    scaled = any(name.endswith("feed_forward.shared_expert") for name in n.catalog.modules)
    indices, weights = n["mlp.router.indices"].flatten(0, 1), n["mlp.router.weights"].flatten(0, 1)
    for expert in range(n.catalog.n_experts):
        name = f"mlp.experts.{expert}.post_activation"
        token = n.token_index[n.prefix + name]
        weight = (weights * (indices == expert)).sum(-1)[token, None]
        weight = torch.ones_like(weight) if scaled else weight
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
            token = n.token_index[f"{n.prefix}{at}.post_activation"]
            read = x[token]
            if case.name.startswith("llama4"):  # whose router scales what an expert reads
                chosen = n["mlp.router.indices"].flatten(0, 1) == expert
                read = read * (n["mlp.router.weights"].flatten(0, 1) * chosen).sum(-1)[token, None]
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
        if case.name == "zamba2":  # to which each layer adds
            narrow = n.linear("mlp.own_down_proj", n["mlp.in"])
            gate = gate + n.linear("mlp.gate_own_up_proj", narrow)
            up = up + n.linear("mlp.up_own_up_proj", narrow)
        gate = gate * getattr(case.theirs.config, "mlp_multipliers", [1.0])[0]
        assert apart(n["mlp.pre_activation"], gate) <= 1e-5
        assert apart(n["mlp.pre_linear"], up) <= 1e-5
        if case.name == "gemma3n_text" and layer == 1:  # which keeps what is above the mean
            gate = relu(gate - gate.mean(-1, keepdim=True))
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
    if config.model_type in ("bloom", "mpt"):  # which say none
        return "gelu" if config.model_type == "mpt" else "gelu_pytorch_tanh"
    if config.model_type.startswith("lfm2"):
        return "silu"
    names = (
        *("activation_function", "hidden_activation", "hidden_act", "activation"),
        "mlp_hidden_act",
    )
    return next(getattr(config, name) for name in names if getattr(config, name, None))


@pytest.mark.parametrize("layer", LAYERS)
def test_router(case: Case, numbers: Numbers, layer: int) -> None:
    n = numbers.at(layer)
    if "mlp.router.logits" not in n:
        assert "mlp.post_activation" in n or "mlp.out" not in n
        return
    read = n["mlp.in"]
    if case.name == "gemma4_text":  # its router reads the stream itself, through a norm and a scale
        own: Any = case.ours.model.get_submodule(f"model.layers.{layer}.router")
        read = n["resid_mid"] / n["resid_mid"].square().mean(-1, keepdim=True).sqrt()
        read = read * own.scale / n.catalog.sizes["D"] ** 0.5
    logits = n.linear("mlp.router", read)
    assert apart(n["mlp.router.logits"], logits) <= 1e-5
    if case.name == "nemotron_h":  # in the best groups; see by hand
        scores = logits.sigmoid().gather(-1, n["mlp.router.indices"])
        weights = scores / scores.sum(-1, keepdim=True) * case.theirs.config.routed_scaling_factor
        assert apart(n["mlp.router.weights"], weights) <= 1e-5
        return
    if case.name == "lfm2_moe":  # scored one by one, and chosen with a bias
        scores = logits.sigmoid()
        added: Any = case.ours.model.get_submodule(f"model.{n.prefix}feed_forward").expert_bias
        indices = (scores + added).topk(n.catalog.sizes["k"], -1).indices
        weights = scores.gather(-1, indices)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
        assert torch.equal(n["mlp.router.indices"], indices)
        factor = case.theirs.config.routed_scaling_factor
        assert apart(n["mlp.router.weights"], weights * factor) <= 1e-5
        return
    biased = hasattr(case.theirs.config, "moe_norm_min")  # ERNIE; DeepSeek and GLM scale as well
    if biased or hasattr(case.theirs.config, "routed_scaling_factor"):  # of these, test_mixtures
        return
    if case.name == "minimax_m2":  # a sigmoid of each, and a bias in the choice alone
        bias: Any = case.ours.model.get_submodule(
            f"model.layers.{layer}.mlp"
        ).e_score_correction_bias
        chosen, scores = (
            (logits.sigmoid() + bias).topk(n.catalog.sizes["k"], -1).indices,
            logits.sigmoid(),
        )
        assert torch.equal(n["mlp.router.indices"].sort(-1).values, chosen.sort(-1).values)
        scores = scores.gather(-1, n["mlp.router.indices"])
        assert apart(n["mlp.router.weights"], scores / scores.sum(-1, keepdim=True)) <= 1e-5
        return
    if case.name == "phimoe":  # a softmax over those near the best, twice
        assert torch.equal(n["mlp.router.indices"], logits.topk(2, -1).indices)
        best = logits.topk(2, -1).values
        near = (best[..., :1] - logits) / torch.maximum(logits.abs(), best[..., :1]) <= 0.9
        first = best[..., 0].exp() / (logits.exp() * near).sum(-1)
        assert apart(n["mlp.router.weights"][..., 0], first) <= 1e-5
        return
    if case.name in (
        "gpt_oss",
        "granitemoe",
        "granitemoehybrid",
    ):  # a softmax over the chosen ones alone
        chosen = logits.topk(n.catalog.sizes["k"], -1)
        assert torch.equal(n["mlp.router.indices"], chosen.indices)
        assert apart(n["mlp.router.weights"], chosen.values.softmax(-1)) <= 1e-5
        return
    if case.name.startswith("llama4"):
        chosen = logits.topk(n.catalog.sizes["k"], -1)
        assert torch.equal(n["mlp.router.indices"], chosen.indices)
        assert apart(n["mlp.router.weights"], chosen.values.sigmoid()) <= 1e-5
        return
    best = logits.softmax(-1).topk(n.catalog.sizes["k"], -1)
    assert torch.equal(n["mlp.router.indices"], best.indices)
    one = getattr(case.theirs.config, "norm_topk_prob", case.name != "jamba")
    total = best.values.sum(-1, keepdim=True) if one else 1
    weights = best.values / total
    if case.name == "gemma4_text":
        weights = weights * own.per_expert_scale[best.indices]
    assert apart(n["mlp.router.weights"], weights) <= 1e-5


@pytest.mark.parametrize("layer", LAYERS)
def test_the_residual_stream_is_a_sum(case: Case, numbers: Numbers, layer: int) -> None:
    n = numbers.at(layer)
    if "altup.streams_pre" in n:  # of several streams, none of which is a sum
        added = n["attn.contribution"] + n["laurel.contribution"]
        assert apart(n["resid_mid"], (n["resid_pre"] + added) / math.sqrt(2)) <= 1e-5
        entering = n["altup.streams_pre"]
        assert apart(n["resid_pre"], entering[:, :, 0]) > 0.01, "it is predicted from them"
        if layer:
            assert torch.equal(entering, numbers.at(layer - 1)["altup.streams_post"])
        return
    if case.name == "minimax":  # which adds to norms of the stream, times a factor
        half, said = ("attn", "full_attn") if "attn.in" in n else ("mixer", "linear_attn")
        kept = getattr(case.theirs.config, f"{said}_alpha_factor")
        middle = n[f"{half}.norm.out"] * kept + n[f"{half}.contribution"]
        last = n["mlp.norm.out"] * case.theirs.config.mlp_alpha_factor + n["mlp.contribution"]
        assert apart(n["resid_mid"], middle) <= 1e-5 and apart(n["resid_post"], last) <= 1e-5
        assert apart(n["resid_mid"], n["resid_pre"] + n[f"{half}.contribution"]) > 0.01
        return
    parts = [f"{name}.contribution" for name in ("attn", "mixer", "mlp")]
    written = [n[name] for name in parts if name in n]
    both = sum(written)
    if "per_layer.contribution" in n:
        both = both + n["per_layer.contribution"]
    scale: Any = 1  # by which Gemma 4 multiplies the whole stream
    if case.name.startswith("gemma4"):
        scale = case.theirs.model.model.layers[layer].layer_scalar
        assert abs(float(scale) - 1) > 1e-3
    assert apart(n["resid_post"], (n["resid_pre"] + both) * scale) <= 1e-5
    if "resid_mid" in n:
        assert apart(n["resid_mid"], n["resid_pre"] + sum(written[:-1])) <= 1e-5
    if layer:
        assert torch.equal(n["resid_pre"], numbers.at(layer - 1)["resid_post"])


def test_norms(case: Case, numbers: Numbers) -> None:
    norms = [f"layers.{i}.{part}.norm" for i in LAYERS for part in ("attn", "mixer", "mlp")]
    for norm in (*norms, "final_norm"):
        if f"{norm}.out" not in numbers:
            continue
        if norm == "final_norm" and case.name == "gemma3n_text":
            continue  # which reads the mean of streams that are projected back
        gain = torch.ones(()) if case.name in BARE else numbers.weight(f"{norm}.weight")
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
        if case.name == "zamba2" and part == "mlp":
            x = numbers[f"{layer}.attn.out"]
        if part == "mixer" and f"{layer}.mixer.aside" in numbers:
            x = x + numbers[f"{layer}.mixer.aside"]
    centred = ("cohere", "cohere2", "cohere_normed", "olmo", "mpt")  # by norms without bias
    centres = f"{norm}.bias" in numbers.parameters or case.name in centred
    return x - x.mean(-1, keepdim=True) if centres else x


def test_both_ends(case: Case, numbers: Numbers) -> None:
    embedded = numbers.weight("embed.weight")[IDS]
    if "gemma" in case.name:
        embedded = embedded * math.sqrt(numbers.catalog.sizes["D"])
    embedded = embedded * getattr(case.theirs.config, "scale_emb", 1.0)
    assert apart(numbers["embed.out"], embedded) <= 1e-5
    learned = numbers.values.get("pos_embed.out", torch.zeros(()))
    enters = numbers["embed.out"] * getattr(case.theirs.config, "embedding_multiplier", 1.0)
    if case.name == "bloom":  # a norm stands between them
        enters = case.ours.model.get_submodule("transformer.word_embeddings_layernorm")(enters)
    if case.name == "nanochat":
        enters = enters / (enters.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    first = numbers.at(0)
    entered = first["altup.streams_pre"][:, :, 0] if "altup.streams_pre" in first else None
    entered = first["resid_pre"] if entered is None else entered
    assert apart(entered, enters + learned) <= 1e-5
    logits = numbers.linear("unembed.weight", numbers["final_norm.out"])
    logits = logits * (getattr(case.theirs.config, "logit_scale", None) or 1.0)
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
        if spec.template.endswith("attn.indices"):  # of keys where they lie, padding counted
            continue
        if spec.dims[0] == "n":
            own = value[rows[name]]
        else:
            cuts = {"b": slice(1, 2), "p": kept, "p_q": kept, "p_k": kept}
            own = value[tuple(cuts.get(dim, slice(None)) for dim in spec.dims)]
        if case.name == "mpt" and name.endswith("scores"):
            continue  # its ALiBi counts from the last column, padding or not, which a softmax does not see
        found[name] = apart(own, single[name])
    assert {name: distance for name, distance in found.items() if distance > 1e-5} == {}


@pytest.mark.parametrize("family", sorted({family for family, _ in EVERY.values()}))
def test_bfloat16(family: str, tmp_path: Path) -> None:
    """Rounding to 8 bits: 5 % at most, against the same rounded weights in full precision."""
    all_keys = {"index_topk": 9} if "index_topk" in checkpoints.FAMILIES.get(family, {}) else {}
    more = {**EVERY[family][1], **all_keys}  # of the best few, a tie may go the other way
    path = checkpoints.make(family, tmp_path, dtype=torch.bfloat16, **more)
    ours, theirs = BareRank(path), by_hand.by_hand(family, path).run(IDS, MASK).values
    names = [
        n
        for n in ours.catalog.names()
        if n.startswith(("layers.0.", "embed")) and "router" not in n
    ]
    names = [name for name in names if "experts" not in name and ".indices" not in name]
    values = ours.values(IDS, MASK, names)
    assert values["embed.out"].dtype == torch.bfloat16
    far = {name: apart(values[name], theirs[name]) for name in names}
    assert {name: distance for name, distance in far.items() if distance > 0.05} == {}
    assert max(far.values()) > 1e-4, "that was not bfloat16"
