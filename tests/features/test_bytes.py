"""Bytes by the formulas: read and written as the plan says, and not more with more features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore
from garcon_jupyter.activation_stores.point_rows import PointRows
from garcon_jupyter.exchanges import piles
from garcon_jupyter.features import jobs, planned
from garcon_jupyter.features.arrays import FeatureSizes
from garcon_jupyter.features.codes import CODE
from garcon_jupyter.features.rows import LAYOUT, window_layout
from tests.dictionaries.making import saelens
from tests.features.conftest import KEPT, LATENTS, ROWS, D, made, sharded

Make = Callable[[str], Path]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes of each column of a store that were read."""
    found: dict[str, int] = {}
    true = PointRows.read_group

    def counted(self: PointRows, group: Any, at: int, out: Any, sums: Any = None) -> None:
        for name, column in out.items():
            found[name] = found.get(name, 0) + column.nbytes
        true(self, group, at, out, sums)

    monkeypatch.setattr(PointRows, "read_group", counted)
    return found


def test_activations_are_read_once_however_many_features_there_are(
    acts: ActivationStore, dictionary: Make, read: dict[str, int], tmp_path: Path
) -> None:
    bytes_of_rows = ROWS * D * 4
    made(acts, tmp_path / "one", dictionary("topk"), sharded(acts, LATENTS, 3, 3, 3))
    assert read["activations"] == bytes_of_rows
    wide = saelens(tmp_path / "wide", D, 2 * LATENTS, "blocks.0.hook_resid_post", "topk", k=12)
    read.clear()
    made(acts, tmp_path / "two", wide, sharded(acts, 2 * LATENTS, 3, 5, 5))
    assert read["activations"] == bytes_of_rows
    # The wrong answer: 128 features at a time, as dashboards do, each with all activations.
    assert -(-2 * LATENTS // 128) * bytes_of_rows > 9 * read["activations"]
    # Places and tokens: in pass 1 for each feature shard, in pass 3 twice with what is beside them; and the first of each data shard.
    assert read["place"] + read["token"] <= 12 * ROWS * (5 + 1 + 3 + 1)


def test_files_between_passes_have_the_bytes_of_the_formulas(
    acts: ActivationStore, dictionary: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[str, int] = {}
    true = jobs.write

    def looked(job: Any) -> Any:
        if not sizes:
            between = tmp_path / "atlas" / ".between"
            for path in sorted(between.rglob("*")):
                if path.suffix in (".codes", ".piles"):
                    name = path.parent.name
                    sizes[name] = sizes.get(name, 0) + path.stat().st_size
        return true(job)

    monkeypatch.setattr(jobs, "write", looked)
    atlas = made(acts, tmp_path / "atlas", dictionary("topk"), sharded(acts, LATENTS, 2, 2, 2))
    codes = 12 * ROWS * CODE
    assert sizes["codes"] <= codes * 1.05 + 3 * 2 * 32 * 2
    examples = sum(
        int((atlas.array(f"{k}_tokens")[:, :, 3] >= 0).sum()) for k in ("top", "sample", "wide")
    )
    window = piles.row_bytes(window_layout(6))
    assert window == 20 + 8 * 6 and piles.row_bytes(LAYOUT) == 24
    assert abs(sizes["3"] / (examples * window) - 1) < 0.05
    # Shipping activations of windows instead, in float16, at the width of SmolLM2.
    assert 50 * piles.row_bytes(window_layout(32)) < 32 * 2 * 576


def test_the_plan_reads_the_data_once_and_keeps_within_its_memory() -> None:
    kept = FeatureSizes(1 << 20, 20, 200, 10, 5)
    plan = planned(10**8, 1164, 1 << 20, kept, 4 << 30, 4, 64, 4 * (1 << 20) * 1156, 576)
    assert plan.passes == 4 and plan.feature_shards > 1 and plan.encoder_parts > 1
    assert plan.activations == 10**8 * 1164 * plan.encoder_parts
    roomy = planned(10**8, 1164, 1 << 20, kept, 64 << 30, 4, 64, 4 * (1 << 20) * 1156, 576)
    assert roomy.activations == 10**8 * 1164 and roomy.feature_shards < plan.feature_shards
    assert "4 passes over" in str(plan) and "read" in str(plan)
    edges = np.array(plan.edges(plan.feature_shards))
    assert edges[0] == 0 and edges[-1] == 1 << 20 and (np.diff(edges) > 0).all()
    assert (edges % 256 == 0).all()
    small = planned(2000, 1164, 512, FeatureSizes(512, **KEPT), 2 << 30, 2, 30, 512 * 4 * 1156, 576)
    assert small.passes == 1 and small.data_shards == small.feature_shards == 1
    with pytest.raises(garcon.DoesNotFit, match=r"Give memory="):
        planned(2000, 1164, 512, kept, 100_000_000, 2, 30, 512 * 4 * 1156, 576)
