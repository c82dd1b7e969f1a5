"""Lenses over stages and replicas; over tensor-parallel ranks the other tests of this room have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import experiments
from tests.conftest import quiet
from tests.experiments.lenses.by_hand import divergences, doubled, jacobian, trained
from tests.oracle import Plain, close

pytestmark = pytest.mark.processes

ROWS = torch.randint(3, 259, (3, 8), generator=torch.Generator().manual_seed(5))
SKIP = 1


@pytest.fixture(scope="module")
def cut(llama_path: Path) -> Iterator[garcon.RemoteModel]:
    """Two stages, two replicas."""
    server = garcon.launch(llama_path, name="lenses", pp=2, dp=2, progress=quiet)
    model = garcon.connect(server.name)
    yield model
    model.shutdown(force=True)


@pytest.fixture(scope="module")
def model(plain: Plain) -> Any:
    return doubled(plain)


def test_a_jacobian_lens_is_that_of_one_process(cut: garcon.RemoteModel, model: Any) -> None:
    before = cut.forward(ROWS)
    found = experiments.fit_jacobian_lens(cut, ROWS, skip=SKIP, tokens=40)
    truth = {
        layer: torch.stack([jacobian(model, row, layer, SKIP) for row in ROWS]).mean(0)
        for layer in range(3)
    }
    assert all(close(found.jacobians[layer], truth[layer], 1e-5) for layer in truth)
    late = experiments.fit_jacobian_lens(cut, ROWS, 2, skip=SKIP, tokens=8)
    assert close(late.jacobians[2], truth[2], 1e-5)
    assert torch.equal(cut.forward(ROWS), before)
    read = experiments.read_lens(cut, ROWS[:1], found).at(statistic="KL to the last")[:3]
    assert close(read, divergences(model, ROWS[0], lambda n, x: x @ truth[n].T), 1e-4)


def test_a_tuned_lens_is_that_of_one_process(cut: garcon.RemoteModel, model: Any) -> None:
    options: dict[str, Any] = {"tokens_per_step": 16, "length": 8, "batch_tokens": 16}
    found = experiments.train_tuned_lens(cut, ROWS, steps=3, **options)
    weights, _ = trained(model, ROWS, 3, 2)
    assert all(close(found.maps[n - 1].weight, weights[n], 1e-4) for n in range(4))
    assert len(cut.recordings()) == 0
