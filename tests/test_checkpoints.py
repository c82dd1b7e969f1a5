"""The small checkpoints really are what the other tests rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.checkpoints import FAMILIES, make, make_tokenizer

STATE_SPACES = ("A_log", "dt_bias", "dt_proj.bias", ".D")
"""Endings of vectors of state spaces, which start as numbers that differ: as many time scales."""


@pytest.mark.parametrize("family", FAMILIES)
def test_no_parameter_is_left_as_initialised(family: str, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make(family, tmp_path))
    for name, parameter in model.named_parameters():
        if parameter.numel() > 4:  # of fewer it says nothing
            most = 3.0 if name.endswith(STATE_SPACES) else 0.3
            assert 0.1 < parameter.std() < most, name
        assert parameter.unique().numel() > parameter.numel() * 0.9, name
    assert model.config.vocab_size % 2 == 1
    assert model.config.num_hidden_layers == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_same_bytes(family: str, tmp_path: Path) -> None:
    names = ("model.safetensors", "tokenizer.json", "config.json")
    one = make(family, tmp_path / "one")
    torch.rand(1)  # whatever else was drawn meanwhile
    two = make(family, tmp_path / "two")
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)
    other = make(family, tmp_path / "other", seed=1)
    assert (one / names[0]).read_bytes() != (other / names[0]).read_bytes()


@pytest.mark.parametrize("family", ["llama", "gemma2", "mixtral"])
def test_no_two_axes_can_be_confused(family: str, tmp_path: Path) -> None:
    config = AutoModelForCausalLM.from_pretrained(make(family, tmp_path)).config
    assert config.num_attention_heads != config.num_key_value_heads
    assert config.num_attention_heads * config.head_dim != config.hidden_size


@pytest.mark.parametrize(
    "without",
    [
        {"attn_logit_softcapping": None},
        {"final_logit_softcapping": None},
        {"sliding_window": 64},
        {"query_pre_attn_scalar": 16},
    ],
)
def test_gemma2_meets_its_caps_and_its_window(without: dict[str, Any], tmp_path: Path) -> None:
    tokens = torch.arange(3, 20)[None]
    logits = []
    for name, overrides in (("with", dict[str, Any]()), ("without", without)):
        made = make("gemma2", tmp_path / name, **overrides)
        model = AutoModelForCausalLM.from_pretrained(made, attn_implementation="eager")
        with torch.no_grad():
            logits.append(model(tokens).logits)
    assert (logits[0] - logits[1]).abs().max() > 0.05 * logits[0].abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_encodes_any_text_and_chats(family: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make(family, tmp_path))
    text = "The capital of France is café 12 € \n"
    tokens = tokenizer(text).input_ids
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text
    assert max(tokens) < 263
    assert (tokens[0] == tokenizer.bos_token_id) == (family in ("llama", "gemma2", "mixtral"))
    chat = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<bos>[user]hi<eos>"


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 259 tokens"):
        make_tokenizer(100)
