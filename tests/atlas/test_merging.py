"""Atlases over parts of the data, merged, are the atlas of all of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere
from tests.oracle import close

POINTS = ["layers.0.mlp.post_activation", "layers.2.mlp.post_activation"]
DRAW = np.random.default_rng(6)
ROWS = DRAW.integers(3, 263, size=(40, 14))
ROWS[:, 0] = DRAW.permutation(260)[:40] + 3
"""No two begin alike: servers of different layouts would order values that are equal by their last bits."""

OPTIONS: dict[str, Any] = {
    "k": 6,
    "before": 3,
    "after": 2,
    "batch_tokens": 60,
    "show": False,
    "mergeable": True,
}
CUTS = {"early": slice(0, 13), "late": slice(13, 30), "last": slice(30, None)}


@pytest.fixture(scope="module")
def made(
    llama_here: ModelHere,
    llama_tp2_server: garcon.Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, garcon.Atlas]:
    """The whole from one model; its parts from two, of different layouts."""
    folder = tmp_path_factory.mktemp("merging")
    one, other = (garcon.connect(each) for each in (llama_here, llama_tp2_server))
    made = {"whole": one.atlas(POINTS, ROWS, folder / "whole", **OPTIONS)}
    for name, part in CUTS.items():
        model = other if name == "late" else one
        path, begin = folder / name, part.start
        made[name] = model.atlas(POINTS, ROWS[part], path, first_document=begin, **OPTIONS)
    one.close(), other.close()
    return made


@pytest.fixture(scope="module")
def merged(made: dict[str, garcon.Atlas], tmp_path_factory: pytest.TempPathFactory) -> garcon.Atlas:
    """In two steps, so that what was merged is merged again; and not in their order."""
    folder = tmp_path_factory.mktemp("merged")
    some = garcon.merge_atlases([made["last"].path, made["early"]], folder / "some")
    return garcon.merge_atlases([some, made["late"]], folder / "all")


def test_examples_are_those_of_one_pass(
    made: dict[str, garcon.Atlas], merged: garcon.Atlas
) -> None:
    whole = made["whole"]
    assert len(merged) == 160 and merged.tokens == whole.tokens
    assert merged.index["documents"] == 40
    assert merged.index["parts"] == [[0, 13], [13, 17], [30, 10]]
    assert set(merged.index["arrays"]) == set(whole.index["arrays"])
    for name in ("top_places", "top_tokens", "sample_places", "sample_tokens", "fired"):
        assert np.array_equal(merged.array(name), whole.array(name)), name
    for name in ("top_values", "top_around", "sample_values", "sample_around"):
        assert np.allclose(merged.array(name), whole.array(name), atol=1e-5, equal_nan=True), name
    # A value at the edge of a bin may be on its other side.
    assert np.abs(merged.array("histogram") - whole.array("histogram")).sum(1).max() <= 4


def test_records_show_the_right_text(merged: garcon.Atlas, llama_here: ModelHere) -> None:
    """By document and offset, in the whole data."""
    model = garcon.connect(llama_here)
    documents = set()
    for unit in (0, 7, 79):
        for example in merged[POINTS[1], unit].examples:
            ids = ROWS[example.document].tolist()
            begin = example.offset - example.at
            assert example.ids == ids[begin : begin + len(example.ids)]
            assert example.tokens == model.token_strings([example.ids])[0]
            documents.add(example.document)
    assert any(document >= 13 for document in documents)
    model.close()


def test_numbers_are_those_of_one_pass(made: dict[str, garcon.Atlas], merged: garcon.Atlas) -> None:
    whole = made["whole"]
    for column in range(6):
        one, other = (np.array(atlas.array("moments")[:, column]) for atlas in (merged, whole))
        assert close(torch.from_numpy(one), torch.from_numpy(other)), column
    assert np.allclose(merged.array("pairs"), whole.array("pairs"), atol=2e-5, equal_nan=True)
    assert np.allclose(merged.array("correlations"), whole.array("correlations"), atol=2e-5)
    assert np.array_equal(merged.array("sketch_signs"), whole.array("sketch_signs"))
    told = [atlas[POINTS[0], unit].across for atlas in (merged, whole) for unit in range(80)]
    values = [{one[:2]: one[2] for one in found} for found in told]
    for mine, theirs in zip(values[:80], values[80:], strict=True):
        shared = set(mine) & set(theirs)
        assert len(shared) >= 0.8 * max(len(mine), len(theirs))
        assert all(abs(mine[unit] - theirs[unit]) < 1e-4 for unit in shared)
    assert np.array_equal(merged.array("logits_up"), whole.array("logits_up"))


def test_documents_that_are_all_numbered_from_zero_are_refused(
    made: dict[str, garcon.Atlas], tmp_path: Path
) -> None:
    """Else a document of one would pass for that of another."""
    with pytest.raises(garcon.BadData, match="Documents 0 to 12 are in two of these atlases"):
        garcon.merge_atlases([made["early"], made["whole"]], tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_part_elsewhere_has_another_sample(
    made: dict[str, garcon.Atlas], llama_here: ModelHere, tmp_path: Path
) -> None:
    """What is drawn depends on the numbers of the documents: the comparison notices wrong ones."""
    model = garcon.connect(llama_here)
    wrong = model.atlas(POINTS, ROWS[13:30], tmp_path / "a", first_document=14, **OPTIONS)
    assert not np.array_equal(
        wrong.array("sample_places"), made["late"].array("sample_places") + (1 << 32)
    )
    with pytest.raises(garcon.BadData, match="Documents 30 to 30 are in two"):
        garcon.merge_atlases([wrong, made["last"]], tmp_path / "b")
    model.close()


def test_what_does_not_go_together(made: dict[str, garcon.Atlas], tmp_path: Path) -> None:
    with pytest.raises(garcon.BadData, match="no atlases to merge"):
        garcon.merge_atlases([], tmp_path / "a")
    with pytest.raises(garcon.BadData, match="is one of those to merge"):
        garcon.merge_atlases([made["early"], made["late"]], made["late"].path)

    def changed(name: str, change: dict[str, Any]) -> garcon.Atlas:
        path = shutil.copytree(made[name].path, tmp_path / str(len(list(tmp_path.iterdir()))))
        atlas = garcon.open_atlas(path)
        atlas.index.update(change)
        return atlas

    def merge(*atlases: garcon.Atlas) -> garcon.Atlas:
        return garcon.merge_atlases(atlases, tmp_path / "merged")

    with pytest.raises(garcon.BadData, match="differ in their k"):
        merge(made["early"], changed("late", {"k": 5}))
    other = changed("late", {})
    other.vocabulary[7] = "another"
    with pytest.raises(garcon.BadData, match="are of two models"):
        merge(made["early"], other)
    usual = {name: changed(name, {}) for name in ("early", "late")}
    for atlas in usual.values():
        for what in ("pairs", "sketch_sums", "sketch_signs"):
            del atlas.index["arrays"][what]
    with pytest.raises(garcon.BadData, match="strongest correlations only.*mergeable=True"):
        merge(*usual.values())
