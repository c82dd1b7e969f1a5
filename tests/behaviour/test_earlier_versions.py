"""What earlier versions wrote is still read: checkpoints of runs, and atlases.

``tests/fixtures/version_0.1.0`` was written by that version: a run of 60 rows past recorders and a probe that keeps an object
of its own class, ended after four of its fifteen batches; and an atlas of 80 units.
"""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import recorders
from garcon_jupyter.user_code import moved

WRITTEN = Path(__file__).parents[1] / "fixtures" / "version_0.1.0"
ROWS = np.random.default_rng(1).integers(3, 263, size=(60, 16))
POINT = "layers.1.mlp.post_activation"
RECORDERS = (
    recorders.TopK(5, before=2, after=1),
    recorders.Reservoir(4),
    recorders.Moments(),
    recorders.Histogram(),
)


def count(save_ctx: Any, tensor: torch.Tensor) -> None:
    """What the probe of then did."""
    if not hasattr(save_ctx, "rows"):
        save_ctx.rows, save_ctx.sums, save_ctx.first = 0, [], float(tensor.sum())
    save_ctx.rows += tensor.shape[0]
    save_ctx.sums.append(tensor.double().sum())


def test_a_run_goes_on_from_a_checkpoint(rmodel: garcon.RemoteModel, tmp_path: Path) -> None:
    """To the values of a run without interruption; what was seen before was seen on another machine."""
    garcon.ship(__import__(__name__, fromlist=["_"]))
    checkpoint = shutil.copytree(WRITTEN / "checkpoint", tmp_path / "checkpoint")
    run = rmodel.run(resume=checkpoint, show=False)
    assert run.status.tokens == ROWS.size
    resumed = rmodel.recordings()
    point = rmodel.probe_points[POINT]
    probes = [point.probe(recorder) for recorder in RECORDERS]
    rmodel.clear_recordings()
    rmodel.run(ROWS, [*probes, point.probe(count, name="whole")], batch_tokens=64, show=False)
    whole = rmodel.recordings()
    for name in ("topk", "reservoir", "moments", "histogram"):
        one, other = getattr(resumed[POINT], name), getattr(whole[POINT], name)
        assert type(one) is type(other)
        for mine, theirs in zip(one.tensors().values(), other.tensors().values(), strict=True):
            close = torch.isclose(
                mine.double(), theirs.double(), rtol=1e-4, atol=1e-5, equal_nan=True
            )
            # A value at the edge of a bin, or as large as another, may fall on either side.
            assert close.double().mean() > 0.995, name
    own, now = resumed[POINT, "own"], whole[POINT, "whole"]
    assert own.seen.rows == now.rows == 60
    assert torch.allclose(torch.stack(own.sums), torch.stack(now.sums), atol=1e-4)
    assert own.notes == {"first": pytest.approx(now.first, abs=1e-4)}


def test_without_the_table_of_what_moved_it_could_not() -> None:
    with (
        (WRITTEN / "checkpoint" / "position").open("rb") as stream,
        pytest.raises((ImportError, AttributeError)),
    ):
        pickle.load(stream)
    with (WRITTEN / "checkpoint" / "position").open("rb") as stream:
        assert moved.load(stream)


def test_an_atlas_opens(rmodel: garcon.RemoteModel, tmp_path: Path) -> None:
    atlas = garcon.open_atlas(WRITTEN / "atlas")
    made = {"k": 3, "before": 2, "after": 1, "show": False}
    now = rmodel.atlas("layers.0.mlp.post_activation", ROWS[:8], tmp_path / "atlas", **made)
    assert len(atlas) == len(now) == 80 and atlas.vocabulary == now.vocabulary
    for unit in (0, 17, 79):
        then, here = atlas[atlas.points[0], unit], now[now.points[0], unit]
        assert [one.ids for one in then.examples] == [one.ids for one in here.examples]
        assert then.rate == here.rate and then.moments == pytest.approx(
            here.moments, rel=1e-4, abs=1e-6
        )
        assert [text for text, _ in then.logits()] == [text for text, _ in here.logits()]
