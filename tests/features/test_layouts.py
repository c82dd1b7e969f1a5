"""Files for Neuronpedia and delphi, read by those two where they are installed, and as their source reads them."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import ActivationStore
from garcon_jupyter.atlas import layouts
from tests.features.conftest import LATENTS, POINT, latents, made

Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def path(dictionary: Make) -> Path:
    return dictionary("topk")


@pytest.fixture(scope="module")
def atlas(
    acts: ActivationStore, path: Path, tmp_path_factory: pytest.TempPathFactory
) -> garcon.Atlas:
    vocabulary = [f" t{n}" for n in range(300)]
    return made(acts, tmp_path_factory.mktemp("atlas") / "a", path, None, vocabulary=vocabulary)


def test_delphi_finds_the_latents_values_in_the_windows(
    atlas: garcon.Atlas, acts: ActivationStore, path: Path, tmp_path: Path
) -> None:
    where = layouts.to_delphi(atlas, tmp_path / "delphi", files=3, model="a/model")
    module = where / POINT
    files = sorted(module.glob("*.safetensors"), key=lambda file: int(file.stem.split("_")[0]))
    assert [file.name for file in files] == ["0_199.safetensors", "200_399.safetensors", "400_599.safetensors"]  # fmt: skip
    told = json.loads((module / "config.json").read_text())
    assert told["ctx_len"] == 6 and told["model_name"] == "a/model"
    values, rows = latents(acts, path), acts.read(0, len(acts))
    row_of = {int(place): row for row, place in enumerate(rows.place)}
    seen = set()
    for file in files:
        first = int(file.stem.split("_")[0])
        part = load_file(file)
        assert part["locations"].dtype == np.uint16 and part["tokens"].dtype == np.uint16
        assert len(part["locations"]) == len(part["activations"])
        for context, at, latent in part["locations"][::97].astype(int):
            assert 0 <= at < 6 and context < len(part["tokens"]) and latent + first < LATENTS
        seen |= set((part["locations"][:, 2].astype(int) + first).tolist())
    assert seen == set(atlas.array("fired").nonzero()[0].tolist())
    # One latent, worked out from the atlas's own examples and the dictionary's values.
    unit = int(atlas.array("fired").argmax())
    record = atlas[POINT, unit]
    part = load_file(files[unit // 200])
    mine = part["locations"][:, 2] == unit % 200
    found = part["activations"][mine].astype(np.float32)
    expected = []
    for place in {one.document << 32 | one.offset for one in (*record.examples, *record.sample)}:
        near = [row_of[p] for p in range(place - 3, place + 3) if p in row_of and p >> 32 == place >> 32]  # fmt: skip
        expected += [v for v in values[near, unit] if v > 1e-5]
    assert np.allclose(np.sort(found), np.sort(expected), rtol=2e-3)
    with pytest.raises(garcon.BadData, match=r"holds something"):
        layouts.to_delphi(atlas, tmp_path / "delphi")


@pytest.mark.skipif(importlib.util.find_spec("delphi") is None, reason="delphi is not installed")
def test_delphis_own_reader_reads_it(atlas: garcon.Atlas, tmp_path: Path) -> None:
    loader = importlib.import_module("delphi.latents.loader")
    where = layouts.to_delphi(atlas, tmp_path / "delphi", files=2)
    count = 0
    for file in sorted((where / POINT).glob("*.safetensors")):
        for data in loader.TensorBuffer(str(file), POINT):
            record = atlas[POINT, data.latent.latent_index]
            assert float(data.activation_data.activations.max()) == pytest.approx(
                record.examples[0].value, rel=1e-3
            )
            count += 1
    assert count == (atlas.array("fired") > 0).sum()


def test_neuronpedia_gets_batches_of_features(atlas: garcon.Atlas, tmp_path: Path) -> None:
    files = layouts.to_neuronpedia(atlas, tmp_path / "np", "tiny", "mine")
    fired = atlas.array("fired").nonzero()[0]
    assert [file.name for file in files] == [
        f"batch-{n}.json" for n in range(-(-len(fired) // 128))
    ]
    batches = [json.loads(file.read_text()) for file in files]
    assert [f["feature_index"] for b in batches for f in b["features"]] == fired.tolist()
    assert {(b["model_id"], b["layer"], b["sae_set"]) for b in batches} == {("tiny", 0, "mine")}
    feature = batches[0]["features"][3]
    record = atlas[POINT, feature["feature_index"]]
    top = [a for a in feature["activations"] if a["bin_min"] == -1]
    assert [a["values"][a["qualifying_token_index"]] for a in top] == [
        pytest.approx(one.value) for one in record.examples
    ]
    rest = [a for a in feature["activations"] if a["bin_min"] >= 0]
    for one in rest:
        value = one["values"][one["qualifying_token_index"]]
        assert one["bin_min"] * 0.999 <= value <= one["bin_max"] * 1.001
        assert len(one["tokens"]) == len(one["values"]) and one["tokens"][0].startswith(" t")
    shares = {one["bin_min"]: one["bin_contains"] for one in rest}
    assert 0 < sum(shares.values()) <= 1.001
    assert sum(feature["freq_hist_data_bar_heights"]) > 0 and feature["frac_nonzero"] == record.rate


@pytest.mark.skipif(
    importlib.util.find_spec("sae_dashboard") is None, reason="SAEDashboard is not installed"
)
def test_saedashboards_own_class_reads_them(atlas: garcon.Atlas, tmp_path: Path) -> None:
    module = importlib.import_module("sae_dashboard.neuronpedia.neuronpedia_dashboard")
    file = layouts.to_neuronpedia(atlas, tmp_path / "np", "tiny", "mine", units=[3, 4])[0]
    batch = module.NeuronpediaDashboardBatch(**json.loads(file.read_text()))
    assert [f.feature_index for f in batch.features] == [3, 4]
    again = json.loads(json.dumps([f.to_dict() for f in batch.features]))
    assert again == json.loads(file.read_text())["features"]
