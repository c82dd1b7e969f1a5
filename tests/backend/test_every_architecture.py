"""Every causal architecture of transformers: what the product computes of it is transformers' own, or it is refused.

Each is a tiny random checkpoint on disk, opened in this process as ``garcon.launch`` opens it, the check at launch included. The
other side is plain transformers, eager, of the same files. Whatever cannot be made here, cannot be read or cannot
generate is listed with the reason, and what is listed without need fails.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter.client.tokens import Tokens
from tests.backend import every_architecture
from tests.backend.cases import IDS

PADDING = 3
"""Tokens of padding on the left of the second row."""

MASK = torch.ones_like(IDS)
MASK[1, :PADDING] = 0

UNMADE = {
    "gemma3n": "requires the PIL library",
    "gemma4_assistant": "hidden_size_per_layer_input must be 0",
    "gemma4_unified_assistant": "layer types producing a cache",
    "musicgen": "no attribute 'dropout'",
    "musicgen_melody": "no attribute 'dropout'",
}
"""Architectures of which no model can be made here, and why: a package that is not installed, parts of a model that
make no sense without the other (assistants read the keys of the model that they assist), and classes that take the
configuration of a part, which no auto class knows."""

REFUSED = {
    "emu3": "no causal language model",
    "mllama": "no causal language model",
}
"""Architectures whose checkpoints are not opened, and the reason that is told: what is saved is a part under
another name."""

NOT_AS_ALONE = frozenset(
    {
        # Positions are counted from the first column, padding or not, or from the number of the padding token.
        "bart",
        "blenderbot",
        "blenderbot-small",
        "bigbird_pegasus",
        "cpmant",
        "marian",
        "mbart",
        "mvp",
        "pegasus",
        "plbart",
        "prophetnet",
        "roformer",
        "trocr",
        "whisper",
        "camembert",
        "data2vec-text",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
        # Tokens are put together, or chosen among, by their place in the batch.
        "axk2",
        "blt",
        "deepseek_v4",
        # A state takes padding in, as it takes tokens.
        "recurrent_gemma",
        "rwkv",
        "xlstm",
    }
)
"""Architectures of which a padded text has other numbers than alone, in transformers too."""

WITHOUT_CACHE = {
    "blt": "no attribute 'num_hidden_layers'",
    "prophetnet": "`position_ids` are incorrect",
}
"""Architectures whose cache fails, in transformers too, and what is told of it: they generate without one."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models of this size are read faster by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
def test_equal_to_transformers_or_refused(name: str, tmp_path: Path) -> None:
    if name in UNMADE:
        with pytest.raises(Exception, match=UNMADE[name]):
            every_architecture.make(name, tmp_path)
        return
    path = every_architecture.make(name, tmp_path)
    if name in REFUSED:
        with pytest.raises(garcon.NotAModel, match=REFUSED[name]):
            open_here(path)
        return
    rmodel = garcon.connect(open_here(path))
    assert rmodel.facts["model"]["check"]["said"].startswith("equal to its own implementation")
    plain: Any = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad(), redirect_stdout(io.StringIO()):  # Reformer prints
        wanted = plain(input_ids=IDS, use_cache=False).logits
        assert equal(rmodel.forward(IDS), wanted)
        _padded(name, rmodel, plain)
        _generated(name, rmodel, plain)
    assert not equal(wanted.roll(1, 1), wanted)


def equal(found: Tensor, wanted: Tensor) -> bool:
    """Whether logits are the same but for the order in which float32 numbers were added."""
    return float((found - wanted).abs().max()) <= 2e-5 * max(1.0, float(wanted.abs().max()))


def _padded(name: str, rmodel: garcon.RemoteModel, plain: Any) -> None:
    """A text beside padding has the numbers that it has alone; else those that transformers has there."""
    found = rmodel.forward(Tokens(IDS, MASK.bool()))[1, PADDING:]
    alone = plain(input_ids=IDS[1:, PADDING:], use_cache=False).logits[0]
    assert equal(found, alone) == (name not in NOT_AS_ALONE)
    if name in NOT_AS_ALONE:
        positions = {"position_ids": (MASK.cumsum(1) - 1).clamp(min=0)}
        told = {"input_ids": IDS, "attention_mask": MASK, "use_cache": False}
        either = (plain(**told, **more).logits[1, PADDING:] for more in ({}, positions))
        assert any(equal(found, wanted) for wanted in either)


def _generated(name: str, rmodel: garcon.RemoteModel, plain: Any) -> None:
    """A greedy continuation of the padded batch."""
    tokens = Tokens(IDS, MASK.bool())
    options: dict[str, Any] = {"max_new_tokens": 4}
    if name in WITHOUT_CACHE:
        with pytest.raises(garcon.GarconError, match=WITHOUT_CACHE[name]):
            rmodel.generate(tokens, **options)
        options["use_cache"] = False
    wanted = plain.generate(IDS, attention_mask=MASK, do_sample=False, pad_token_id=2, **options)
    assert torch.equal(rmodel.generate(tokens, **options).ids, wanted)


def test_what_is_listed_exists() -> None:
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert {*UNMADE, *REFUSED, *NOT_AS_ALONE, *WITHOUT_CACHE, *every_architecture.SPECIAL} <= known
