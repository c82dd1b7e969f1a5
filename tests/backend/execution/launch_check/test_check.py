"""The check at launch: what is wrong is refused by name, what is right passes and leaves no trace."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.execution import inputs
from garcon_backend.execution.launch_check.check import check
from garcon_backend.execution.launch_check.readings import SESSION, Readings
from garcon_backend.hook_sites import attention
from garcon_backend.in_process import open_here
from garcon_backend.models.families import FAMILIES
from garcon_backend.models.own_implementation import by_own_implementation, window_of
from garcon_jupyter.display import listings
from garcon_jupyter.display.server_card import server_card
from tests import checkpoints
from tests.backend import architectures
from tests.backend.bare_rank import BareRank
from tests.backend.execution.launch_check.check_run import check_all, check_stages
from tests.backend.ranks import run_on_ranks

LONG = {
    "sliding_window": 100,
    "max_position_embeddings": 256,
    "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"],
}
"""A window that no short text passes, in the third layer alone."""


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """The house's function stands again where it was replaced."""
    yield
    attention.register()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.make("llama", tmp_path_factory.mktemp("llama"))


def replaced(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[..., Any]) -> None:
    """Let a function of the house's be called by another, which is given it first."""
    real = getattr(attention, name)
    monkeypatch.setattr(attention, name, lambda *args, **kwargs: change(real, *args, **kwargs))


def refused(path: Path, dtype: str | None = None) -> str:
    """What is said of a model that is refused."""
    with pytest.raises(garcon.NotTheReference) as told:
        open_here(path, dtype=dtype)
    assert "unchecked=True" in told.value.remedy
    return told.value.problem


# -- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_a_wrong_scale_in_one_layer(
    dtype: str | None, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(real: Any, module: Any, *args: Any, scaling: float, **more: Any) -> Any:
        wrong = 4.0 if module.layer_idx == 2 else 1.0
        return real(module, *args, scaling=scaling * wrong, **more)

    replaced(monkeypatch, "attention", scaled)
    said = refused(llama, dtype)
    assert (
        "The first to differ, in layer 2, is the input of model.layers.2.self_attn.o_proj" in said
    )
    assert "LlamaForCausalLM does not read" in said and "off by" in said


def test_one_head_that_is_another(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(real: Any, module: Any, *args: Any, **more: Any) -> Any:
        mixed, pattern = real(module, *args, **more)
        return (mixed.flip(2) if module.layer_idx == 3 else mixed), pattern

    replaced(monkeypatch, "attention", swapped)
    assert "in layer 3, is the input of model.layers.3.self_attn.o_proj" in refused(llama)


def test_padding_that_is_read(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(monkeypatch, "additive_mask", lambda real, **more: None)
    assert "in layer 0, is the input of model.layers.0.self_attn.o_proj" in refused(llama)


def test_the_future_that_is_read(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seeing(
        real: Any, module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **more: Any
    ) -> Any:
        mask = torch.zeros(1, 1, q.shape[2], k.shape[2]) if module.layer_idx == 1 else mask
        return real(module, q, k, v, mask, **more)

    replaced(monkeypatch, "attention", seeing)
    assert "in layer 1, is the input of model.layers.1.self_attn.o_proj" in refused(llama)


@pytest.mark.parametrize("window", [4, 100])
def test_a_window_that_is_not_held(
    window: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a short text passes it or it is shortened for the check."""
    path = checkpoints.make("ministral", tmp_path, **{**LONG, "sliding_window": window})
    assert window_of(BareRank(path).model) == window
    open_here(path)

    def causal(
        real: Any, module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, **more: Any
    ) -> Any:
        if mask is not None and module.layer_idx == 2:
            shape = (mask.shape[-1], mask.shape[-1])
            past = torch.full(shape, torch.finfo(q.dtype).min).triu(1)[-q.shape[2] :]
            mask = torch.minimum(past, mask.amax(2, keepdim=True))
        return real(module, q, k, v, mask, **more)

    replaced(monkeypatch, "attention", causal)
    assert "in layer 2, is the input of model.layers.2.self_attn.o_proj" in refused(path)


def test_sinks_that_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(real: Any, *args: Any, s_aux: Any, **more: Any) -> Any:
        return real(*args, **more)

    path = architectures.make("gpt_oss", tmp_path)
    open_here(path)
    replaced(monkeypatch, "attention", dropped)
    assert "in layer 0, is the input of model.layers.0.self_attn.o_proj" in refused(path)


def test_keys_that_are_not_kept(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def update(self: Any, keys: Tensor, values: Tensor, layer: int, *args: Any, **more: Any) -> Any:
        keys = keys * 0.5 if layer == 1 else keys
        return super(attention.VisitedCache, self).update(keys, values, layer, *args, **more)

    monkeypatch.setattr(attention.VisitedCache, "update", update)
    assert "in layer 1, is the input of model.layers.1.self_attn.o_proj" in refused(llama)


def test_positions_that_count_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that learns its positions; rotary ones are told apart by their differences alone."""

    def counted(mask: Tensor) -> Tensor:
        return torch.ones_like(mask, dtype=torch.long).cumsum(1) - 1

    path = checkpoints.make("gpt2", tmp_path)
    open_here(path)
    monkeypatch.setattr(inputs, "positions_of", counted)
    said = refused(path)
    assert "does not read beside padding a short text" in said and "transformer.wpe" in said


def test_a_pass_that_fails_where_the_own_implementation_does_not(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(real: Any, module: Any, *args: Any, **more: Any) -> Any:
        raise RuntimeError("no kernel for this")

    replaced(monkeypatch, "attention", failing)
    said = refused(llama)
    assert "fails to read a short text, which its own implementation does" in said
    assert "no kernel for this" in said


# -- what is not compared ------------------------------------------------------------------------


def test_unchecked_is_served_and_said_wherever_it_is_named(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(
        monkeypatch,
        "attention",
        lambda real, *args, **more: real(*args, **{**more, "scaling": 1.0}),
    )
    here = open_here(llama, unchecked=True)
    rmodel = garcon.connect(here)
    assert "unchecked" in repr(here) and "unchecked" in repr(rmodel)
    assert "unchecked" in listings.status(rmodel.server, rmodel.status())
    assert "unchecked" in server_card(rmodel).facts
    assert rmodel.facts["model"]["check"]["outcome"] == "unchecked"
    assert rmodel.forward(torch.tensor([[3, 4, 5]])).isfinite().all()


def test_a_module_of_the_users_own_has_nothing_to_be_compared_with(llama: Path) -> None:
    rmodel = garcon.connect(open_here(torch.nn.Linear(2, 2)))
    assert rmodel.facts["model"]["check"]["outcome"] == "none"
    assert "unchecked" not in repr(rmodel) and "nothing to compare" in _status(rmodel)


def test_a_class_without_an_eager_implementation_is_said_not_refused(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing() -> None:
        raise NotImplementedError("flash attention alone")

    ours = BareRank(llama)
    monkeypatch.setattr(Readings, "wanted", lambda self: failing())
    found = check(ours.tools.passes, llama)
    assert found.state == "none" and "flash attention alone" in found.said


def test_a_choice_that_rounding_decides_is_no_fault(tmp_path: Path) -> None:
    """In half precision, one of its tokens goes to another expert than by eager attention."""
    path = checkpoints.make("glm_moe_dsa", tmp_path)
    said = garcon.connect(open_here(path, dtype="float16")).facts["model"]["check"]["said"]
    assert said.startswith("equal to its own implementation")
    assert "; rounding alone moves its logits by " in said


def test_where_transformers_contradicts_itself_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MiniMax's kernel and its eager code both read padding that its own cache has, each otherwise."""
    monkeypatch.delitem(FAMILIES, "minimax")  # whose cache is mended
    path = architectures.make("minimax", tmp_path)
    said = garcon.connect(open_here(path)).facts["model"]["check"]["said"]
    assert said.startswith("equal to its own implementation")
    assert "generation was not compared: in transformers it has other numbers than" in said


# -- what is right -------------------------------------------------------------------------------


def test_what_it_says_and_where(llama: Path) -> None:
    lines: list[str] = []
    rmodel = garcon.connect(open_here(llama, progress=lines.append))
    told = rmodel.facts["model"]["check"]
    assert told["outcome"] == "equal" and told["said"] in lines[-1] and " s" in lines[-1]
    assert told["said"] in _status(rmodel) and "unchecked" not in repr(rmodel)


def _status(rmodel: garcon.RemoteModel) -> str:
    return listings.status(rmodel.server, rmodel.status())


def test_it_leaves_no_trace(tmp_path: Path) -> None:
    ours = BareRank(checkpoints.make("gemma3_text", tmp_path))
    model: Any = ours.model
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    settings = model.config.to_dict(), model.generation_config.to_dict()
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    assert check(ours.tools.passes, tmp_path).state == "equal"
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert (model.config.to_dict(), model.generation_config.to_dict()) == settings
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert ours.installed() == ours.untouched and attention.serves(model)
    assert not ours.rank.contexts.names(SESSION, "logits", None)


def test_the_own_implementation_turns_as_transformers_turns(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    model: Any = BareRank(checkpoints.make("llama", tmp_path, rope_parameters=rope)).model
    turned = vars(model.model.rotary_emb)["forward"]
    with by_own_implementation(model):
        assert "forward" not in vars(model.model.rotary_emb)
        assert model.config._attn_implementation == "eager"
    assert vars(model.model.rotary_emb)["forward"] is turned and attention.serves(model)


# -- over ranks ----------------------------------------------------------------------------------


@pytest.mark.processes
def test_what_is_lost_by_the_cut_is_found(llama: Path, tmp_path: Path) -> None:
    mixed = checkpoints.make("mixtral", tmp_path)
    told, other = run_on_ranks(2, check_all, str(llama), str(mixed))
    for name in ("llama", "mixtral"):
        assert told[name].startswith("equal to its own implementation")
        assert told[name].endswith("the first 1 of its cut layers equal to the whole ones")
        assert other[name].startswith("equal to its own implementation")
    found = {what: said.partition("The first to differ, ")[2] for what, said in told.items()}
    assert found["neurons"].startswith("in layer 0, is the output of model.layers.0.mlp")
    assert found["heads"].startswith("in layer 0, is the output of model.layers.0.self_attn.o_proj")
    assert found["rows"].startswith("outside of the layers, is the output of model.embed_tokens")
    assert found["scale"].startswith("in layer 2, is the input of model.layers.2.self_attn.o_proj")
    assert all(
        "NotTheReference" in other[what] for what in found if what not in ("llama", "mixtral")
    )


@pytest.mark.processes
def test_over_stages(llama: Path) -> None:
    told, other = run_on_ranks(2, check_stages, str(llama))
    assert told["llama"].startswith("equal") and other["llama"].startswith("equal")
    assert "in layer 2, is the input of model.layers.2.self_attn.o_proj" in other["scale"]
    assert "NotTheReference" in told["scale"]
