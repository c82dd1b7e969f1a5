"""Functions of the weights on the server: whole on every rank, and what goes wrong reaches all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import experiments
from garcon_jupyter.experiments.connectivity.weights import RankWeights, at_the_weights
from garcon_jupyter.wire import requests as wire
from tests.conftest import quiet
from tests.oracle import Plain


def reads(name: str, index: Any = None) -> Callable[[RankWeights], Any]:
    """A function that says who it ran on, and what it got."""
    return lambda weights: (weights.rank, weights.world, weights.get_parameter(name, index))


def check(rmodel: garcon.RemoteModel, plain: Plain, world: int) -> None:
    for layer in (0, 3):  # of the first stage, and of the last
        found = at_the_weights(rmodel, reads(f"layers.{layer}.mlp.down_proj", slice(3, 9)))
        assert [(rank, of) for rank, of, _ in found] == [(n, world) for n in range(world)]
        expected = plain.module(f"model.layers.{layer}.mlp.down_proj").weight[3:9]
        assert all(torch.equal(value, expected) for *_, value in found)
    with pytest.raises(garcon.UnknownParameter, match="down_proj"):
        at_the_weights(rmodel, reads("layers.0.mlp.down_prj"))
    with pytest.raises((garcon.BadRequest, garcon.PointUnavailable), match="cannot be indexed so"):
        at_the_weights(rmodel, reads("layers.3.mlp.down_proj", (0, 0, 0)))
    with pytest.raises(garcon.GarconError, match="ZeroDivisionError"):
        at_the_weights(rmodel, lambda weights: 1 // 0)
    with pytest.raises(garcon.BadRequest, match="no function"):
        rmodel._run(wire.ReadWeights())
    assert len(at_the_weights(rmodel, lambda weights: weights.rank)) == world, "it goes on"


def test_in_one_process(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    check(rmodel, plain, 1)


@pytest.mark.processes
def test_over_the_ranks_of_a_layer(rmodel_tp2: garcon.RemoteModel, plain: Plain) -> None:
    check(rmodel_tp2, plain, 2)


@pytest.mark.processes
def test_over_stages(
    rmodel: garcon.RemoteModel, llama_path: Path, plain: Plain, tmp_path: Path
) -> None:
    """What one stage writes is read by another; the connectome and compositions are those of one process."""
    server = garcon.launch(llama_path, "stages-of-weights", pp=2, progress=quiet)
    two = garcon.connect(server.name)
    try:
        check(two, plain, 2)
        ours, theirs = (
            experiments.connectome(model, tmp_path / name, k=3, tokens=False)
            for model, name in ((two, "two"), (rmodel, "one"))
        )
        for name in theirs.index["arrays"]:
            assert np.allclose(ours.array(name), theirs.array(name), equal_nan=True)
        both = (experiments.composition(model, "V").values.nan_to_num() for model in (two, rmodel))
        assert torch.equal(*both)
    finally:
        two.shutdown(force=True)
