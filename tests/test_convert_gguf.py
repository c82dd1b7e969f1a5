"""The conversion of GGUF files: what it refuses, and that it notices a wrong snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from garcon_backend.models import convert_gguf
from garcon_jupyter.errors import GarconError
from tests.checkpoints import make_llama


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert_gguf.main([str(tmp_path / "no.gguf"), str(tmp_path / "out")]) == 1
    assert f"There is no file {tmp_path / 'no.gguf'}." in capsys.readouterr().err


def test_another_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.gguf").write_bytes(b"not one")
    assert convert_gguf.main([str(tmp_path / "a.gguf"), str(tmp_path / "out")]) == 1
    assert "a.gguf is not a GGUF file." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "out").mkdir()
    assert convert_gguf.main([str(tmp_path / "a.gguf"), str(tmp_path / "out")]) == 1
    assert f"{tmp_path / 'out'} exists already." in capsys.readouterr().err


def test_the_comparison_passes_for_the_same_model(tmp_path: Path) -> None:
    model, tokenizer = _load(make_llama(tmp_path))
    convert_gguf._compare(model, tokenizer, tmp_path)


def test_the_comparison_notices_one_changed_bit(tmp_path: Path) -> None:
    model, tokenizer = _load(make_llama(tmp_path))
    gain = model.model.norm.weight.data
    gain[-1] = torch.nextafter(gain[-1], torch.tensor(9.0))
    with pytest.raises(GarconError, match="is not the model that was read"):
        convert_gguf._compare(model, tokenizer, tmp_path)


def test_the_comparison_notices_a_lost_chat_template(tmp_path: Path) -> None:
    model, tokenizer = _load(make_llama(tmp_path))
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(GarconError, match="is not the model that was read"):
        convert_gguf._compare(model, tokenizer, tmp_path)


def _load(directory: Path) -> tuple[Any, Any]:
    return (
        AutoModelForCausalLM.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
    )
