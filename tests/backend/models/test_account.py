"""Weights that a model has no place for are told by name; what is told of its size is told of the whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.hook_sites.attention import register
from garcon_backend.models.account import Account, account_of, of_cut_model
from garcon_backend.models.loading import load
from tests.checkpoints import make


@pytest.fixture(scope="module", autouse=True)
def attention() -> None:
    register()


def changed(directory: Path, **fields: Any) -> Path:
    """The checkpoint, with other words in its configuration."""
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return directory


def accounts(directory: Path) -> tuple[Account, list[str]]:
    """As one process loads it, which is as ranks read it once more; and the lines that were told."""
    lines: list[str] = []
    account = account_of(load(directory, Mesh.solo("cpu"), progress=lines.append))
    config = AutoConfig.from_pretrained(directory)
    model_class = type(AutoModelForCausalLM.from_config(config))
    assert of_cut_model(model_class, directory, config) == account
    return account, lines


def test_biases_that_the_configuration_denies(tmp_path: Path) -> None:
    directory = changed(make("llama", tmp_path, attention_bias=True), attention_bias=False)
    account, lines = accounts(directory)
    stored = load_file(directory / "model.safetensors")
    assert account.unused == tuple(sorted(name for name in stored if name.endswith(".bias")))
    assert len(account.unused) == 16
    assert account.parameters == sum(
        value.numel() for name, value in stored.items() if name not in account.unused
    )
    assert lines[-1].startswith("16 weights have no place in the model that config.json describes")
    assert "model.layers.0.self_attn.k_proj.bias" in lines[-1]


def test_a_layer_more_than_the_configuration_counts(tmp_path: Path) -> None:
    account, _ = accounts(changed(make("llama", tmp_path), num_hidden_layers=3))
    assert len(account.unused) == 9
    assert all(name.startswith("model.layers.3.") for name in account.unused)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mixtral"])
def test_where_all_have_a_place_nothing_is_said(family: str, tmp_path: Path) -> None:
    directory = make(family, tmp_path)
    account, lines = accounts(directory)
    assert account.unused == ()
    assert account.parameters == AutoModelForCausalLM.from_pretrained(directory).num_parameters()
    assert lines[-1] == f"loaded {account.parameters:,} parameters"


def test_masks_and_angles_of_old_checkpoints_are_no_weights(tmp_path: Path) -> None:
    directory = make("gpt_neox", tmp_path)
    file = directory / "model.safetensors"
    old = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(3),
    }
    save_file({**load_file(file), **old}, file, metadata={"format": "pt"})
    assert accounts(directory)[0].unused == ()
