"""One process loads what transformers loads, frozen and offline; everything else is refused."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from garcon_backend.distributed.collectives import Layout
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.hook_sites.attention import register
from garcon_backend.models.loading import load, load_tokenizer, load_with
from garcon_backend.models.sharding import layouts, stage_layers
from garcon_jupyter.errors import BadDegrees, BadRequest, MissingModule, NotAModel, UnknownName
from garcon_jupyter.wire.launch_spec import Degrees
from tests.checkpoints import make

TOKENS = torch.tensor([[5, 80, 262, 17, 3], [9, 9, 200, 31, 4]])


@pytest.fixture(scope="module", autouse=True)
def attention() -> None:
    register()


@pytest.fixture(scope="module")
def solo() -> Mesh:
    return Mesh.solo("cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("llama", tmp_path_factory.mktemp("llama"))


# -- one process -----------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "mixtral"])
def test_logits_are_transformers_own(family: str, tmp_path: Path, solo: Mesh) -> None:
    directory = make(family, tmp_path)
    lines: list[str] = []
    model = load(directory, solo, progress=lines.append)
    plain = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager").eval()
    with torch.no_grad():
        ours, theirs = model(TOKENS).logits, plain(TOKENS).logits
    assert (ours - theirs).abs().max() / theirs.abs().max() < 1e-5
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert lines and family in lines[0]


def test_a_random_weight_would_be_noticed(llama: Path, solo: Mesh) -> None:
    model = load(llama, solo)
    stored = load_file(llama / "model.safetensors")
    loaded = dict(model.named_parameters())
    assert set(stored) == set(loaded)
    assert all(torch.equal(loaded[name], value) for name, value in stored.items())


@pytest.mark.parametrize(
    ("stored", "asked", "found"),
    [
        (torch.float32, None, torch.float32),
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float32, "bfloat16", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
    ],
)
def test_dtype(
    stored: torch.dtype, asked: str | None, found: torch.dtype, tmp_path: Path, solo: Mesh
) -> None:
    model = load(make("llama", tmp_path, dtype=stored), solo, asked)
    assert {parameter.dtype for parameter in model.parameters()} == {found}


def test_no_network(llama: Path, solo: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load(llama, solo)
    load_tokenizer(llama)


def test_tokenizer(llama: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(llama)
    assert tokenizer is not None
    ids = tokenizer.encode("The capital of France is")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "The capital of France is"
    assert load_tokenizer(tmp_path) is None


# -- what is refused -------------------------------------------------------------------------


def test_directory_without_a_model(tmp_path: Path, solo: Mesh) -> None:
    with pytest.raises(NotAModel, match=r"holds no config\.json"):
        load(tmp_path, solo)
    with pytest.raises(NotAModel, match=r"holds no config\.json"):
        load(tmp_path / "missing", solo)


def test_config_that_cannot_be_read(tmp_path: Path, solo: Mesh) -> None:
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(NotAModel, match="cannot be read"):
        load(tmp_path, solo)
    (tmp_path / "config.json").write_text('{"model_type": "no_such_architecture"}')
    with pytest.raises(NotAModel, match="no_such_architecture"):
        load(tmp_path, solo)


def test_model_that_is_no_causal_language_model(tmp_path: Path, solo: Mesh) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(NotAModel, match="'vit' is no causal language model"):
        load(tmp_path, solo)


def test_config_without_weights(llama: Path, tmp_path: Path, solo: Mesh) -> None:
    (tmp_path / "config.json").write_text((llama / "config.json").read_text())
    with pytest.raises(NotAModel, match="holds no weights"):
        load(tmp_path, solo)


def test_code_of_a_checkpoint_is_never_run(llama: Path, tmp_path: Path, solo: Mesh) -> None:
    witness = tmp_path / "ran"
    config = json.loads((llama / "config.json").read_text())
    config |= {"model_type": "custom", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(witness)!r}, 'w')\n")
    (tmp_path / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    with pytest.raises(NotAModel):
        load(tmp_path, solo)
    assert not witness.exists()


@pytest.mark.parametrize("damage", ["missing", "another shape"])
def test_weights_that_do_not_belong(damage: str, llama: Path, tmp_path: Path, solo: Mesh) -> None:
    """transformers would draw them at random and only log it."""
    name = "model.layers.2.mlp.up_proj.weight"
    weights = load_file(llama / "model.safetensors")
    weights[name] = weights[name][:-2].contiguous()
    if damage == "missing":
        del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((llama / "config.json").read_text())
    with pytest.raises(NotAModel, match=name.replace(".", r"\.")):
        load(tmp_path, solo)


def test_unknown_dtype(llama: Path, solo: Mesh) -> None:
    with pytest.raises(BadRequest, match=r"'float31'.*float32"):
        load(llama, solo, "float31")


# -- a loader of the user's own --------------------------------------------------------------

LOADERS = """
from torch import nn

def module(path):
    layer = nn.Linear(2, 3).train()
    layer.path = path
    return layer

def with_tokenizer(path):
    return nn.Linear(2, 3), str.split

def number(path):
    return 7
"""


@pytest.fixture
def loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "loaders_of_a_test.py").write_text(LOADERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "loaders_of_a_test"


def test_loader(loaders: str, solo: Mesh) -> None:
    module, tokenizer = load_with(f"{loaders}:module", "/some/path", solo, "float64")
    assert module.path == "/some/path" and tokenizer is None
    assert module.weight.dtype == torch.float64
    assert not module.training and not module.weight.requires_grad
    assert stage_layers(module, solo) == range(0)
    assert set(layouts(module, solo).values()) == {Layout()}
    module, tokenizer = load_with(f"{loaders}:with_tokenizer", "x", solo)
    assert tokenizer is str.split and module.weight.dtype == torch.float32


def test_loader_that_is_none(loaders: str, solo: Mesh) -> None:
    with pytest.raises(BadRequest, match=r"Write package\.module:function"):
        load_with(loaders, "x", solo)
    with pytest.raises(MissingModule, match="'no_such_package'"):
        load_with("no_such_package:module", "x", solo)
    with pytest.raises(UnknownName, match="Did you mean module"):
        load_with(f"{loaders}:modul", "x", solo)
    with pytest.raises(BadRequest, match=r"returned a int, not a torch\.nn\.Module"):
        load_with(f"{loaders}:number", "x", solo)


def test_loader_runs_in_one_process(loaders: str) -> None:
    mesh = Mesh(Degrees(tp=2), 0, torch.device("cpu"))
    with pytest.raises(BadDegrees, match="tp=2"):
        load_with(f"{loaders}:module", "x", mesh)


def test_a_tokenizer_that_cannot_be_read_is_told_and_the_model_does_without(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizerFast"})
    )
    (tmp_path / "tokenizer.json").write_text("{")
    told: list[str] = []
    assert load_tokenizer(tmp_path, told.append) is None
    assert len(told) == 1 and "cannot be read, so texts are refused" in told[0]
