"""The headers of weight files, against the safetensors library and files that are damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from garcon_jupyter.errors import NotAModel
from garcon_jupyter.model_files import weights
from tests.checkpoints import FAMILIES, make, make_llama


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_are_those_of_the_loaded_model(family: str, tmp_path: Path) -> None:
    files = weights.weight_files(make(family, tmp_path, dtype=torch.bfloat16))
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    # Apertus saves two numbers of its activation as well, which are no parameters.
    beside = [b for name, b in model.named_buffers() if name in model.state_dict()]
    expected = model.num_parameters() + sum(buffer.numel() for buffer in beside)
    assert weights.total_parameters(files) == expected
    assert weights.total_bytes(files) == 2 * expected


def test_a_split_checkpoint_counts_the_same(tmp_path: Path) -> None:
    whole, split = make_llama(tmp_path / "whole"), tmp_path / "split"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(split, max_shard_size="100KB")
    files = weights.weight_files(split)
    assert len(files) > 2
    one = weights.weight_files(whole)
    assert weights.total_parameters(files) == weights.total_parameters(one)
    assert weights.total_bytes(files) == weights.total_bytes(one)


def test_stored_masks_are_bytes_but_no_parameters(tmp_path: Path) -> None:
    file = tmp_path / weights.SINGLE
    save_file({"w": torch.zeros(3, 5), "mask": torch.ones(1, 1, 7, 7, dtype=torch.uint8)}, file)
    assert weights.total_parameters([file]) == 15
    assert weights.total_bytes([file]) == 15 * 4 + 49


def test_tables_match_the_library(tmp_path: Path) -> None:
    file = tmp_path / weights.SINGLE
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(()), "c": torch.zeros(0, 4)}, file)
    assert {(t.name, t.shape, t.nbytes) for t in weights.stored_tensors(file)} == {
        ("a", (2, 3), 24),
        ("b", (), 4),
        ("c", (0, 4), 0),
    }


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_llama(tmp_path / "whole"))
    model.save_pretrained(tmp_path / "split", max_shard_size="100KB")
    last = weights.weight_files(tmp_path / "split")[-1]
    last.unlink()
    with pytest.raises(NotAModel, match=f"lacks 1 of its . weight files, .*{last.name}"):
        weights.weight_files(tmp_path / "split")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_a_bad_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / weights.INDEX).write_text(text)
    with pytest.raises(NotAModel, match="is not an index of weight files"):
        weights.weight_files(tmp_path)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n")


def _page(file: Path) -> None:
    file.write_text("<!DOCTYPE html><title>404</title>")


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _list(file: Path) -> None:
    table = json.dumps([1]).encode()
    file.write_bytes(len(table).to_bytes(8, "little") + table)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_cut, "is cut short: it has 487,639 of its 487,640 bytes"),
        (_pointer, "is a Git LFS pointer.*git lfs pull"),
        (_page, "is not a safetensors file"),
        (_empty, "is not a safetensors file"),
        (_list, "is not a safetensors file"),
    ],
)
def test_damaged_files_are_refused(
    damage: Callable[[Path], None], complaint: str, tmp_path: Path
) -> None:
    file = make_llama(tmp_path) / weights.SINGLE
    damage(file)
    with pytest.raises(NotAModel, match=complaint):
        weights.stored_tensors(file)


def test_pickled_weights_are_read_without_running_them(tmp_path: Path) -> None:
    file = tmp_path / weights.PICKLE
    torch.save({"w": torch.zeros(2, 3), "v": torch.zeros(4, dtype=torch.bfloat16)}, file)
    assert weights.weight_files(tmp_path) == [file]
    assert weights.total_bytes([file]) == 32 and weights.total_parameters([file]) == 10
    torch.save({"w": torch.zeros(2, 3)}, file, _use_new_zipfile_serialization=False)
    assert weights.total_parameters([file]) == 6
    witness = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> Any:
            return open, (str(witness), "w")

    torch.save({"w": Harmful()}, file)
    weights.check_whole(file)  # as far as is seen from outside
    with pytest.raises(NotAModel, match="holds more than tensors.*weights_only=False"):
        weights.stored_tensors(file)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (b"PK\x03\x04 and no end", "is cut short"),
        (b"nothing of the kind", "is no file that torch wrote"),
    ],
)
def test_damaged_pickles_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / weights.PICKLE).write_bytes(content)
    with pytest.raises(NotAModel, match=said):
        weights.check_whole(tmp_path / weights.PICKLE)


def test_several_pickles_by_their_index(tmp_path: Path) -> None:
    names = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (tmp_path / weights.PICKLES).write_text(json.dumps(index))
    with pytest.raises(NotAModel, match="lacks 2 of its 2 weight files"):
        weights.weight_files(tmp_path)
    for name in names:
        torch.save({"a": torch.zeros(1)}, tmp_path / name)
    assert weights.weight_files(tmp_path) == [tmp_path / name for name in names]


def test_no_weights_at_all(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(NotAModel, match=r"no weights: neither .*; it has model.gguf"):
        weights.weight_files(tmp_path)
