"""Features of all units: every number against brute force, the same bytes for any sharding, and wrong answers that must fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.dictionaries import load
from garcon_backend.dictionaries.tiles import TiledEncoder
from garcon_jupyter import recorders
from garcon_jupyter.activation_stores import ActivationStore, from_arrays
from garcon_jupyter.exchanges import shuffle
from garcon_jupyter.features import features
from garcon_jupyter.recorders.examples import lots, score_of
from tests.features.conftest import (
    KEPT,
    LATENTS,
    POINT,
    ROWS,
    content,
    latents,
    made,
    places_of,
    sharded,
)

Make = Callable[[str], Path]


def test_strongest_and_sample_with_the_tokens_around_them(
    acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    path = dictionary("jumprelu")
    atlas = made(acts, tmp_path / "atlas", path, None)
    values, rows = latents(acts, path), acts.read(0, ROWS)
    assert atlas.points == [POINT] and len(atlas) == LATENTS and atlas.tokens == ROWS
    drawn = score_of(lots(0, rows.place, torch.arange(LATENTS))).numpy()
    for unit in range(0, LATENTS, 37):
        record, mine = atlas[POINT, unit], values[:, unit]
        best = np.sort(mine[mine > 0])[::-1][: KEPT["k"]]
        assert np.allclose([one.value for one in record.examples], best, rtol=1e-5)
        fires = (mine > 0).nonzero()[0]
        expected = fires[(-drawn[fires, unit]).argsort(kind="stable")][: KEPT["sample"]]
        found = {(one.document, one.offset): one.value for one in record.sample}
        assert found.keys() == {(int(p) >> 32, int(p) & 0xFFFFFFFF) for p in rows.place[expected]}
        for one in (*record.examples, *record.sample):
            row = int((rows.place == (one.document << 32 | one.offset)).nonzero())
            first = max(row - KEPT["before"], row - one.offset)
            near = list(range(first, min(row + KEPT["after"] + 1, ROWS)))
            near = [r for r in near if int(rows.place[r]) >> 32 == one.document]
            assert one.ids == rows.token[near].tolist() and one.at == row - first
            assert np.allclose(one.values, mine[near], rtol=1e-4, atol=1e-6)
            assert one.values[one.at] == one.value


def test_statistics(acts: ActivationStore, dictionary: Make, tmp_path: Path) -> None:
    path = dictionary("standard")
    atlas = made(acts, tmp_path / "atlas", path, None)
    values = latents(acts, path).astype(np.float64)
    moments = atlas.array("moments")
    mean, std = values.mean(0), values.std(0)
    assert np.allclose(moments[:, 0], mean) and np.allclose(moments[:, 1], std**2)
    z = (values - mean) / std
    assert np.allclose(moments[:, 2], (z**3).mean(0)) and np.allclose(
        moments[:, 3], (z**4).mean(0), rtol=1e-4
    )
    assert np.allclose(moments[:, 4], values.min(0)) and np.allclose(moments[:, 5], values.max(0))
    assert np.abs(atlas.array("fired") - (values > 0).sum(0)).max() <= 1
    counts = np.stack([np.histogram(v, atlas.edges)[0] for v in values.T])
    assert (np.abs(atlas.array("histogram") - counts).sum(1) <= 4).all()
    assert (atlas.array("histogram").sum(1) == ROWS).all()
    edges = recorders.Histogram().edges.tolist()
    assert atlas.edges.tolist() == edges


@pytest.mark.parametrize("architecture", ["jumprelu", "topk"])
def test_the_bytes_do_not_depend_on_shards(
    architecture: str, acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    path = dictionary(architecture)
    expected = content(made(acts, tmp_path / "whole", path, None))
    for data, shards, groups in ((1, 1, 1), (3, 1, 2), (2, 3, 1), (3, 2, 3)):
        plan = sharded(acts, LATENTS, data, shards, groups)
        out = tmp_path / f"{data}-{shards}-{groups}"
        assert content(made(acts, out, path, plan)) == expected
    # A dictionary that is held in parts: top-k's latents displace those of other parts.
    plan = sharded(acts, LATENTS, 2, 2, 2, encoder_parts=3)
    assert content(made(acts, tmp_path / "parts", path, plan)) == expected


def test_rows_one_by_one_have_other_last_bits(acts: ActivationStore, dictionary: Make) -> None:
    """Why the encoder runs in tiles: the same rows in calls of one give another file."""
    path = dictionary("standard")
    rows = acts.read(0, 300).activations.numpy()
    [(_, row, unit, value)] = TiledEncoder(str(path)).walk(lambda tile: rows, [0])
    whole = load(path)
    with torch.inference_mode():
        single = torch.cat([whole.encode(torch.from_numpy(rows[n : n + 1])) for n in range(300)])
    others = single.numpy()[row, unit]
    assert np.allclose(others, value, atol=1e-5) and (others != value).mean() > 0.05
    # The tile of which the same rows are a part has them to the last bit, wherever they stand in the call.
    half = next(TiledEncoder(str(path)).walk(lambda tile: rows[:150], [0]))
    assert np.array_equal(half[3], value[: len(half[3])])


def test_top_k_of_a_part_alone_is_wrong(acts: ActivationStore, dictionary: Make) -> None:
    """The wrong answer: each feature shard takes the k largest of its own latents."""
    path = dictionary("topk")
    rows = acts.read(0, 200).activations
    tiled = TiledEncoder(str(path), memory=LATENTS * 4 * 36 // 2)
    assert len(tiled.parts) > 1
    [(_, row, unit, _)] = tiled.walk(lambda tile: rows.numpy(), [0])
    right = latents(acts, path)[:200]
    assert set(zip(row.tolist(), unit.tolist(), strict=True)) == set(
        zip(*(n.tolist() for n in right.nonzero()), strict=True)
    )
    wrong = 0
    for part in tiled.parts:
        alone = load(path, part)
        codes = alone.candidates(rows)
        wrong += int((codes.values > 0).sum())
    assert wrong > 1.5 * len(row)


def test_units_of_a_point_are_what_recorders_keep(tmp_path: Path) -> None:
    """Four passes and one have the examples of recorders to the last bit; the sample is of tokens above zero."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(2500, 24)).astype(np.float32)
    values[:, 3] = -np.abs(values[:, 3])  # never fires
    places, tokens = places_of(2500, 40), rng.integers(0, 99, 2500)
    store = from_arrays(tmp_path / "acts", values, places, tokens, "p", dtype="float32")
    one = made(store, tmp_path / "one", None, None)
    four = made(store, tmp_path / "four", None, sharded(store, 24, 3, 1, 1, weights=0, codes=0.0))
    assert content(one) == content(four)
    seen = recorders.Seen(
        torch.from_numpy(values),
        torch.from_numpy(places),
        torch.from_numpy(tokens),
        torch.zeros(2500, dtype=torch.long),
    )
    window = {"before": 3, "after": 2}
    top = recorders.TopK(5, **window).update(None, seen)
    fires = np.array([u for u in range(24) if u != 3])
    for what in ("values", "places", "tokens", "around"):
        kept = getattr(top, what).numpy()
        assert np.array_equal(one.array(f"top_{what}")[fires], kept[fires], equal_nan=True)
    above = torch.where(seen.values > 0, seen.values, torch.nan)
    masked = recorders.Seen(above, seen.places, seen.tokens, seen.rows)
    sample = recorders.Reservoir(40).update(None, masked)
    assert np.array_equal(one.array("sample_values"), sample.values.numpy(), equal_nan=True)
    assert np.array_equal(one.array("sample_places"), sample.places.numpy())
    moments = recorders.Moments().update(None, seen)
    assert np.allclose(one.array("moments")[:, 0], moments.mean)
    assert np.allclose(one.array("moments")[:, 3], moments.kurtosis)
    counts = recorders.Histogram().update(None, seen).counts
    assert np.array_equal(one.array("histogram"), counts.numpy())
    assert np.array_equal(one.array("fired"), (values > 0).sum(0))
    assert np.isnan(one.array("top_values")[3]).all()  # what never fires has no examples


def test_the_first_tokens_can_be_left_out(
    acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    path = dictionary("jumprelu")
    whole = made(acts, tmp_path / "whole", path, None)
    atlas = made(acts, tmp_path / "without", path, None, without=("first", 7))
    rows = acts.read(0, ROWS)
    left = (rows.offset != 0) & (rows.token != 7)
    assert atlas.tokens == int(left.sum()) and atlas.index["without"] == ["first", 7]
    assert (atlas.array("sample_places") & 0xFFFFFFFF).min() > 0
    fired = (latents(acts, path)[left.numpy()] > 0).sum(0)
    assert np.abs(atlas.array("fired") - fired).max() <= 1
    assert (atlas.array("histogram").sum(1) == atlas.tokens).all()
    assert (whole.array("fired") >= atlas.array("fired")).all()
    around = atlas.array("top_tokens")
    assert (around == 7).any()  # but they stand in windows


def test_it_is_an_atlas(acts: ActivationStore, dictionary: Make, tmp_path: Path) -> None:
    vocabulary = [f" t{n}" for n in range(300)]
    made(acts, tmp_path / "atlas", dictionary("topk"), None, vocabulary=vocabulary, name="mine")
    atlas = garcon.open_atlas(tmp_path / "atlas")
    assert atlas.points == [f"{POINT}.sae.mine.latents"]
    record = atlas[atlas.points[0], 4]
    assert record.examples[0].tokens[record.examples[0].at].startswith(" t")
    assert record.show() is not None and "unit 4" in repr(record)
    assert len(record.intervals) == 10 and len(record.equal_width) == 10
    token = record.examples[0].tokens[record.examples[0].at]
    assert all(token.strip() for _ in atlas.search(token, at_least=0.2)[:3])
    assert "atlas of 600 units" in repr(atlas)
    opened = features(acts, tmp_path / "atlas", dictionary("topk"), name="mine", **KEPT)
    assert content(opened) == content(atlas)


def test_what_cannot_be_done_says_so(
    acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    path = dictionary("topk")
    mixed = shuffle(acts, tmp_path / "mixed", seed=1)
    with pytest.raises(garcon.BadData, match=r"is shuffled, so no text stands"):
        features(mixed, tmp_path / "out", path)
    with pytest.raises(garcon.DoesNotFit, match=r"take at least .*, and have"):
        features(acts, tmp_path / "small", path, memory="10 MB")
    with pytest.raises(garcon.BadRequest, match=r"keep nothing"):
        features(acts, tmp_path / "none", path, k=0)
    with pytest.raises(garcon.BadRequest, match=r"'special' is not known"):
        features(acts, tmp_path / "none", path, without=("special",))
    narrow = from_arrays(tmp_path / "narrow", np.ones((10, 3), np.float32), point=POINT)
    with pytest.raises(garcon.BadRequest, match=r"reads 16 numbers of a token, and .* has 3"):
        features(narrow, tmp_path / "wrong", path)
    made(acts, tmp_path / "there", path, None)
    with pytest.raises(garcon.BadData, match=r"has another atlas already"):
        made(acts, tmp_path / "there", path, None, k=6)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "book.txt").write_text("mine")
    with pytest.raises(garcon.BadData, match=r"holds book\.txt already"):
        features(acts, tmp_path / "full", path)


def test_the_plan_is_told_before_it_starts(
    acts: ActivationStore, dictionary: Make, tmp_path: Path
) -> None:
    told: list[str] = []
    plan = sharded(acts, LATENTS, 2, 2, 2)
    made(acts, tmp_path / "atlas", dictionary("topk"), plan, progress=told.append)
    assert "4 passes over 2 × 2 shards" in told[0] and "read" in told[0] and "memory" in told[0]
    assert any("pass 3 of 4" in line for line in told)
    index: dict[str, Any] = json.loads((tmp_path / "atlas" / "atlas.json").read_text())
    assert index["sample_of"] == "tokens above zero"
