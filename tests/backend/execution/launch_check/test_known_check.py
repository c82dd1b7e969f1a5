"""The outcome of a check is known again for the same files, and for no others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from garcon_backend.execution.launch_check.check import Checked
from garcon_backend.execution.launch_check.known_check import FILE, known_check, remember_check

EQUAL = Checked("equal", "equal to its own implementation", 0.7)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    return directory


def test_what_was_found_is_known_again(tmp_path: Path, model: Path) -> None:
    assert known_check(tmp_path, model) is None
    remember_check(tmp_path, model, EQUAL)
    assert known_check(tmp_path, model) == EQUAL
    assert known_check(tmp_path, model / "model.safetensors") is None
    remember_check(tmp_path, model / "model.safetensors", EQUAL)  # a checkpoint of one file
    assert known_check(tmp_path, model / "model.safetensors") == EQUAL


def test_other_weights_are_not_known(tmp_path: Path, model: Path) -> None:
    remember_check(tmp_path, model, EQUAL)
    weights = model / "model.safetensors"
    before = weights.stat()
    weights.write_bytes(b"weighty")  # of the same size
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert known_check(tmp_path, model) is None
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    (model / "adapter.safetensors").write_bytes(b"")
    assert known_check(tmp_path, model) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"of": 1}', '{"of": {}, "checked": {"colour": 1}}']
)
def test_what_makes_no_sense_is_not_known(text: str, tmp_path: Path, model: Path) -> None:
    (tmp_path / FILE).write_text(text)
    assert known_check(tmp_path, model) is None


def test_other_libraries_are_not_known(tmp_path: Path, model: Path) -> None:
    remember_check(tmp_path, model, EQUAL)
    found = json.loads((tmp_path / FILE).read_text())
    found["of"]["transformers"] = "5.0.0"
    (tmp_path / FILE).write_text(json.dumps(found))
    assert known_check(tmp_path, model) is None
