"""A sweep, cell by cell, against plain transformers with plain hooks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest
from garcon_jupyter.experiments.patching import Sweep
from tests.oracle import Plain

CLEAN, CORRUPTED = [[0, 40, 41, 42, 99]], [[0, 40, 77, 42, 99]]
ANSWERS = (17, 23)


def difference(logits: Tensor) -> float:
    return float(logits[0, -1, ANSWERS[0]] - logits[0, -1, ANSWERS[1]])


def by_hand(plain: Plain, layer: int, position: int) -> float:
    """Share restored by the clean input of a block at one position."""
    block = plain.module(f"model.layers.{layer}")
    caught: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda _, args: caught.append(args[0].clone()))
    high = difference(plain.logits(CLEAN))
    handle.remove()

    def patch(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        changed = args[0].clone()
        changed[0, position] = caught[0][0, position]
        return (changed, *args[1:])

    low = difference(plain.logits(CORRUPTED))
    handle = block.register_forward_pre_hook(patch)
    patched = difference(plain.logits(CORRUPTED))
    handle.remove()
    return (patched - low) / (high - low)


def test_every_cell_of_a_sweep_is_the_run_by_hand(either: garcon.RemoteModel, plain: Plain) -> None:
    sweep = Sweep.of(either, CLEAN, CORRUPTED, ANSWERS)
    points = [f"layers.{layer}.resid_pre" for layer in range(4)]
    found = torch.stack([values for _, values in sweep.run(points)])
    expected = [[by_hand(plain, layer, at) for at in range(5)] for layer in range(4)]
    assert np.allclose(found, expected, atol=1e-3)
    assert found[0, 2] == pytest.approx(1.0, abs=1e-3)  # the one token that differs
    value, rows = sweep.cell(points[1], 2)
    assert value == pytest.approx(expected[1][2], abs=1e-3)
    plainly = plain.logits(CORRUPTED)[0, -1].softmax(-1)
    for token, _, without in rows:
        assert without == pytest.approx(float(plainly[token]), abs=1e-5)


def test_a_point_with_heads_is_swept_by_head(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    sweep = Sweep.of(rmodel, CLEAN, CORRUPTED, ANSWERS)
    (_, values), *_ = sweep.run(["layers.2.attn.z"])
    assert values.shape == (rmodel.catalog.sizes["H"],)
    projection = plain.module("model.layers.2.self_attn.o_proj")
    caught: list[Tensor] = []
    handle = projection.register_forward_pre_hook(lambda _, args: caught.append(args[0].clone()))
    high = difference(plain.logits(CLEAN))
    handle.remove()

    def patch(_module: object, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        changed = args[0].clone()
        changed[0, :, 16:32] = caught[0][0, :, 16:32]  # head 1 of 16 dimensions
        return (changed,)

    low = difference(plain.logits(CORRUPTED))
    handle = projection.register_forward_pre_hook(patch)
    patched = difference(plain.logits(CORRUPTED))
    handle.remove()
    assert float(values[1]) == pytest.approx((patched - low) / (high - low), abs=1e-3)


def test_the_picture_fills_and_a_click_runs_a_cell(rmodel: garcon.RemoteModel) -> None:
    widget = rmodel.patching(CLEAN, CORRUPTED, ANSWERS)
    assert widget.worker.wait(60) and widget.trouble == ""
    assert [sheet["column_name"] for sheet in widget.sheets] == ["token", "head"]
    assert not any(np.isnan(sheet.values).any() for sheet in widget._sheets)
    widget.selected_row, widget.selected_column = 1, 2
    assert widget.worker.wait(60)
    assert "layers.1.resid_pre, token 2" in widget.detail["title"]
    assert f"{widget._sheets[0].values[1, 2]:.3f}" in widget.detail["title"]
    assert len(rmodel.recordings()) == 0


def test_mistakes_are_told(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(BadRequest, match="5 and 4 tokens"):
        Sweep.of(rmodel, CLEAN, [CORRUPTED[0][:4]])
    with pytest.raises(BadRequest, match="nothing to restore"):
        Sweep.of(rmodel, CLEAN, CLEAN, ANSWERS)
    with pytest.raises(BadRequest, match=r"'Hello' is \d tokens"):
        Sweep.of(rmodel, CLEAN, CORRUPTED, ("Hello", "x"))
