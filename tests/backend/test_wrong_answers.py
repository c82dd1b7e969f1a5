"""The mistakes that other tools made: each would be told from the right answer."""

from __future__ import annotations

import cloudpickle
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from garcon_backend.process.user_code import UserFailure
from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.wire import requests as wire
from tests.backend.cases import BARE, IDS, MASK, OWN_ATTENTION, Case, apart, changed, loss

FAR = 0.1
"""Relative distance from which on two tensors are two different things."""


@pytest.fixture
def values(case: Case) -> dict[str, Tensor]:
    return case.ours.values(IDS, MASK, case.ours.catalog.names())


def test_keys_repeated_for_every_query_head(case: Case, values: dict[str, Tensor]) -> None:
    sizes = case.ours.catalog.sizes
    for name in ("k", "v", "k_rot"):
        if f"layers.1.attn.{name}" in values:
            value = values[f"layers.1.attn.{name}"]
            assert value.shape[2] == sizes["K"]
            repeated = value.repeat_interleave(sizes["H"] // sizes["K"], 2)
            same = apart(value, repeated) == 0
            assert same == (sizes["H"] == sizes["K"])


def test_heads_side_by_side_that_are_interleaved(case: Case, values: dict[str, Tensor]) -> None:
    if not case.name.startswith("gpt_neox"):
        return
    caught: list[Tensor] = []
    case.ours.forward(
        IDS,
        MASK,
        {"module:gpt_neox.layers.1.attention.query_key_value.output": caught.append},
    )
    blocks = caught[0].chunk(3, -1)
    for block, name in zip(blocks, "qkv", strict=True):
        value = values[f"layers.1.attn.{name}"]
        assert apart(value, block.unflatten(-1, value.shape[2:])) > FAR


def test_raw_outputs_taken_for_contributions(case: Case, values: dict[str, Tensor]) -> None:
    """Where a norm comes after, they are two things; elsewhere one."""
    for half in ("attn", "mlp"):
        if f"layers.1.{half}.contribution" not in values:
            continue
        out, added = (values[f"layers.1.{half}.{name}"] for name in ("out", "contribution"))
        normed = f"layers.1.{half}.post_norm.weight" in case.ours.catalog.parameters
        multiplied = case.name.startswith(("granite", "minicpm3", "falcon_h1"))
        if normed or multiplied or case.name == "minimax":
            assert apart(out, added) > FAR
        else:
            assert torch.equal(out, added)


def path_of(case: Case, template: str) -> str:
    """The module that a point of layer 1, or of none, is at."""
    family = case.ours.bound.family
    assert family is not None
    return family.points[template].at(1, None)


def test_normalized_taken_for_the_norms_output(case: Case, values: dict[str, Tensor]) -> None:
    same = apart(values["final_norm.normalized"], values["final_norm.out"]) <= FAR
    assert same == (case.name in BARE)


def test_stored_gains_taken_for_gains(case: Case) -> None:
    if case.name in BARE:
        assert not any("norm" in name for name in case.ours.catalog.parameters)
        return
    stored = dict(case.ours.model.named_parameters())
    gain = case.ours.parameter("final_norm.weight")
    same = apart(gain, stored[f"{path_of(case, 'final_norm.out')}.weight"]) == 0
    less_one = ("gemma2", "gemma3_text", "gemma3", "vaultgemma", "nemotron")
    less_one = (*less_one, "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")
    assert same == (case.name not in less_one)
    drawn_around = 2 if case.name == "nemotron" else 1  # a fresh one stores ones for all that
    assert abs(float(gain.mean()) - drawn_around) < FAR


def test_scores_without_cap_or_mask(case: Case, values: dict[str, Tensor]) -> None:
    at = next((i for i in range(4) if f"layers.{i}.attn.scores" in values), None)
    if at is None:
        assert case.name in ("falcon_rw", "mamba", "mamba2")
        return
    last = "normed" if case.name.startswith(("hunyuan", "nanochat")) else "rot"
    q, k = (
        values.get(f"layers.{at}.attn.{name}_{last}", values.get(f"layers.{at}.attn.{name}"))
        for name in "qk"
    )
    k = k.repeat_interleave(q.shape[2] // k.shape[2], 2)
    bare = torch.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    scores = values[f"layers.{at}.attn.scores"]
    assert apart(scores, bare) > FAR  # the mask
    seen = scores > -1e30
    if case.name in OWN_ATTENTION:  # whose rotated queries and keys are no points
        return
    # The cap; and a scale that is not 1/√d.
    other = case.name.startswith(("gemma", "granite", "vaultgemma", "zamba2"))
    assert (apart(scores[seen], bare[seen]) > FAR) == other
    per_query = seen.sum(-1).amax()
    config = case.theirs.config
    names = ("sliding_window", "attention_chunk_size", "index_topk")
    limit = next((n for name in names if (n := getattr(config, name, None))), None)
    assert (per_query <= (limit or 4)) == (limit is not None)


def test_half_the_neurons(case: Case, values: dict[str, Tensor]) -> None:
    names = ("mlp.post_activation", "mlp.experts.0.post_activation", "mixer.gated")
    at = (f"layers.{layer}.{n}" for layer in (1, 2) for n in names)
    name = next(name for name in at if name in values)
    if ".experts." in name:
        stem = name.partition(".experts.")[0]
        experts = [other for other in values if other.startswith(f"{stem}.experts.")]
        name = max(experts, key=lambda expert: len(values[expert]))
    value = values[name]
    half = value[..., : value.shape[-1] // 2]
    assert apart(value, half) > FAR
    assert apart(value, torch.cat([half, half], -1)) > FAR


def test_weights_before_the_best_are_chosen(case: Case, values: dict[str, Tensor]) -> None:
    if case.name != "mixtral":
        return
    weights = values["layers.1.mlp.router.weights"]
    everything = values["layers.1.mlp.router.logits"].softmax(-1)
    assert apart(weights, everything) > FAR
    unscaled = everything.gather(-1, values["layers.1.mlp.router.indices"])
    assert apart(weights, unscaled) > FAR


def test_edited_logits_of_a_router_change_the_choice(case: Case) -> None:
    if case.name != "mixtral":
        return
    chosen: list[Tensor] = []
    case.ours.forward(
        IDS,
        MASK,
        {
            "layers.1.mlp.router.logits": lambda logits: -logits,
            "layers.1.mlp.router.indices": lambda indices: chosen.append(indices.clone()),
        },
    )
    worst = case.clean.values["layers.1.mlp.router.logits"].topk(2, -1, largest=False).indices
    assert torch.equal(chosen[0], worst)


def test_the_gradient_of_a_copy(case: Case) -> None:
    """A reshaped copy is not what the model goes on with: it has no gradient. Ours has."""
    copies: list[Tensor] = []
    plain = case.theirs.loaded

    def copy(module: object, args: tuple[Tensor, ...]) -> None:
        copies.append(args[0].reshape(2, 9, -1, 4).clone())
        copies[-1].retain_grad()

    if "layers.{i}.attn.z" not in case.ours.catalog.layers:
        return
    path = path_of(case, "layers.{i}.attn.head_out")
    handle = plain.get_submodule(path).register_forward_pre_hook(copy)
    if hasattr(plain, "set_experts_implementation"):
        plain.set_experts_implementation("eager")  # grouped kernels have no float64
    loss(plain(IDS, attention_mask=MASK).logits).backward()
    handle.remove()
    assert copies[0].grad is None
    ours = case.ours.gradients(loss, IDS, MASK, ["layers.1.attn.z"])["layers.1.attn.z"]
    theirs = case.clean.values["layers.1.attn.z"].grad
    assert theirs is not None and theirs.abs().max() > 0
    assert apart(ours, theirs) <= 1e-4


# -- what a request leaves behind ------------------------------------------------------------


def test_nothing_is_left_after_a_failure(case: Case) -> None:
    """`forward` and `backward` here assert that no hook, forward or tap outlives a request."""

    def fails(tensor: Tensor) -> None:
        raise ZeroDivisionError

    names = [n for n in case.ours.catalog.names() if n.startswith("layers.2.")]
    clean = case.ours.forward(IDS, MASK)
    with pytest.raises(UserFailure) as failure:
        case.ours.forward(IDS, MASK, {**dict.fromkeys(names, changed), "logits": fails})
    assert isinstance(failure.value.error, ZeroDivisionError)
    assert torch.equal(case.ours.forward(IDS, MASK), clean)
    with pytest.raises(UserFailure):
        case.ours.backward(loss, IDS, MASK, gradients={"layers.1.resid_pre": fails})
    with pytest.raises(BadRequest):
        case.ours.backward(lambda logits: torch.zeros(3), IDS, MASK, dict.fromkeys(names, changed))
    assert torch.equal(case.ours.forward(IDS, MASK), clean)
    assert not any(p.requires_grad or p.grad is not None for p in case.ours.model.parameters())


def test_a_hook_that_stayed_would_be_noticed(case: Case) -> None:
    seen = ("attn.pattern", "attn.z", "mixer.state_out")
    name = next(n for n in seen if f"layers.{{i}}.{n}" in case.ours.catalog.layers)
    place, module = case.ours.bound.site(case.ours.catalog.point(f"layers.1.{name}"))
    assert module is not None
    remove = place.install(module, object(), lambda value: None)  # type: ignore[arg-type]
    try:
        assert case.ours.installed() != case.ours.untouched
    finally:
        remove()
    assert case.ours.installed() == case.ours.untouched


class CountFast(TorchFunctionMode):
    """Counts the calls of the fast attention kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls += func is torch.nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def test_attention_is_fast_but_where_it_is_looked_into(case: Case) -> None:
    attending = case.ours.catalog.layers.get("layers.{i}.attn.pattern", ())
    if not attending:
        assert case.name in ("falcon_rw", "mamba", "mamba2")
        return
    last = attending[-1]
    slow = case.name in (
        "gemma2",
        "vaultgemma",
        "gpt_oss",
        *OWN_ATTENTION,
    )  # no fast kernel caps scores, or has sinks
    for names, steps in (
        ((), 0),
        (("layers.1.attn.z", "layers.1.attn.q"), 0),
        (("layers.1.attn.pattern",), 1),
        (
            ("layers.1.attn.scores", "layers.1.attn.pattern", f"layers.{last}.attn.scores"),
            len({1, last}),
        ),
        ((), 0),
    ):
        with CountFast() as count:
            case.ours.values(IDS, MASK, names)
        assert count.calls == (0 if slow else len(attending) - steps)


def test_a_layer_or_point_that_is_not_there_is_refused(case: Case) -> None:
    catalog = case.ours.catalog
    for template, reason in catalog.refused.items():
        name = template.replace("{i}", "1").replace("{e}", "0")
        with pytest.raises(PointUnavailable, match="This model has no") as refusal:
            catalog.point(name)
        assert reason in refusal.value.problem


def test_indices_have_no_gradient(case: Case) -> None:
    name = "layers.1.mlp.router.indices"
    code = wire.Code(cloudpickle.dumps(lambda context, tensor: None), "look", "look")
    request = wire.Backward(
        "test",
        batch=wire.Batch(IDS),
        loss=wire.Code(cloudpickle.dumps(torch.Tensor.sum), "sum", "sum"),
        probes=(wire.ProbeSpec(name, code, grad=True),),
    )
    expected = BadRequest if name in case.ours.catalog.names() else PointUnavailable
    with pytest.raises(expected):
        case.ours.run(request)
