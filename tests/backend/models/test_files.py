"""Checkpoints as they come: pickled, in several files, with weights that are one or two, with tokens added on either side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import garcon_jupyter as garcon
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.in_process import open_here
from garcon_backend.kernel.startup import merged
from garcon_backend.models.fit import tensor_bytes
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.adapted_run import IDS
from tests.backend.bare_rank import BareRank
from tests.backend.ranks import run_on_ranks
from tests.checkpoints import make
from tests.oracle import close


def plain_logits(path: Path) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
    with torch.no_grad():
        logits: Tensor = model(IDS, use_cache=False).logits
    return logits


def saved_as(kind: str, path: Path) -> Path:
    """A checkpoint whose weights are stored in another way."""
    file = path / "model.safetensors"
    stored = load_file(file)
    if kind == "several files":
        model = AutoModelForCausalLM.from_pretrained(path)
        file.unlink()
        model.save_pretrained(path, max_shard_size="60KB")
        assert len(list(path.glob("*.safetensors"))) > 2
        return path
    file.unlink()
    if kind == "one pickle":
        torch.save(stored, path / "pytorch_model.bin")
        return path
    names = [f"pytorch_model-{n}-of-00002.bin" for n in ("00001", "00002")]
    weight_map = {key: names[number % 2] for number, key in enumerate(stored)}
    for name in names:
        torch.save({k: v for k, v in stored.items() if weight_map[k] == name}, path / name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return path


KINDS = ("one pickle", "several pickles", "several files")


@pytest.mark.parametrize("kind", KINDS)
def test_however_they_are_stored_the_numbers_are_the_same(kind: str, tmp_path: Path) -> None:
    before = plain_logits(make("llama", tmp_path))
    needed = tensor_bytes(tmp_path)
    path = saved_as(kind, tmp_path)
    rmodel = garcon.connect(open_here(path))
    assert close(rmodel.forward(IDS), before) and tensor_bytes(path) == needed
    assert rmodel.facts["model"]["notes"] == []


def test_a_pickle_with_code_in_it_is_refused(tmp_path: Path) -> None:
    path = saved_as("one pickle", make("llama", tmp_path))
    stored = torch.load(path / "pytorch_model.bin")
    torch.save({**stored, "more": print}, path / "pytorch_model.bin")
    with pytest.raises(garcon.NotAModel, match="holds more than tensors"):
        open_here(path)


# -- the embedding and the unembedding ---------------------------------------------------------


def with_unembedding(path: Path, kind: str) -> Path:
    """A checkpoint that is tied by its configuration, and has the unembedding beside that: none, the same, or another."""
    stored = load_file(path / "model.safetensors")
    embedding = stored["model.embed_tokens.weight"]
    more = {"left out": {}, "the same": {"lm_head.weight": embedding.clone()}}
    stored |= more.get(kind, {"lm_head.weight": embedding.flip(0).contiguous()})
    save_file(stored, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.mark.parametrize("kind", ["left out", "the same", "another"])
def test_tied_weights_left_out_or_saved_or_not_tied_after_all(kind: str, tmp_path: Path) -> None:
    path = with_unembedding(make("llama", tmp_path, tie_word_embeddings=True), kind)
    rmodel = garcon.connect(open_here(path))
    embedding = load_file(path / "model.safetensors")["model.embed_tokens.weight"]
    wanted = embedding.flip(0) if kind == "another" else embedding
    assert torch.equal(rmodel.get_parameter("unembed.weight"), wanted)
    assert torch.equal(rmodel.get_parameter("embed.weight"), embedding)
    assert close(rmodel.forward(IDS), plain_logits(path))


def compute_cut(folder: str, layout: dict[str, int], cases: list[str]) -> None:
    """Each rank, of each case in turn: all numbers, written down."""
    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(**layout))
    for case in cases:
        ours = BareRank(Path(folder) / case, None, mesh)
        catalogs: list[Any] = [None] * mesh.world
        dist.all_gather_object(catalogs, ours.catalog)
        ours.catalog = ours.bound.catalog = merged(catalogs)
        names = ("embed.weight", "unembed.weight")
        found: dict[str, Any] = {
            "logits": ours.forward(IDS),
            "parameters": {name: ours.tools.parameters.get(name) for name in names},
            "gradients": ours.backward(torch.sum, IDS, parameters=names),
        }
        torch.save(found, Path(folder) / case / f"{'-'.join(layout)}-{mesh.rank}.pt")
    mesh.leave()


@pytest.mark.processes
@pytest.mark.parametrize("layout", [{"tp": 2}, {"pp": 2}], ids=["tp", "pp"])
def test_all_of_it_over_ranks(layout: dict[str, int], tmp_path: Path) -> None:
    cases = [*KINDS, "left out", "the same", "another"]
    for case in cases:
        tied = case not in KINDS
        path = make("llama", tmp_path / case, tie_word_embeddings=tied, num_hidden_layers=2)
        (with_unembedding(path, case) if tied else saved_as(case, path))
    run_on_ranks(2, compute_cut, str(tmp_path), layout, cases)
    for case in cases:
        whole = BareRank(tmp_path / case)
        ranks = [torch.load(tmp_path / case / f"{'-'.join(layout)}-{n}.pt") for n in range(2)]
        answers = [each["logits"] for each in ranks if each["logits"] is not None]
        assert close(answers[-1], plain_logits(tmp_path / case)), case
        names = ("embed.weight", "unembed.weight")
        gradients = whole.backward(torch.sum, IDS, parameters=names)
        for name in names:
            for kind, wanted in (
                ("parameters", whole.parameter(name)),
                ("gradients", gradients[name]),
            ):
                found = [value for e in ranks if (value := e[kind].get(name)) is not None]
                assert found and all(close(value, wanted, 1e-4) for value in found), (
                    case,
                    kind,
                    name,
                )


# -- tokens that were added --------------------------------------------------------------------


def test_a_tokenizer_with_more_tokens_than_the_model_is_told_of(tmp_path: Path) -> None:
    path = make("llama", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(path)
    rmodel = garcon.connect(open_here(path))
    told = "the tokenizer has 2 tokens that the model, with 263, cannot read: '<one>', '<two>'"
    assert told in repr(rmodel)
    with pytest.raises(garcon.BadTokens, match="Token 263 is out of range"):
        rmodel.forward("Hello <one>")
    assert rmodel.forward("Hello").shape[-1] == 263


def test_tokens_that_only_the_model_has_are_read_and_chosen(tmp_path: Path) -> None:
    """As where an embedding is filled up to a round number: they have no text."""
    path = make("llama", tmp_path / "wide", vocab_size=288)
    small = make("llama", tmp_path / "small")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(small / file, path / file)
    rmodel = garcon.connect(open_here(path))
    assert rmodel.facts["model"]["notes"] == []
    ids = torch.tensor([[5, 287, 270]])
    assert close(rmodel.forward(ids), AutoModelForCausalLM.from_pretrained(path)(ids).logits)
    assert rmodel.decode([5, 287]) == rmodel.decode([5]) and rmodel.token_strings([[287]]) == [[""]]
