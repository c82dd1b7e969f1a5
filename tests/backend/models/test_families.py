"""Every family at every point: values, edits, gradients and parameters, against the same by hand.

Tolerances are of max|a−b| / max|b| per tensor: 1e-5 for values and 1e-4 for gradients, in float32.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from garcon_backend.models.families import FAMILIES
from garcon_jupyter.errors import PointUnavailable
from tests import by_hand, checkpoints, configurations
from tests.backend import points_matrix
from tests.backend.bare_rank import BareRank
from tests.backend.cases import (
    EVERY,
    IDS,
    MASK,
    Case,
    apart,
    cancelled,
    changed,
    changed_in_place,
    edited_points,
    gradient_of,
    loss,
    with_effect,
    wrong,
)
from tests.backend.copies import Copies, copies, is_of_an_expert

AT_THE_EMBEDDING = 2e-4
"""How far the gradient at the embedding of few tokens may be off: rounding does not add up to as little as over rows of a weight."""

TABLE = tomllib.loads(points_matrix.FILE.read_text())


# -- reading ---------------------------------------------------------------------------------


def test_values(case: Case) -> None:
    names = case.ours.catalog.names()
    assert set(names) == set(case.clean.values)
    assert wrong(case.ours.values(IDS, MASK, names), case.clean.values, 1e-5 * case.rounding) == {}


def test_each_value_alone(case: Case) -> None:
    """What one point shows does not depend on which others are looked at."""
    names = edited_points(case)
    ours = {name: case.ours.values(IDS, MASK, [name])[name] for name in names}
    assert wrong(ours, case.clean.values, 1e-5 * case.rounding) == {}


def test_shapes_are_those_of_the_table(case: Case) -> None:
    catalog = case.ours.catalog
    free = {"b": 2, "p": 9, "p_q": 9, "p_k": 9, "c": getattr(case.theirs.config, "index_topk", 0)}
    for name, value in case.ours.values(IDS, MASK, catalog.names()).items():
        said = catalog.shape(catalog.point(name))
        # A letter without a number is a size that differs from layer to layer.
        meant = [
            n if isinstance(size, str) and size not in free else free.get(str(size), size)
            for n, size in zip(value.shape, said, strict=True)
        ]
        first = 1 if said[0] == "n" else 0  # as many tokens as are routed to an expert
        assert list(value.shape[first:]) == meant[first:]


# -- editing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("edit", [changed, changed_in_place], ids=["by return", "in place"])
def test_edits_reach_the_logits(case: Case, edit: Callable[..., Tensor | None]) -> None:
    ours, theirs = {}, {}
    clean = case.clean.values["logits"].detach()
    for one in copies(edited_points(case)):
        ours |= one.of_each(case.ours.forward(one.ids, one.mask, one.edits(edit)))
        with torch.no_grad():
            edited = case.theirs.run(one.ids, one.mask, **one.edits(changed))
        theirs |= one.of_each(edited.values["logits"])
    assert wrong(ours, theirs, 1e-5 * case.rounding) == {}
    reach = with_effect(case, ours)
    assert {n for n, logits in reach.items() if apart(logits, clean) < 1e-4} <= cancelled(case)
    assert apart(case.ours.forward(IDS, MASK), clean) <= 1e-5 * case.rounding, (
        "an edit outlived its request"
    )


def test_an_edit_is_what_later_points_see(case: Case) -> None:
    """All points of a layer edited at once, each on top of those before it."""
    names = [n for n in edited_points(case) if n.startswith("layers.1.") and "indices" not in n]
    ours = case.ours.forward(IDS, MASK, dict.fromkeys(names, changed))
    with torch.no_grad():
        theirs = case.theirs.run(IDS, MASK, **dict.fromkeys(names, changed)).values["logits"]
    assert apart(ours, theirs) <= 1e-4 * case.rounding  # errors of thirty edits add up


# -- gradients -------------------------------------------------------------------------------


def test_gradients(case: Case) -> None:
    names = case.ours.floating_points()
    ours = with_effect(case, case.ours.gradients(loss, IDS, MASK, names))
    for name in cancelled(case):
        assert ours.pop(name).abs().max() < 1e-5 * ours[name.replace("scale", "out")].abs().max()
    theirs = {name: gradient_of(case.clean.values[name]) for name in ours}
    assert wrong(ours, theirs, 1e-4 * case.rounding) == {}


def test_each_gradient_alone(case: Case) -> None:
    names = sorted(set(case.ours.floating_points(case.edited_layers)) - cancelled(case))
    ours = {name: case.ours.gradients(loss, IDS, MASK, [name])[name] for name in names}
    theirs = {name: gradient_of(case.clean.values[name]) for name in names}
    assert wrong(with_effect(case, ours), theirs, 1e-4 * case.rounding) == {}


def test_edited_gradients_flow_on(case: Case) -> None:
    """A gradient halved at a point arrives halved, by that path, at the embedding."""
    ours, theirs = {}, {}
    for one in copies(floating_points_inside(case, 1)):
        halves = {name: partial(one.halved, name) for name in one.names}
        ours |= gradients_at_the_embedding(case, one, gradients=halves)
        theirs |= their_gradients(
            case, one, **{name: partial(with_gradient, change=halves[name]) for name in one.names}
        )
    assert wrong(ours, theirs, AT_THE_EMBEDDING * case.rounding) == {}


def test_edits_in_a_backward(case: Case) -> None:
    ours, theirs = {}, {}
    edited = set(edited_points(case))
    for one in copies([n for n in floating_points_inside(case, 1) if n in edited]):
        ours |= gradients_at_the_embedding(case, one, see=one.edits(changed))
        theirs |= their_gradients(case, one, **one.edits(changed))
    assert wrong(ours, theirs, AT_THE_EMBEDDING * case.rounding) == {}


def test_a_value_that_autograd_saved_survives_its_edit(case: Case) -> None:
    """Squaring keeps the old value for its backward, though a new one is written in its place."""
    ours, theirs = {}, {}
    for name in ("resid_pre", "resid_mid", "attn.in", "attn.v", "attn.z", "mlp.in", "mlp.out"):
        point = f"layers.1.{name}"
        if point in case.clean.values:
            see: dict[str, Any] = {point: lambda value: value * value * 0.3}
            ours[point] = case.ours.backward(
                loss, IDS, MASK, see, parameters=["embed.weight"], sharded=True
            )["embed.weight"]
            theirs[point] = embedding_gradient(case, **see)
    assert wrong(ours, theirs, 1e-4 * case.rounding) == {}


def test_values_in_the_loss_are_on_the_graph(case: Case) -> None:
    """The gradient, at the embedding, of a loss of one point's value, and not of the logits."""
    ours, theirs = {}, {}
    for one in copies(floating_points_inside(case, 2)):

        def of_values(values: Sequence[Tensor], one: Copies = one) -> Tensor:
            mine = [
                value if is_of_an_expert(name) else value[one.rows(name)]
                for name, value in zip(one.names, values, strict=True)
            ]
            return torch.stack([loss_of(value) for value in mine]).sum()

        ours |= gradients_at_the_embedding(
            case, one, lambda logits, values: of_values(values), values=one.names
        )
        seen = case.theirs.run(one.ids, one.mask).values
        of_values([seen[name] for name in one.names]).backward()
        theirs |= one.of_each(gradient_of(seen["embed.out"]))
    assert wrong(ours, theirs, AT_THE_EMBEDDING * case.rounding) == {}


def floating_points_inside(case: Case, layer: int) -> list[str]:
    return [n for n in case.ours.floating_points([layer]) if n.startswith("layers.")]


def loss_of(value: Tensor) -> Tensor:
    """Bounded, so that masked scores do not matter."""
    weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(8))
    return (value.atan() * weights.to(value.dtype)).sum()


def with_gradient(value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A value whose gradient is changed on its way."""
    value = value.view_as(value)
    value.register_hook(change)
    return value


def gradients_at_the_embedding(
    case: Case, one: Copies, of: Callable[..., Tensor] | None = None, **how: Any
) -> dict[str, Tensor]:
    """What comes to each copy's embedding of a backward with probes, which are given as to a rank."""
    found: dict[str, Tensor] = {}

    def keep(gradient: Tensor) -> None:
        found["embed.out"] = gradient.clone()

    gradients = {**how.pop("gradients", {}), "embed.out": keep}
    case.ours.backward(of or one.loss, one.ids, one.mask, gradients=gradients, **how)
    return one.of_each(found["embed.out"])


def their_gradients(case: Case, one: Copies, **edits: by_hand.Edit) -> dict[str, Tensor]:
    """The same by hand."""
    seen = case.theirs.run(one.ids, one.mask, **edits).values
    one.loss(seen["logits"]).backward()
    return one.of_each(gradient_of(seen["embed.out"]))


def embedding_gradient(case: Case, **edits: by_hand.Edit) -> Tensor:
    case.theirs.model.zero_grad()
    loss(case.theirs.run(IDS, MASK, **edits).values["logits"]).backward()
    return case.theirs.parameters()["embed.weight"].gradient.clone()


# -- parameters ------------------------------------------------------------------------------


def test_parameters(case: Case) -> None:
    theirs = {name: stored.value for name, stored in case.theirs.parameters().items()}
    assert set(case.ours.catalog.parameters) == set(theirs)
    ours = {name: case.ours.parameter(name) for name in theirs}
    assert wrong(ours, theirs, 1e-6) == {}


def test_gradients_of_parameters(case: Case) -> None:
    case.theirs.model.zero_grad()
    loss(case.theirs.run(IDS, MASK).values["logits"]).backward()
    theirs = {name: stored.gradient for name, stored in case.theirs.parameters().items()}
    ours = case.ours.backward(loss, IDS, MASK, parameters=list(theirs))
    # Without rotation, softmax cancels what is added to all keys.
    if case.name in ("gpt2", "bloom", "opt", "falcon_rw", "gpt_bigcode", "gpt_bigcode_many"):
        for layer in range(4):
            zero = ours.pop(f"layers.{layer}.attn.k_proj.bias")
            assert zero.abs().max() < 1e-5 * ours[f"layers.{layer}.attn.q_proj.bias"].abs().max()
    assert wrong(ours, theirs, 1e-4 * case.rounding) == {}


# -- the table -------------------------------------------------------------------------------


def test_the_table_says_what_each_family_has(case: Case) -> None:
    assert points_matrix.entry(case.ours.catalog) == TABLE[case.name]


def test_the_table_is_of_these_cases() -> None:
    lacking = {family for family in configurations.SINCE if family not in configurations.FAMILIES}
    assert set(TABLE) - lacking == set(EVERY)


def test_a_shape_of_opt_that_normalises_the_stream_itself(tmp_path: Path) -> None:
    """As its 350M model does, whose embedding is narrower, too: what is there is right, what is not there says why."""
    shape = {"do_layer_norm_before": False, "word_embed_proj_dim": 24}
    ours = BareRank(checkpoints.make("opt", tmp_path, **shape))
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    seen: dict[str, Tensor] = {}
    block = plain.model.decoder.layers[1]
    handles = {
        "layers.1.attn.contribution": block.self_attn,
        "layers.1.mlp.contribution": block.fc2,
    }
    for name, module in {**handles, "layers.1.resid_post": block}.items():
        module.register_forward_hook(lambda m, a, out, name=name: seen.update({name: first(out)}))
    with torch.no_grad():
        seen["logits"] = plain(IDS).logits
    seen["layers.1.mlp.contribution"] = seen["layers.1.mlp.contribution"].view(2, 9, 48)
    assert wrong(ours.values(IDS, None, list(seen)), seen, 1e-5) == {}
    for name, why in (("layers.1.mlp.norm.out", "after each addition"), ("embed.out", "narrower")):
        with pytest.raises(PointUnavailable, match=why):
            ours.catalog.point(name)


@pytest.mark.parametrize(
    ("family", "norm", "more"),
    [
        ("stablelm", "q_layernorm", {"use_parallel_residual": True, "qk_layernorm": True}),
        ("cohere", "q_norm", {"use_qk_norm": True}),
    ],
)
def test_shapes_whose_heads_have_norms_of_their_own(
    family: str, norm: str, more: dict[str, Any], tmp_path: Path
) -> None:
    """StableLM's 12B and Command R+: each head has gains, and attention and MLP stand side by side."""
    ours = BareRank(checkpoints.make(family, tmp_path, **more))
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    module, seen = plain.get_submodule(f"model.layers.1.self_attn.{norm}"), {}
    handle = module.register_forward_hook(lambda m, a, out: seen.update(out=out))
    with torch.no_grad():
        logits = plain(IDS).logits
    handle.remove()
    name = "layers.1.attn.q_normed"
    wanted = seen["out"].transpose(1, 2) if family == "stablelm" else seen["out"]
    assert apart(ours.values(IDS, None, [name])[name], wanted) <= 1e-5
    assert apart(ours.forward(IDS), logits) <= 1e-5
    edited = ours.forward(IDS, None, {name: lambda value: value * 0.5})
    module.register_forward_hook(lambda m, a, out: out * 0.5)
    with torch.no_grad():
        assert apart(edited, plain(IDS).logits) <= 1e-5 and apart(edited, logits) > 1e-3
    with pytest.raises(PointUnavailable, match="both read resid_pre"):
        ours.catalog.point("layers.1.resid_mid")


def first(output: Any) -> Tensor:
    """The tensor of an output, alone or before others."""
    return output if isinstance(output, Tensor) else output[0]


def test_the_readme_counts_them() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    names = {family.name for family in FAMILIES.values()}
    assert f"{len(names)} families" in readme
    assert {family for family, _ in EVERY.values()} >= {f.model_types[0] for f in FAMILIES.values()}
