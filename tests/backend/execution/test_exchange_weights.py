"""Weights exchanged in one process: as a fresh model has them, or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere, open_here
from garcon_jupyter.wire import requests as wire
from tests import checkpoints
from tests.oracle import PROMPT

FAMILIES = ("llama", "mixtral", "gpt_oss", "phi3", "falcon_h1")
"""Tied and not, fused projections, experts that are stored one by one, buffers that the model fills by itself."""


@dataclass
class Pair:
    """Two checkpoints that differ in their numbers, and the model that is loaded with the first."""

    one: Path
    other: Path
    here: ModelHere


@pytest.fixture
def model(pair: Pair) -> Iterator[garcon.RemoteModel]:
    """The only session of that model."""
    made = garcon.connect(pair.here)
    yield made
    made.close()


def exchange(model: garcon.RemoteModel, path: Path) -> bool:
    found: bool = model._run(wire.ExchangeWeights(path=str(path)))["exchanged"]
    return found


def fresh(path: Path) -> garcon.RemoteModel:
    return garcon.connect(open_here(path, unchecked=True))


@pytest.fixture(scope="module")
def pair(llama_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    other = checkpoints.make("llama", tmp_path_factory.mktemp("other"), seed=3)
    return Pair(llama_path, other, open_here(llama_path, unchecked=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_it_computes_what_a_fresh_model_does(family: str, tmp_path: Path) -> None:
    one = checkpoints.make(family, tmp_path / "one")
    other = checkpoints.make(family, tmp_path / "other", seed=7)
    model, expected = fresh(one), fresh(other)
    before = model.forward(PROMPT)
    assert exchange(model, other)
    assert torch.equal(model.forward(PROMPT), expected.forward(PROMPT))
    assert not torch.equal(model.forward(PROMPT), before)
    for name in model.parameters:
        assert torch.equal(model.get_parameter(name), expected.get_parameter(name)), name
    assert not exchange(model, other)  # they are loaded already
    assert exchange(model, one) and torch.equal(model.forward(PROMPT), before)


def test_points_hold_what_a_fresh_model_has_there(pair: Pair, model: garcon.RemoteModel) -> None:
    def save(save_ctx: object, tensor: torch.Tensor) -> None:
        save_ctx.tensor = tensor  # type: ignore[attr-defined]

    values = []
    for each in (model, fresh(pair.other)):
        exchange(each, pair.other)
        each.forward(PROMPT, each.probe_points["layers.*.attn.pattern"].probes(save))
        values.append(each.recordings().stack("layers.*.attn.pattern"))
    assert torch.equal(*values)


def test_what_was_known_of_the_other_weights_is_forgotten(
    pair: Pair, model: garcon.RemoteModel
) -> None:
    exchange(model, pair.one)
    certificate = model.certify()
    assert model.status()["certificate"]["id"] == certificate.id
    exchange(model, pair.other)
    told = model.status()
    assert told["certificate"] is None and told["weights"] == str(pair.other)
    again = garcon.connect(pair.here)
    assert again.facts["weights"] == str(pair.other)
    again.close()


def test_files_that_were_written_anew_are_other_weights(
    pair: Pair, model: garcon.RemoteModel, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pair.one, copy)
    exchange(model, copy)
    before = model.forward(PROMPT)
    shutil.copy(pair.other / "model.safetensors", copy)
    assert exchange(model, copy)
    assert torch.equal(model.forward(PROMPT), fresh(pair.other).forward(PROMPT))
    assert not torch.equal(model.forward(PROMPT), before)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("a tensor more", "more.weight"),
        ("a tensor less", r"no model\.norm\.weight"),
        ("another shape", r"model\.norm\.weight \[5\], which is loaded has"),
        ("another configuration", "rms_norm_eps=0.5, which is loaded has 1e-0"),
        ("another dtype", "dtype='bfloat16', which is loaded has 'float32'"),
    ],
)
def test_checkpoints_that_differ_in_more_are_refused(
    pair: Pair, model: garcon.RemoteModel, tmp_path: Path, change: str, said: str
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(pair.other, bad)
    file, config = bad / "model.safetensors", bad / "config.json"
    tensors, words = load_file(file), json.loads(config.read_text())
    if change == "a tensor more":
        tensors["more.weight"] = torch.ones(3)
    elif change == "a tensor less":
        del tensors["model.norm.weight"]
    elif change == "another shape":
        tensors["model.norm.weight"] = torch.ones(5)
    elif change == "another dtype":
        words["dtype"] = "bfloat16"
    else:
        words["rms_norm_eps"] = 0.5
    save_file(tensors, file, {"format": "pt"})
    config.write_text(json.dumps(words))
    exchange(model, pair.one)
    before = model.forward(PROMPT)
    with pytest.raises(garcon.ModelsDiffer, match=said):
        exchange(model, bad)
    assert torch.equal(model.forward(PROMPT), before)
    assert model.status()["weights"] == str(pair.one)


def test_where_it_cannot_be_noted_nothing_changes(pair: Pair, tmp_path: Path) -> None:
    """Ranks that are started anew would have other weights than the client thinks."""
    here = open_here(pair.one, unchecked=True)
    model = garcon.connect(here)
    before = model.forward(PROMPT)
    weights = here._serving._context.lockstep.executor.rank.weights
    assert weights is not None
    weights.note = tmp_path / "no such directory" / "weights.json"
    with pytest.raises(garcon.BadRequest, match="could not be noted"):
        exchange(model, pair.other)
    assert torch.equal(model.forward(PROMPT), before)
    weights.note = tmp_path / "weights.json"
    assert exchange(model, pair.other) and not torch.equal(model.forward(PROMPT), before)


def test_other_sessions_are_not_disturbed(pair: Pair, model: garcon.RemoteModel) -> None:
    exchange(model, pair.one)
    other = garcon.connect(pair.here)
    with pytest.raises(garcon.BadRequest, match=f"Other sessions are connected.*{other.session}"):
        exchange(model, pair.other)
    shared = wire.ExchangeWeights(path=str(pair.other), sharing=(other.session,))
    assert model._run(shared)["exchanged"]
    other.close()
    assert exchange(model, pair.one)


def test_a_module_of_ones_own_has_no_weights_to_exchange(pair: Pair) -> None:
    model = garcon.connect(open_here(torch.nn.Linear(2, 2)))
    with pytest.raises(garcon.BadRequest, match="made by code of its own"):
        exchange(model, pair.one)


@pytest.mark.parametrize("path", ["", "nowhere", "/"])
def test_a_path_without_weights_is_refused(
    pair: Pair, model: garcon.RemoteModel, path: str
) -> None:
    before = model.forward(PROMPT)
    with pytest.raises(garcon.GarconError):
        exchange(model, Path(path))
    assert torch.equal(model.forward(PROMPT), before)
