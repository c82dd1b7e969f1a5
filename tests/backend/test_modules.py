"""The escape hatch: any module of any model, mapped or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_backend.models.binding import UNMAPPED
from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadTokens, PointUnavailable, UnknownParameter, UnknownPoint
from garcon_jupyter.points import POINTS
from tests import checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import IDS, MASK, Case, apart, changed, loss
from tests.backend.models.test_family_files import save_biogpt

ATTENTION = {
    "gpt2": "attn",
    "gpt_neox": "attention",
    "gptj": "attn",
    "gpt_neo": "attn",
    "nemotron_h": "mixer",
    "bloom": "self_attention.dense",  # the module itself adds the residual stream
    "falcon": "self_attention",
    **dict.fromkeys(("codegen", "mpt", "gpt_bigcode"), "attn"),
    "zamba2": "shared_transformer.self_attn",
}
"""What families call the attention module, unless ``self_attn``."""


@pytest.fixture(scope="module")
def biogpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an architecture that no family file maps."""
    return save_biogpt(tmp_path_factory.mktemp("biogpt"))


@pytest.fixture(scope="module")
def unmapped(biogpt: Path) -> BareRank:
    return BareRank(biogpt)


def test_an_unmapped_model_has_modules_only(unmapped: BareRank) -> None:
    catalog = unmapped.catalog
    assert catalog.names() == []
    assert catalog.refused == {spec.template: UNMAPPED for spec in POINTS}
    with pytest.raises(PointUnavailable, match="no family file maps"):
        catalog.point("layers.0.resid_pre")
    assert "biogpt.layers.1.fc1" in catalog.modules
    with pytest.raises(UnknownPoint, match=r"biogpt\.layers\.1\.fc1"):
        catalog.point("module:biogpt.layers.1.fc3.output")
    with pytest.raises(UnknownPoint, match="side"):
        catalog.point("module:biogpt.layers.1.fc1")


def test_an_unmapped_model_is_read_and_edited(unmapped: BareRank, biogpt: Path) -> None:
    plain = AutoModelForCausalLM.from_pretrained(biogpt, attn_implementation="eager")
    theirs: dict[str, Tensor] = {}
    fc2 = plain.get_submodule("biogpt.layers.1.fc2")
    fc2.register_forward_pre_hook(lambda m, args: theirs.update(input=args[0]))
    fc2.register_forward_hook(lambda m, args, out: theirs.update(output=out))
    logits = plain(IDS, attention_mask=MASK).logits
    ours = unmapped.values(IDS, MASK, [f"module:biogpt.layers.1.fc2.{s}" for s in theirs])
    for side, value in theirs.items():
        assert apart(ours[f"module:biogpt.layers.1.fc2.{side}"], value) <= 1e-5
    assert apart(unmapped.forward(IDS, MASK), logits) <= 1e-5
    fc2.register_forward_hook(lambda m, args, out: changed(out))
    edited = plain(IDS, attention_mask=MASK).logits
    name = "module:biogpt.layers.1.fc2.output"
    assert apart(unmapped.forward(IDS, MASK, {name: changed}), edited) <= 1e-5
    assert apart(logits, edited) > 1e-3


def test_the_last_logits_of_an_unmapped_model(biogpt: Path) -> None:
    """All are computed, as its own forward may know of no other way; which row's last token is where is then known."""
    rmodel = garcon.connect(open_here(biogpt))
    tokens = Tokens(IDS, MASK.bool())
    every, last = rmodel.forward(tokens), rmodel.forward(tokens, logits="last")
    assert torch.equal(last, every[torch.arange(2), MASK.sum(1) - 1])
    assert apart(last, every[:, 0]) > 1e-3


def test_parameters_of_an_unmapped_model_have_their_own_names(unmapped: BareRank) -> None:
    name = "biogpt.layers.0.fc1.weight"
    assert torch.equal(unmapped.parameter(name), unmapped.model.get_parameter(name))
    gradient = unmapped.backward(loss, IDS, MASK, parameters=[name])[name]
    assert gradient.shape == unmapped.parameter(name).shape and gradient.abs().max() > 0
    with pytest.raises(UnknownParameter):
        unmapped.catalog.parameter("layers.0.mlp.up_proj")


def test_tokens_out_of_range_are_refused_there_too(unmapped: BareRank) -> None:
    with pytest.raises(BadTokens):
        unmapped.forward(torch.tensor([[checkpoints.VOCABULARY]]))
    with pytest.raises(BadTokens):
        unmapped.forward(torch.zeros(1, 33, dtype=torch.long))


def test_a_module_of_the_users_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 5), nn.Tanh(), nn.Linear(5, 11)).requires_grad_(False)
    ours = BareRank(model)
    ids = torch.tensor([[1, 2, 3]])
    assert (
        apart(ours.values(ids, None, ["module:1.output"])["module:1.output"], model[:2](ids)) == 0
    )
    edited = ours.forward(ids, None, {"module:1.output": lambda x: x * 2})
    assert apart(edited, model[2](model[:2](ids) * 2)) <= 1e-6
    assert torch.equal(ours.parameter("2.weight"), model[2].weight)


def test_modules_of_a_mapped_model(case: Case) -> None:
    """A block's output is a tensor, attention's a tuple, the whole model's an object."""
    family = case.ours.bound.family
    assert family is not None
    block = f"{family.layers}.1"
    attention = f"{block}.{ATTENTION.get(family.name, 'self_attn')}"
    raw = "layers.1.attn.out"
    if raw not in case.clean.values:
        return
    for module, point in ((block, "layers.1.resid_post"), (attention, raw), ("", "logits")):
        if point not in case.clean.values:
            assert case.name == "gemma3n_text"  # whose blocks put out several streams
            continue
        name = f"module:{module}.output".replace(":.", ":")
        value = case.ours.values(IDS, MASK, [name])[name]
        assert apart(value, case.clean.values[point]) <= 1e-5
        ours = case.ours.forward(IDS, MASK, {name: changed})
        with torch.no_grad():
            theirs = case.theirs.run(IDS, MASK, **{point: changed}).values["logits"]
        assert apart(ours, theirs) <= 1e-5


def test_a_module_that_puts_out_no_tensor_is_refused() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing, self.embedding = Nothing(), nn.Embedding(5, 3)

        def forward(self, ids: Tensor) -> Tensor:
            self.nothing(ids)
            return self.embedding(ids)

    ours = BareRank(Model().requires_grad_(False))
    ids = torch.tensor([[1, 2]])
    with pytest.raises(PointUnavailable, match="no tensor"):
        ours.values(ids, None, ["module:nothing.output"])
    assert torch.equal(
        ours.values(ids, None, ["module:nothing.input"])["module:nothing.input"], ids
    )
