"""Two-sided projections: their dot products estimate those of the gradients; and the directory that bergson reads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from garcon_jupyter import training
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.gradients.outliers import units_of
from garcon_jupyter.training.gradients.projections import Projections
from tests.training.by_backwards import apart, losses, tiny, tokens, truth

NAME = "transformer.h.0.mlp.c_fc.weight"


def test_a_projection_is_that_of_the_whole_gradient(tmp_path: Path) -> None:
    model, ids = tiny("gpt2", tie_word_embeddings=True, n_layer=1), tokens()
    expected = truth(model, ids)
    wanted = ["*c_fc.weight", "*wte*"]
    with training.record(model, tmp_path / "a", projection=5, units=wanted) as record:
        losses(model, ids).sum().backward()
        batch = record.data(range(4))
        units = units_of({n: expected[n].shape[1:] for n in ("transformer.wte.weight", NAME)})
        made = Projections(units, 5, seed=0)
        found = made.of(batch).view(4, 2, 5, 5)
    for at, unit in enumerate(units):
        left, right = (each.double() for each in made.matrices(unit))
        assert apart(found[:, at], left @ expected[unit.name] @ right.T) < 1e-8
        assert left.shape == (5, unit.rows) and not left.equal(right[:, : unit.rows])


def test_dot_products_of_projections_are_unbiased(tmp_path: Path) -> None:
    """Of 500 random pairs, the mean of estimate over truth is 1, within three of its standard errors."""
    model = tiny("llama", torch.float32)
    name = "model.layers.1.mlp.up_proj.weight"
    with training.record(model, tmp_path / "a") as record:
        ids = tokens(32, 9)
        losses(model, ids).sum().backward()
        batch = record.data(range(32))
    gradients = batch.gradient(name).flatten(1)
    ratios = []
    for seed in range(500):
        one, two = np.random.default_rng(seed).integers(0, 32, 2)
        true = float(gradients[one] @ gradients[two])
        made = Projections(units_of({name: model.get_parameter(name).shape}), 16, seed)
        both = batch.projection(name, *made.matrices(made.units[0]))[[one, two]].flatten(1)
        ratios.append(
            (float(both[0] @ both[1]) - true) / float(gradients[one].norm() * gradients[two].norm())
        )
    error = np.std(ratios) / len(ratios) ** 0.5
    assert abs(np.mean(ratios)) < 3 * error < 0.03


def test_a_directory_in_bergsons_layout(tmp_path: Path) -> None:
    model = tiny("llama", torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with training.record(model, tmp_path / "a", projection=4) as record:
        for step in range(2):
            losses(model, tokens(seed=step)).sum().backward()
            record.data(range(4 * step, 4 * step + 4))
            optimizer.step()
            optimizer.zero_grad()
    found = record.record
    rows = found.to_bergson(tmp_path / "b")
    assert rows == [(step, 4 * step + row) for step in range(2) for row in range(4)]
    told = json.loads((tmp_path / "b" / "info.json").read_text())
    assert told["num_grads"] == 8 and list(told["grad_sizes"].values()) == [16] * 14
    assert next(iter(told["grad_sizes"])) == "model.layers.0.self_attn.q_proj"
    # As bergson.data.load_gradients maps it.
    numbers = np.memmap(
        tmp_path / "b" / "gradients.bin", told["base_dtype"], "r", shape=(8, 14 * 16)
    )
    assert np.array_equal(numbers[:4].reshape(4, 14, 4, 4), found.projections(0))
    assert np.array_equal(numbers[4:].reshape(4, 14, 4, 4), found.projections(1))
    with training.record(model, tmp_path / "c") as record:
        pass
    with pytest.raises(BadRequest, match="no projections"):
        record.record.to_bergson(tmp_path / "d")
