"""Whose attention function a model runs with, and that its numbers are then the reference's own.

The other side is transformers' own eager implementation, padded likewise or each text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from garcon_backend.hook_sites import attention
from garcon_backend.models.attending import attending
from garcon_backend.models.binding import OWN_ATTENTION, bind
from garcon_backend.models.config import read_config
from garcon_backend.models.families import FAMILIES, family_of
from garcon_backend.models.family import standard_sizes
from garcon_jupyter.errors import NotAModel, PointUnavailable
from garcon_jupyter.model_files.degrees import possible_tp, sizes_of
from tests import checkpoints
from tests.backend import cases
from tests.backend.architectures import ARCHITECTURES, make
from tests.backend.attending_run import NEW, read_all
from tests.backend.bare_rank import BareRank
from tests.backend.cases import IDS, MASK, apart
from tests.backend.ranks import run_on_ranks

SHORT = 5
"""Real tokens of the second row, where it is padded."""

SIDES = {"right": slice(0, SHORT), "left": slice(IDS.shape[1] - SHORT, IDS.shape[1])}

BY_THE_BATCH = {"deepseek_v32", "glm_moe_dsa", "deepseek_v4"}
"""Architectures that choose or compress keys by their place in the batch: a padded text has not the numbers that
it has alone, in transformers neither."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def path(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(name, tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def ours(path: Path) -> BareRank:
    return BareRank(path)


@pytest.fixture(scope="module")
def plain(path: Path) -> Iterator[Any]:
    with torch.no_grad():
        yield eager(path)


def eager(path: Path, implementation: str = "eager") -> Any:
    """The reference: the plainest code of a class, but for Falcon's, which adds ALiBi twice (see `test_misreadings`)."""
    config = AutoConfig.from_pretrained(path)
    if implementation == "eager" and config.model_type == "falcon" and config.alibi:
        implementation = "sdpa"
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation=implementation
    ).eval()


def padded(side: str) -> tuple[Tensor, Tensor]:
    """The first row whole; of the second the first tokens, padded on a side."""
    ids, mask = IDS.clone(), torch.ones_like(IDS)
    ids[1], mask[1] = 2, 0
    ids[1, SIDES[side]], mask[1, SIDES[side]] = IDS[1, :SHORT], 1
    return ids, mask


# -- own functions -------------------------------------------------------------------------------


def test_numbers_are_those_of_the_reference(ours: BareRank, plain: Any) -> None:
    assert apart(ours.forward(IDS), plain(IDS, use_cache=False).logits) <= 1e-5


@pytest.mark.parametrize("side", SIDES)
def test_padded_numbers_are_those_of_the_text(
    side: str, name: str, ours: BareRank, plain: Any
) -> None:
    ids, mask = padded(side)
    found = ours.forward(ids, mask.bool())
    assert apart(found[0], plain(IDS[:1], use_cache=False).logits[0]) <= 1e-5
    if name in BY_THE_BATCH:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        more = {"position_ids": positions} if side == "left" else {}
        told = plain(ids, attention_mask=mask, use_cache=False, **more)
        wanted = told.logits[1, SIDES[side]]
    else:
        wanted = plain(IDS[1:, :SHORT], use_cache=False).logits[0]
    assert apart(found[1, SIDES[side]], wanted) <= 1e-5
    assert found.isfinite().all()


def test_greedy_continuations_are_those_of_the_reference(ours: BareRank, plain: Any) -> None:
    wanted = plain.generate(
        IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=6, do_sample=False, pad_token_id=2
    )
    found = ours.generate(IDS, 6)
    assert found is not None and torch.equal(found, wanted)


def test_modules_alone_are_offered_where_no_family_maps(ours: BareRank) -> None:
    kind = ours.model.config.model_type  # type: ignore[union-attr]
    mapped = kind in FAMILIES
    by_house = kind in ("gpt_oss", "gemma4_text", "deepseek_v32", "glm_moe_dsa", "minimax")
    assert attention.serves(ours.model) == by_house
    assert bool(ours.catalog.names()) == mapped
    own = not by_house and ours.model.config._attn_implementation == "eager"  # type: ignore[union-attr]
    if mapped and own:
        assert "layers.0.attn.pattern" in ours.catalog.names()  # its own softmax
    elif not by_house:
        with pytest.raises(PointUnavailable, match="a kernel's" if mapped else "no family file"):
            ours.catalog.point("layers.0.attn.pattern")


def test_the_comparison_would_tell(tmp_path: Path) -> None:
    """A function that drops what it does not know is off by more than any tolerance, and so is a missing mask."""
    AttentionInterface.register("dropping", _dropping)
    for name in ("gpt_oss", "granite_swa", "flint"):
        path = make(name, tmp_path / name)
        with torch.no_grad():
            right, wrong = (eager(path, w)(IDS).logits for w in ("eager", "dropping"))
        assert apart(wrong, right) > 0.01
    bloom = make("bloom", tmp_path / "bloom")
    attention.register()
    with torch.no_grad():
        assert apart(eager(bloom, attention.NAME)(IDS).logits, eager(bloom)(IDS).logits) > 0.01


def _dropping(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **more: Any
) -> Any:
    return attention.attention(module, query, key, value, mask, scaling=more.get("scaling"))


# -- over ranks ----------------------------------------------------------------------------------

LAYOUTS = [{"pp": 2}, {"tp": 2}]


@pytest.mark.processes
@pytest.mark.parametrize("layout", LAYOUTS, ids="-".join)
def test_over_ranks_they_are_equal_or_refused(layout: dict[str, int], tmp_path: Path) -> None:
    names = [name for name in ARCHITECTURES if name not in ("granitemoe_swa", "falcon_40b")]
    for name in names:
        make(name, tmp_path / name)
    refused, other = run_on_ranks(2, read_all, str(tmp_path), names, layout)
    assert refused == other
    for name in set(names) - set(refused):
        logits, ids = torch.load(tmp_path / f"{name}-{'-'.join(layout)}.pt")
        plain, real = eager(tmp_path / name), MASK.bool()
        with torch.no_grad():
            wanted = plain(IDS, attention_mask=MASK, use_cache=False).logits
        assert apart(logits[real], wanted[real]) <= 1e-5, name
        options = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 2}
        told = plain.generate(IDS, attention_mask=torch.ones_like(IDS), **options)
        assert torch.equal(ids, told), name
    if "pp" in layout:
        assert "prev_topk_indices beside the residual stream" in refused["glm_moe_dsa"]
        assert {"bloom", "codegen", "falcon", "gpt_neo", "gptj", "mpt", "gpt_oss"} <= set(
            names
        ) - set(refused)
    else:
        assert "no plan" in refused["bloom"].lower()


# -- the decision --------------------------------------------------------------------------------


def test_mapped_architectures_attend_by_the_house(tmp_path: Path) -> None:
    for family in checkpoints.FAMILIES:
        config = read_config(checkpoints.make(family, tmp_path / family))
        chosen = attending(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, family_of(config))
        if family in (*cases.OWN_ATTENTION, "mamba", "mamba2"):
            assert not chosen.by_house, family
            # GPT-J's hands its attention over since transformers 5.24; nothing inside it has a name.
            assert re.search("its class takes no other|no points inside", chosen.reason), family
        else:
            assert chosen.by_house and "points of" in chosen.reason, family


def test_points_inside_attention_are_refused_where_it_is_the_models_own(tmp_path: Path) -> None:
    model = eager(checkpoints.make("llama", tmp_path))
    bound = bind(model, FAMILIES["llama"], model.config)
    for name in ("scores", "pattern", "q_rot", "k_rot"):
        assert bound.catalog.refused[f"layers.{{i}}.attn.{name}"] == OWN_ATTENTION
        with pytest.raises(PointUnavailable, match="function of its own"):
            bound.catalog.point(f"layers.1.attn.{name}")
    assert bound.catalog.point("layers.1.attn.z")


def test_sizes_of_layers_that_differ(tmp_path: Path) -> None:
    config = read_config(make("gemma4_text", tmp_path))
    sizes = standard_sizes(config)
    assert "d" not in sizes and sizes["D"] == 32
    assert sizes_of(config).heads == 4 and 3 not in possible_tp(config)


# -- what the house's function is handed beyond what it knows ---------------------------------------


@pytest.mark.parametrize("name", ["gpt_oss", "granite_swa", "granitemoe_swa", "flint"])
def test_sinks_are_computed(name: str, tmp_path: Path) -> None:
    attention.register()
    path = make(name, tmp_path)
    ids, mask = padded("left")
    with torch.no_grad():
        house, own = eager(path, attention.NAME), eager(path)
        assert apart(house(IDS).logits, own(IDS).logits) <= 1e-5
        both = [model(ids, attention_mask=mask).logits[1, SIDES["left"]] for model in (house, own)]
    assert apart(*both) <= 1e-5


@pytest.mark.parametrize("name", ["deepseek_v32", "glm_moe_dsa"])
def test_chosen_keys_are_all_that_is_read(name: str, tmp_path: Path) -> None:
    """Dropped, they would leave all keys to be read, which is another answer."""
    attention.register()
    path = make(name, tmp_path)
    ids, mask = padded("left")
    with torch.no_grad():
        house, own = eager(path, attention.NAME), eager(path)
        assert apart(house(IDS).logits, own(IDS).logits) <= 1e-5
        both = [model(ids, attention_mask=mask).logits[1, SIDES["left"]] for model in (house, own)]
        assert apart(*both) <= 1e-5
        house.config.index_topk = IDS.shape[1]
        for module in house.modules():
            if hasattr(module, "index_topk"):
                module.index_topk = IDS.shape[1]
        assert apart(house(IDS).logits, own(IDS).logits) > 0.01


class _Biased(nn.Module):
    """A module whose own function lies in a file beside it, as transformers' do."""

    is_causal = True
    num_key_value_groups = 1


def eager_attention_forward(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, bias: Tensor, **_: Any
) -> tuple[Tensor, Tensor]:
    pattern = torch.softmax(query @ key.transpose(2, 3) + bias + mask, -1)
    return (pattern @ value).transpose(1, 2), pattern


def test_an_argument_that_nobody_foresaw() -> None:
    """Named by the module's function it is computed, causally without a mask; else refused; nothing said is nothing."""
    generator = torch.Generator().manual_seed(1)
    query, key, value, bias = (torch.randn(1, 2, 5, 5, generator=generator) for _ in range(4))
    found, _ = attention.attention(_Biased(), query, key, value, None, bias=bias)
    scores = (query @ key.transpose(2, 3) + bias).masked_fill(
        torch.ones(5, 5).triu(1).bool(), -torch.inf
    )
    wanted = (torch.softmax(scores, -1) @ value).transpose(1, 2)
    assert apart(found, wanted) <= 1e-6
    probed = _Biased()
    taps = {"pattern": lambda value: None, "run": SimpleNamespace(caching=False)}
    probed.__dict__["_garcon_attention"] = taps  # which that function does not show
    with pytest.raises(PointUnavailable, match="'bias'"):
        attention.attention(probed, query, key, value, None, bias=bias)
    with pytest.raises(NotAModel, match="'never_heard_of'"):
        attention.attention(_Biased(), query, key, value, None, never_heard_of=bias)
    for nothing in (None, False):
        plainly, _ = attention.attention(_Biased(), query, key, value, None, never_heard_of=nothing)
        assert apart(plainly, attention.attention(_Biased(), query, key, value, None)[0]) == 0


def test_without_a_mask_attention_is_what_the_module_says() -> None:
    generator = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 2, 5, 5, generator=generator) for _ in range(3))
    module = _Biased()
    taps = {"scores": lambda scores: None, "run": SimpleNamespace(caching=False)}
    for causal in (True, False):
        hidden = torch.ones(5, 5).triu(1).bool() & causal
        scores = (query @ key.transpose(2, 3) * 5**-0.5).masked_fill(hidden, -torch.inf)
        wanted = (torch.softmax(scores, -1) @ value).transpose(1, 2)
        for probed in ({}, {"_garcon_attention": taps}):
            module.__dict__.pop("_garcon_attention", None)
            module.__dict__.update(probed)
            found, _ = attention.attention(module, query, key, value, None, is_causal=causal)
            assert apart(found, wanted) <= 1e-6
