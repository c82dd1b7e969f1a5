"""Gradients of stored data at checkpoints, against a backward of each datum at each, by hand."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from garcon_jupyter import training
from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.training.questions.checkpoints import token_losses
from tests.training.by_backwards import tiny, tokens


def series(folder: Path) -> tuple[torch.nn.Module, dict[str, object], list[torch.nn.Module]]:
    """A model, three checkpoints of it in three forms, and the models that they are."""
    models = []
    for seed in range(3):
        model = copy.deepcopy(tiny("llama", torch.float32, tie_word_embeddings=True)).eval()
        torch.manual_seed(seed)
        with torch.no_grad():
            for each in model.parameters():
                each.add_(torch.randn_like(each) * 0.05)
        models.append(model)
    models[0].save_pretrained(folder / "one")  # without the head, which is the table
    torch.save(models[1].state_dict(), folder / "two.pt")
    tensors = {name: each.clone() for name, each in models[2].state_dict().items()}
    save_file(tensors, folder / "three.safetensors")
    told = {"a": folder / "one", "b": folder / "two.pt", "c": folder / "three.safetensors"}
    return tiny("llama", torch.float32, tie_word_embeddings=True), told, models


def test_each_checkpoint_is_a_step_of_the_record(tmp_path: Path) -> None:
    model, checkpoints, models = series(tmp_path)
    own = copy.deepcopy(model.state_dict())
    ids = tokens(6)
    batches = [([0, 1, 2, 3], ids[:4]), ([4, 5], ids[4:])]
    found = training.record_checkpoints(model, checkpoints, batches, tmp_path / "series", k=30)
    assert model.training and all(each.equal(own[n]) for n, each in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    lines = found.steps.values()
    assert [line["checkpoint"] for line in lines] == ["a", "b", "c"]
    assert all(line["optimizer"] is None and line["data"] == [0, 1, 2, 3, 4, 5] for line in lines)
    for step, plain in enumerate(models):
        for datum in range(6):
            plain.zero_grad()
            token_losses(plain, ids[datum : datum + 1]).sum().backward()
            top = found.outliers(step, datum)
            assert len(top) == 30
            for unit, place, value in top[:10]:
                expected = float(plain.get_parameter(unit).grad[place])
                assert value == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert found.neurons("mlp").neurons


def test_weights_of_something_else_are_refused_and_change_nothing(tmp_path: Path) -> None:
    model, checkpoints, _ = series(tmp_path)
    own = copy.deepcopy(model.state_dict())
    good = torch.load(tmp_path / "two.pt")
    name = "model.norm.weight"
    wrong = [
        ("lacks model.norm.weight", {key: each for key, each in good.items() if key != name}),
        ("has besides more", {**good, "more": torch.ones(1)}),
        ("other shapes of model.norm", {**good, name: torch.ones(3)}),
        ("cannot be read", tmp_path / "none.pt"),
    ]
    batches = [([0, 1], tokens(2))]
    for number, (said, weights) in enumerate(wrong):
        with pytest.raises(BadData, match=said):
            training.record_checkpoints(
                model, {"a": checkpoints["a"], "x": weights}, batches, tmp_path / f"r{number}"
            )
        assert all(each.equal(own[n]) for n, each in model.state_dict().items())
        assert len(training.open_record(tmp_path / f"r{number}").steps) == 1
    with pytest.raises(BadRequest, match="no data"):
        training.record_checkpoints(model, checkpoints, [], tmp_path / "empty")
