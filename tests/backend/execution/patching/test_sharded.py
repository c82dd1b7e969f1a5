"""A sweep over ranks has the numbers of one process, and a cell that cannot be leaves the next request right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import checkpoints
from tests.backend.execution.patching.sharded_run import points_and_cells, sweep
from tests.backend.ranks import run_on_ranks

pytestmark = pytest.mark.processes

LAYOUTS: list[dict[str, int]] = [{"tp": 3}, {"pp": 2, "dp": 2}]
"""Two tensor-parallel ranks have the tests of the experiment."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that three ranks can share."""
    sizes = {"num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 96}
    return checkpoints.make("llama", tmp_path_factory.mktemp("thirds"), **sizes)


@pytest.fixture(scope="module")
def alone(path: Path) -> list[Any]:
    return sweep(str(path), {})


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_ranks_find_what_one_process_finds(
    layout: dict[str, int], path: Path, alone: list[Any]
) -> None:
    world = 1
    for degree in layout.values():
        world *= degree
    ranks = run_on_ranks(world, sweep, str(path), layout)
    for number, (runs, cells, whole) in ((n, alone[n]) for n in (0, 1, 3, 4)):
        (answer,) = [found[number] for found in ranks if found[number] is not None]
        assert answer[0] == pytest.approx(runs, abs=1e-5)
        span = 1e-4 * abs(runs[0] - runs[1])
        assert answer[1] == pytest.approx(cells, abs=span)
        assert answer[2] == whole
    assert all("no place" in found[2] or "another rank" in found[2] for found in ranks)


def test_cells_differ_and_are_those_of_one_by_one(alone: list[Any]) -> None:
    (runs, cells, whole), exact = alone[0], alone[4]
    assert len(cells) == len(points_and_cells()[1])
    span = 1e-4 * abs(runs[0] - runs[1])
    assert alone[3][1] == pytest.approx(cells[:9], abs=span)
    assert exact[1] == pytest.approx(cells[:9], abs=span)
    assert whole == "" and len({round(cell, 4) for cell in cells}) > 50
    assert "no place" in alone[2]
