"""Features asked of a served model: by a dictionary's name, its files, or a point; of a store or of data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.dictionaries import load
from garcon_backend.in_process import ModelHere
from garcon_jupyter.cli import app
from tests.dictionaries.making import saelens
from tests.features.conftest import content
from tests.magics.conftest import Notebook
from tests.magics.conftest import connected as connected
from tests.magics.conftest import notebook as notebook

ROWS = np.random.default_rng(3).integers(3, 263, size=(40, 14))
NEURONS = "layers.2.mlp.post_activation"
RESID = "layers.1.resid_post"
WINDOW = {"k": 6, "before": 3, "after": 2}


@pytest.fixture(scope="module")
def model(llama_here: ModelHere) -> Iterator[garcon.RemoteModel]:
    model = garcon.connect(llama_here)
    yield model
    model.close()


@pytest.fixture(scope="module")
def files(model: garcon.RemoteModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    width = model.catalog.sizes["D"]
    return saelens(tmp_path_factory.mktemp("sae") / "mine", width, 80, "blocks.1.hook_resid_post")


def test_a_point_has_the_examples_of_its_atlas_to_the_last_bit(
    model: garcon.RemoteModel, tmp_path: Path
) -> None:
    store = model.store(NEURONS, ROWS, tmp_path / "acts", dtype="float32", show=False)
    mine = model.features(NEURONS, store, tmp_path / "mine", sample=30, show=False, **WINDOW)
    atlas = model.atlas(NEURONS, ROWS, tmp_path / "atlas", show=False, **WINDOW)
    assert mine.points == atlas.points and mine.vocabulary == atlas.vocabulary
    positive = (atlas.array("top_values") > 0).all(1)
    assert positive.mean() > 0.9
    for what in ("values", "places", "tokens", "around"):
        one, other = mine.array(f"top_{what}"), atlas.array(f"top_{what}")
        assert np.array_equal(one[positive], other[positive], equal_nan=True)
    assert np.array_equal(mine.array("histogram"), atlas.array("histogram"))
    assert np.array_equal(mine.array("fired"), atlas.array("fired"))
    assert np.allclose(mine.array("moments"), atlas.array("moments"))
    assert mine.edges.tolist() == atlas.edges.tolist()


def test_a_dictionary_by_name_by_files_and_of_data(
    model: garcon.RemoteModel, files: Path, tmp_path: Path
) -> None:
    options = {"sample": 30, "show": False, **WINDOW}
    texts = ["Paris is the capital of France.", "Rome is in Italy, and the sun shines."] * 8
    store = model.store([RESID, NEURONS], texts, tmp_path / "acts", show=False)
    sae = model.dictionaries.load(files, show=False)
    one = model.features(sae, tmp_path / "acts", tmp_path / "one", **options)
    assert one.points == [f"{RESID}.sae.mine.latents"] and len(one) == 80
    values = load(files).encode(store.read(0, len(store), points=RESID).activations.float())
    fired = (values > 0).sum(0).numpy()
    assert np.abs(one.array("fired") - fired).max() <= 1
    best = values.max(0).values.numpy()
    there = best > 0
    assert np.allclose(one.array("top_values")[there, 0], best[there], rtol=1e-5)
    assert content(model.features("mine", store, tmp_path / "two", **options)) == content(one)
    model.dictionaries.unload("mine")
    three = model.features(str(files), texts, tmp_path / "three", **options)
    assert np.array_equal(three.array("top_places"), one.array("top_places"))
    assert not (tmp_path / "three.acts").exists()
    assert "mine" not in model.dictionaries  # which was read to know where it belongs
    record = one[one.points[0], int(fired.argmax())]
    assert "".join(record.examples[0].tokens).strip()
    with pytest.raises(garcon.BadRequest, match=r"batch_tokens are options of data"):
        model.features(str(files), store, tmp_path / "four", batch_tokens=9, show=False)
    with pytest.raises(garcon.UnknownPoint):
        model.features("layers.1.resid_pots", store, tmp_path / "four", show=False)


def test_the_command_and_the_magic(
    connected: Notebook, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = connected["rmodel"]
    model.store(RESID, ROWS, tmp_path / "acts", show=False)
    where = f"{tmp_path / 'acts'} {tmp_path / 'by-magic'}"
    shown = connected.run(f"%garcon features {files} {where} -k 4 --sample 30 --without-first")
    assert "80 units" in shown and "one pass" in shown
    found = connected["features"]
    assert isinstance(found, garcon.Atlas) and found.index["without"] == ["first"]
    given = ["features", str(files), str(tmp_path / "acts"), str(tmp_path / "by-command")]
    assert app.main([*given, "-k", "4", "--sample", "30", "--without-first"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("<atlas of 80 units") and "80 units, 560 tokens" in err
    other = garcon.open_atlas(tmp_path / "by-command")
    assert np.array_equal(other.array("sample_places"), found.array("sample_places"))
    given = ["features", "-", str(tmp_path / "acts"), str(tmp_path / "units"), "-k", "2"]
    assert app.main(given) == 0
    assert len(garcon.open_atlas(tmp_path / "units")) == model.catalog.sizes["D"]
    mixed = f"{tmp_path / 'acts'} {tmp_path / 'mixed'}"
    connected.run(f"%garcon shuffle {mixed} --seed 7")
    assert connected["mixed"].seed == 7 and len(connected["mixed"]) == ROWS.size
    assert app.main(["features", "-", str(tmp_path / "mixed"), str(tmp_path / "no")]) == 1
    assert "is shuffled, so no text stands around" in capsys.readouterr().err
    assert torch.equal(
        connected["mixed"].read(0, 3).token, garcon.open_store(tmp_path / "mixed").read(0, 3).token
    )
