"""An atlas is the same whatever happened to its ranks, and however many they were: over 50,000 tokens."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import garcon_jupyter as garcon
from tests import checkpoints
from tests.conftest import quiet

pytestmark = pytest.mark.processes

POINTS = "layers.*.mlp.post_activation"
# Batches so small that none is cut into portions where the machine is busy: other shapes round otherwise.
ROWS = np.random.default_rng(8).integers(3, 263, size=(500, 100))
CLOSE = 1e-5
"""Of the largest value of an array."""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama whose heads and neurons divide by two and by three."""
    sizes = {"num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 96}
    return checkpoints.make("llama", tmp_path_factory.mktemp("thirds"), **sizes)


def made(path: Path, snapshot: Path, name: str, **degrees: int) -> garcon.Atlas:
    """The atlas of a server of this layout."""
    garcon.launch(snapshot, name=name, progress=quiet, **degrees)
    model = garcon.connect(name)
    try:
        return model.atlas(POINTS, ROWS, path, batch_tokens=500, show=False)
    finally:
        model.shutdown(force=True)


@pytest.fixture(scope="module")
def whole(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> garcon.Atlas:
    """Of one process."""
    return made(tmp_path_factory.mktemp("whole") / "atlas", snapshot, "whole")


@pytest.fixture(scope="module")
def thirds(snapshot: Path) -> Iterator[garcon.RemoteModel]:
    """A server of three tensor-parallel ranks."""
    garcon.launch(snapshot, name="thirds", tp=3, progress=quiet)
    model = garcon.connect("thirds")
    yield model
    model.shutdown(force=True)


@pytest.fixture(scope="module")
def of_thirds(thirds: garcon.RemoteModel, tmp_path_factory: pytest.TempPathFactory) -> garcon.Atlas:
    path = tmp_path_factory.mktemp("thirds-atlas") / "atlas"
    return thirds.atlas(POINTS, ROWS, path, batch_tokens=500, show=False)


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """By columns of the last dimension."""
    axes = tuple(range(one.ndim - 1))
    apart, largest = np.nanmax(np.abs(one - other), axes), np.nanmax(np.abs(one), axes)
    return np.array_equal(np.isnan(one), np.isnan(other)) and bool((apart <= CLOSE * largest).all())


def same_examples(one: garcon.Atlas, other: garcon.Atlas) -> int:
    """Assert that the examples of two atlases are the same, but for swaps of values that are close; how many
    are in another slot."""
    swapped, close = 0, CLOSE * float(one.array("top_values").max())
    for unit in range(len(one)):
        values, others = (atlas.array("top_values")[unit] for atlas in (one, other))
        assert np.abs(values - others).max() <= close
        slots = {int(place): n for n, place in enumerate(other.array("top_places")[unit])}
        for n, place in enumerate(one.array("top_places")[unit].tolist()):
            swapped += slots.get(place) != n
            # Kept by one only: then it is as large as what the other keeps last.
            assert abs(values[n] - others[slots.get(place, -1)]) <= close
    return swapped


def test_two_layouts_have_the_same_atlas(
    whole: garcon.Atlas, of_thirds: garcon.Atlas, snapshot: Path, tmp_path: Path
) -> None:
    replicas = made(tmp_path / "atlas", snapshot, "replicas", dp=2)
    for other in (of_thirds, replicas):
        assert other.tokens == whole.tokens == 50_000
        assert other.index["arrays"] == whole.index["arrays"]
        assert same_examples(whole, other) < 0.01 * whole.array("top_places").size
        for name in ("sample_places", "sample_tokens"):
            assert np.array_equal(whole.array(name), other.array(name)), name
        for name in ("sample_values", "sample_around", "moments", "logits_up_values"):
            assert near(whole.array(name), other.array(name)), name
        assert near(whole.array("correlations"), other.array("correlations"))
        # A value at the edge of a bin may be on its other side.
        assert np.abs(whole.array("fired") - other.array("fired")).max() <= 2
        moved = np.abs(whole.array("histogram") - other.array("histogram")).sum(1)
        assert moved.max() <= 50 and moved.mean() < 10


def test_other_data_has_another_atlas(whole: garcon.Atlas, of_thirds: garcon.Atlas) -> None:
    """The comparison notices."""
    units = slice(0, len(whole) - 1), slice(1, len(whole))
    one, other = (whole.array("top_values")[part] for part in units)
    assert np.abs(one - other).max() > 1000 * CLOSE


def test_a_killed_rank_changes_no_byte(
    thirds: garcon.RemoteModel, of_thirds: garcon.Atlas, tmp_path: Path
) -> None:
    kept, killed = tmp_path / "checkpoints", []

    def kill() -> None:
        end = time.monotonic() + 100
        while not (reached := sorted(kept.glob("after-*/rank-1"))):
            assert time.monotonic() < end, "no checkpoint was written"
            time.sleep(0.005)
        os.kill(thirds.facts["ranks"][1]["pid"], signal.SIGKILL)
        killed.append(int(reached[0].parent.name.removeprefix("after-")))

    launched = thirds.facts["launched"]
    thread = threading.Thread(target=kill)
    thread.start()
    again = thirds.atlas(
        POINTS,
        ROWS,
        tmp_path / "atlas",
        batch_tokens=500,
        checkpoint=kept,
        every=0,
        show=False,
    )
    thread.join()
    assert killed and killed[0] < 100 and thirds.facts["launched"] > launched
    files = sorted(file.name for file in of_thirds.path.iterdir())
    assert files == sorted(file.name for file in again.path.iterdir()) and len(files) > 15
    for name in files:
        assert (of_thirds.path / name).read_bytes() == (again.path / name).read_bytes(), name
