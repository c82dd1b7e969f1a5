"""Rotary positions by the length of a text: each text has the numbers that it has alone, whatever is beside it.

The other side is plain transformers, each text alone and in a fresh model, as dynamic NTK remembers what it read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from garcon_backend.execution.row_chunks import Whole, cut
from garcon_backend.models.config import read_config
from garcon_backend.models.family import standard_sizes
from garcon_jupyter.errors import BadTokens
from garcon_jupyter.wire import requests as wire
from tests import checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import apart

pytestmark = pytest.mark.sampled

SWITCH = 8
LENGTHS = (5, 14, SWITCH, 11)

LONGROPE: dict[str, Any] = {
    "hidden_size": 64,  # of four heads of 16, as the number of factors is made of it
    "max_position_embeddings": 32,
    "original_max_position_embeddings": SWITCH,
    "sliding_window": None,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0, 3.0, 5.0, 7.0, 9.0, 12.0, 16.0, 20.0],
        "original_max_position_embeddings": SWITCH,
        "partial_rotary_factor": 1.0,
    },
}
DYNAMIC: dict[str, Any] = {
    "max_position_embeddings": SWITCH,
    "rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 4.0},
}
MODELS = {"longrope": ("phi3", LONGROPE), "dynamic": ("llama", DYNAMIC)}


@pytest.fixture(scope="module", params=MODELS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, config = MODELS[request.param]
    return checkpoints.make(family, tmp_path_factory.mktemp(request.param), **config)


@pytest.fixture
def ours(path: Path) -> BareRank:
    return BareRank(path)


def plain(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()


def text(length: int) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(3, checkpoints.VOCABULARY, (1, length), generator=generator)


def batch(side: str) -> tuple[Tensor, Tensor]:
    """All texts, padded on a side."""
    width = max(LENGTHS)
    ids, mask = torch.full((len(LENGTHS), width), 2), torch.zeros(len(LENGTHS), width).bool()
    for row, length in enumerate(LENGTHS):
        ids[row, real(side, length)], mask[row, real(side, length)] = text(length)[0], True
    return ids, mask


def real(side: str, length: int) -> slice:
    return slice(0, length) if side == "right" else slice(max(LENGTHS) - length, max(LENGTHS))


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_text_among_others_is_the_text_alone(side: str, path: Path, ours: BareRank) -> None:
    ids, mask = batch(side)
    found = ours.forward(ids, mask)
    apart_in_plain = []
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            alone = plain(path)(text(length)).logits[0]
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)
            whole = plain(path)(ids, attention_mask=mask.long(), position_ids=positions).logits
        assert apart(found[row, real(side, length)], alone) <= 1e-5, length
        apart_in_plain.append(apart(whole[row, real(side, length)], alone))
    assert max(apart_in_plain) > 1e-3  # the comparison would tell


def test_what_was_read_before_leaves_nothing(path: Path, ours: BareRank) -> None:
    for length in (20, 5, 20, 11, SWITCH):
        with torch.no_grad():
            alone = plain(path)(text(length)).logits
        assert apart(ours.forward(text(length)), alone) <= 1e-5, length


def test_gradients_among_others_are_those_alone(path: Path, ours: BareRank) -> None:
    ids, mask = batch("right")
    point = "layers.0.resid_pre"
    found = ours.gradients(lambda logits: logits[:, 4].square().sum(), ids, mask, [point])[point]
    for row, length in enumerate(LENGTHS):
        model, kept = plain(path), []
        model.model.layers[0].register_forward_pre_hook(lambda m, a, kept=kept: kept.append(a[0]))
        logits = model(text(length)).logits
        (alone,) = torch.autograd.grad(logits[:, 4].square().sum(), kept)
        assert apart(found[row, :length], alone[0]) <= 1e-4, length


def test_pieces_are_the_whole(ours: BareRank) -> None:
    ids, mask = batch("right")
    whole = Whole((len(ids), ids.shape[1]))
    for piece in cut(wire.Batch(ids, mask), 30):
        whole.put(piece, ours.forward(piece.batch.ids, piece.batch.mask))
    assert whole.logits is not None
    assert apart(whole.logits[mask], ours.forward(ids, mask)[mask]) <= 1e-5


def test_continuations_of_prompts_on_both_sides_of_the_switch(path: Path, ours: BareRank) -> None:
    """Rows pass it at steps of their own, and then read their text again where the model does."""
    ids, mask = batch("left")
    found = ours.generated(ids, mask, max_new_tokens=8, eos_token_id=[])
    assert found is not None
    for row, length in enumerate(LENGTHS):
        alone = plain(path).generate(
            text(length),
            attention_mask=torch.ones(1, length).long(),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=[],
            pad_token_id=2,
        )
        assert torch.equal(found.ids[row, -8:], alone[0, -8:]), length


# -- how long a text may be --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["yarn", "linear", "dynamic", "llama3"])
def test_an_extended_context_is_read(kind: str, tmp_path: Path) -> None:
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    if kind in ("yarn", "llama3"):
        rope |= {"original_max_position_embeddings": 16}
    if kind == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    path = checkpoints.make("llama", tmp_path, max_position_embeddings=16, rope_parameters=rope)
    ids = text(40)
    with torch.no_grad():
        wanted = plain(path)(ids).logits
    ours = BareRank(path)
    assert apart(ours.forward(ids), wanted) <= 1e-5
    new = ours.generate(ids, 4)
    assert new is not None and new.shape[1] == 44


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_context_that_nothing_extends_is_not(family: str, tmp_path: Path) -> None:
    """GPT-2 has a table of positions, and no row beyond it."""
    name = {"gpt2": "n_positions", "llama": "max_position_embeddings"}[family]
    ours = BareRank(checkpoints.make(family, tmp_path, **{name: 16}))
    with pytest.raises(BadTokens, match="at most 16"):
        ours.forward(text(17))
    with pytest.raises(BadTokens, match="at most 16"):
        ours.generate(text(14), 3)


def test_which_layers_extend_does_not_matter(tmp_path: Path) -> None:
    """Gemma 3 turns positions by another rule in layers that see a window."""
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    config = read_config(checkpoints.make("gemma3_text", tmp_path, rope_parameters=rope))
    assert "P" not in standard_sizes(config)
