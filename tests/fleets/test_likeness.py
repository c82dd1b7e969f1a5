"""Checkpoints that differ in more than their weights are told apart, by their files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from garcon_jupyter.errors import ModelsDiffer
from garcon_jupyter.fleets import likeness
from garcon_jupyter.model_files import snapshots
from tests import checkpoints
from tests.conftest import quiet


def found(**paths: Path) -> dict[str, snapshots.ModelDirectory]:
    return {label: snapshots.resolve(path, quiet, False) for label, path in paths.items()}


def changed(path: Path, into: Path, name: str, **entries: Any) -> Path:
    """A copy of a checkpoint, with other entries in one of its files."""
    shutil.copytree(path, into)
    file = into / name
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **entries}), "utf-8")
    return into


def test_other_weights_are_no_difference(series: dict[str, Path]) -> None:
    likeness.check(found(a=series["step0"], b=series["step 1"]))


def test_what_changes_no_forward_pass_is_no_difference(llama_path: Path, tmp_path: Path) -> None:
    said = {"eos_token_id": 7, "transformers_version": "4.0", "attention_dropout": 0.1}
    other = changed(llama_path, tmp_path / "other", "config.json", **said)
    likeness.check(found(a=llama_path, b=other))


def test_every_difference_is_named_with_both_values(llama_path: Path, tmp_path: Path) -> None:
    other = changed(llama_path, tmp_path / "other", "config.json", hidden_act="gelu", head_dim=6)
    with pytest.raises(ModelsDiffer, match="b has head_dim=6, a ") as caught:
        likeness.check(found(a=llama_path, b=other))
    assert "b has hidden_act='gelu', a 'silu'" in caught.value.problem


def test_another_architecture_is_named(llama_path: Path, tmp_path: Path) -> None:
    other = checkpoints.make("gpt2", tmp_path / "gpt2")
    with pytest.raises(ModelsDiffer, match="GPT2LMHeadModel"):
        likeness.check(found(a=llama_path, b=other))


def test_shapes_that_the_configuration_hides_are_found(llama_path: Path, tmp_path: Path) -> None:
    """A configuration that was copied from another checkpoint."""
    narrow = checkpoints.make("llama", tmp_path / "narrow", intermediate_size=8)
    shutil.copy(llama_path / "config.json", narrow)
    with pytest.raises(ModelsDiffer, match=r"layers\.0\.mlp\.down_proj\.weight \[\d+, 8\]"):
        likeness.check(found(a=llama_path, b=narrow))


def test_dtypes_count_unless_all_are_loaded_in_one(llama_path: Path, tmp_path: Path) -> None:
    other = changed(llama_path, tmp_path / "other", "config.json", dtype="bfloat16")
    with pytest.raises(ModelsDiffer, match="dtype='bfloat16', a 'float32'"):
        likeness.check(found(a=llama_path, b=other))
    likeness.check(found(a=llama_path, b=other), dtype="float32")


def test_tokenizers_are_compared_by_what_they_do_with_text(
    llama_path: Path, tmp_path: Path
) -> None:
    padded = changed(llama_path, tmp_path / "padded", "tokenizer.json", padding=None)
    (padded / "config.json").touch()
    assert likeness.one_tokenizer([llama_path, padded])
    other = changed(llama_path, tmp_path / "other", "tokenizer.json", post_processor=None)
    assert not likeness.one_tokenizer([llama_path, padded, other])
    bos = changed(llama_path, tmp_path / "bos", "tokenizer_config.json", add_bos_token=True)
    assert not likeness.one_tokenizer([llama_path, bos])
