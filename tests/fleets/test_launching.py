"""What a fleet refuses before anything starts."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import garcon_jupyter as garcon
from garcon_jupyter.servers import fleet_files
from tests import checkpoints
from tests.conftest import quiet


@pytest.fixture(autouse=True)
def nothing_starts() -> Any:
    """No test of this file leaves a server, or a fleet."""
    before = {server.name for server in garcon.servers()}
    yield
    assert {server.name for server in garcon.servers()} == before
    assert fleet_files.read("refused") is None


@pytest.mark.parametrize(
    ("models", "options", "said"),
    [
        ({}, {}, "no members"),
        (["path"], {}, "no members"),
        ({"": "path"}, {}, "is no label"),
        ({7: "path"}, {}, "is no label"),
        ({"a b": "path", "a-b": "path"}, {}, "would both name the server refused.a-b"),
        ({"a": "path"}, {"name": "a/b"}, "is no name of a fleet"),
        ({"a": "path"}, {"jobs": 0}, "is no number of launches"),
        ({"a": "path"}, {"on_error": "ignore"}, "There is no on_error='ignore'"),
        ({"a": "path"}, {"loader": "a:b"}, "compares configurations"),
        ({"a": "path"}, {"nnodes": 2}, "one host"),
        ({"a": "path"}, {"idle_timeout": "soon"}, "is no duration"),
        ({"a": "path"}, {"threads": 0}, "is no number of threads"),
        ({"a": 7}, {}, "7"),
        ({"a": "path"}, {"alive": 2}, "alive=2 is no way"),
        ({"a": "path"}, {"alive": True}, "alive=True is no way"),
        ({"a": "path"}, {"alive": 1, "launcher": "slurm"}, "not by Slurm"),
        ({"a": "path"}, {"alive": 1, "adapter": "some"}, "exchanges them"),
    ],
)
def test_words_that_make_no_sense(models: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(garcon.BadRequest, match=said):
        garcon.fleet(models, **{"name": "refused", "progress": quiet, **options})


def test_an_option_that_there_is_not(series: dict[str, Path]) -> None:
    with pytest.raises(garcon.UnknownName, match="idle_timeout"):
        garcon.fleet(series, "refused", progress=quiet, idle_timout="1h")  # type: ignore[call-arg]


def test_a_path_without_a_model(series: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(garcon.NotAModel):
        garcon.fleet({"a": series["step0"], "b": tmp_path}, "refused", progress=quiet)


def test_a_member_of_another_shape(series: dict[str, Path], tmp_path: Path) -> None:
    wide = checkpoints.make("llama", tmp_path / "wide", intermediate_size=44)
    with pytest.raises(garcon.ModelsDiffer, match="wide has intermediate_size=44, step0 "):
        garcon.fleet({**series, "wide": wide}, "refused", progress=quiet)


def test_what_cannot_be_exchanged_is_refused(series: dict[str, Path], tmp_path: Path) -> None:
    """Other names of tensors, and another tokenizer: a server each would do."""
    more, spoken = tmp_path / "more", tmp_path / "spoken"
    for path in (more, spoken):
        shutil.copytree(series["step0"], path)
    tensors = load_file(more / "model.safetensors")
    save_file({**tensors, "more": tensors["model.norm.weight"] + 1}, more / "model.safetensors")
    (spoken / "tokenizer.json").write_text("{}")
    with pytest.raises(garcon.ModelsDiffer, match=r"more has more \[\d+\], step0 none"):
        garcon.fleet({**series, "more": more}, "refused", alive=1, progress=quiet)
    with pytest.raises(garcon.ModelsDiffer, match="tokenizers differ"):
        garcon.fleet({**series, "spoken": spoken}, "refused", alive=1, progress=quiet)


def test_its_signature_names_the_options_of_a_launch() -> None:
    mine = inspect.signature(garcon.fleet).parameters
    theirs = inspect.signature(garcon.launch).parameters
    assert {*theirs} - {"path"} <= {*mine} and mine["tp"] == theirs["tp"]
    assert "degree of tensor parallelism" in (garcon.fleet.__doc__ or "")


def test_more_than_there_is_memory_for(llama_path: Path, tmp_path: Path) -> None:
    """Weights of 8 TiB: a file of that length, which takes no room on the disk."""
    (tmp_path / "config.json").write_bytes((llama_path / "config.json").read_bytes())
    size = 8 << 40
    entry = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    header = json.dumps({"huge": entry}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    try:
        os.truncate(file, 8 + len(header) + size)
    except OSError:
        pytest.skip("this file system has no files of that length")
    with pytest.raises(
        garcon.DoesNotFit, match=r"2 members need 17\.\d TiB together, up to 8\.8 TiB each"
    ):
        garcon.fleet({"a": tmp_path, "b": tmp_path}, "refused", device="cpu", progress=quiet)
