"""The neuron atlas: every number in it against the model's own values."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere
from garcon_jupyter import experiments
from garcon_jupyter.atlas import exports, making
from garcon_jupyter.atlas.writing import writing
from garcon_jupyter.display import atlas as display_atlas
from garcon_jupyter.experiments.connectivity.connectome.files import Connectome
from garcon_jupyter.experiments.connectivity.connectome.tables import TABLES
from garcon_jupyter.widgets import NeuronWidget
from tests.widgets.conftest import _read_svg as read_svg

POINTS = ["layers.0.mlp.post_activation", "layers.2.mlp.post_activation"]
ROWS = np.random.default_rng(3).integers(3, 263, size=(24, 14))


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.value = tensor


@pytest.fixture(scope="module")
def model(llama_here: ModelHere) -> Iterator[garcon.RemoteModel]:
    model = garcon.connect(llama_here)
    yield model
    model.close()


@pytest.fixture(scope="module")
def atlas(model: garcon.RemoteModel, tmp_path_factory: pytest.TempPathFactory) -> garcon.Atlas:
    path = tmp_path_factory.mktemp("atlas") / "tiny"
    options = {"k": 6, "before": 3, "after": 2, "batch_tokens": 60, "show": False}
    model.atlas("layers.{0,2}.mlp.post_activation", ROWS, path, **options)
    return garcon.open_atlas(path)


@pytest.fixture(scope="module")
def values(model: garcon.RemoteModel) -> dict[str, Tensor]:
    """All values, [rows, tokens, units], by point."""
    garcon.ship(__import__(__name__, fromlist=["_"]))
    model.forward(ROWS, [model.probe_points[p].probe(keep, name="all") for p in POINTS])
    return {point: model.recordings()[point, "all"].value for point in POINTS}


def test_examples_with_the_tokens_around_them(
    atlas: garcon.Atlas, values: dict[str, Tensor]
) -> None:
    assert len(atlas) == 160 and atlas.points == POINTS and atlas.tokens == ROWS.size
    for point, unit in ((POINTS[0], 0), (POINTS[1], 79), (POINTS[1], 5)):
        record = atlas[point, unit]
        mine = values[point][:, :, unit]
        best = mine.flatten().topk(6).values
        found = record.examples
        assert torch.allclose(torch.tensor([one.value for one in found]), best, atol=1e-5)
        for one in found:
            stretch = slice(max(0, one.offset - 3), one.offset + 3)
            assert one.ids == ROWS[one.document, stretch].tolist()
            assert one.at == one.offset - stretch.start
            expected = mine[one.document, stretch]
            assert torch.allclose(torch.tensor(one.values), expected, atol=1e-5)


def test_statistics(atlas: garcon.Atlas, values: dict[str, Tensor]) -> None:
    for point in POINTS:
        flat = values[point].flatten(0, 1).double()
        correlation = np.corrcoef(flat.T.numpy())
        np.fill_diagonal(correlation, 0)
        for unit in (0, 33, 79):
            record, x = atlas[point, unit], flat[:, unit]
            assert record.rate == float((x > 0).double().mean())
            assert record.moments["mean"] == pytest.approx(float(x.mean()), abs=1e-6)
            assert record.moments["variance"] == pytest.approx(float(x.var(correction=0)), 1e-4)
            counts, edges = record.histogram
            assert counts.sum() == ROWS.size and len(edges) == len(counts) + 1
            other, value = record.correlated[0]
            assert abs(value) == pytest.approx(np.abs(correlation[unit]).max(), abs=1e-4)
            assert correlation[unit, other] == pytest.approx(value, abs=1e-4)


def test_logits(atlas: garcon.Atlas, model: garcon.RemoteModel) -> None:
    unembed, out = (model.get_parameter(n) for n in ("unembed.weight", "layers.2.mlp.down_proj"))
    gain = model.get_parameter("final_norm.weight")
    scores = unembed @ (gain * out[:, 17])
    assert float((scores - unembed @ out[:, 17]).abs().max()) > 0.1  # the norm counts
    record = atlas[POINTS[1], 17]
    assert [value for _, value in record.logits()] == pytest.approx(scores.topk(10).values.tolist())
    lowest = scores.topk(10, largest=False).values.tolist()
    assert [value for _, value in record.logits(down=True)] == pytest.approx(lowest)
    token = int(scores.argmax())
    assert record.logits()[0][0] == model.token_strings([[token]])[0][0]


def test_units_of_other_points_that_fire_with_it(
    atlas: garcon.Atlas, values: dict[str, Tensor]
) -> None:
    """By a sketch: every correlation beyond five standard errors that is told is there."""
    one, other = (values[point].flatten(0, 1).double().T for point in POINTS)
    exact = torch.corrcoef(torch.cat([one, other]))[:80, 80:]
    error = atlas.index["sums"] ** -0.5
    told = {}
    for unit in range(80):
        for point, their, value in atlas[POINTS[0], unit].across:
            assert point == POINTS[1] and abs(value - exact[unit, their]) < 5 * 2**0.5 * error
            told[unit, their] = value
    # Of those far beyond what is kept, none is missed.
    far = [(int(a), int(b)) for a, b in (exact.abs() > 11 * error).nonzero()]
    strongest = exact.abs().topk(10, 1).values[:, -1]
    assert all(pair in told or exact[pair].abs() < strongest[pair[0]] + 0.2 for pair in far)
    assert told and all(abs(value) > 5 * error for value in told.values())


def test_intervals_go_up(atlas: garcon.Atlas) -> None:
    intervals = atlas[POINTS[0], 3].intervals
    assert [len(part) for part in intervals] == [4] * 5
    flat = [one.value for part in intervals for one in part]
    assert flat == sorted(flat)


@pytest.mark.parametrize("unit", [8, 9, 30])
def test_search_by_token(atlas: garcon.Atlas, unit: int) -> None:
    """Every word that an example shows at its token is found, also where it is a character of several tokens."""
    record = atlas[POINTS[0], unit]
    own = [one.tokens[one.at].strip() for one in record.examples]
    for word in filter(None, set(own)):
        found = atlas.search(word, at_least=own.count(word) / len(own))
        assert (POINTS[0], unit) in [(one.point, one.unit) for one in found]
        fewer = atlas.search(word, at_least=own.count(word) / len(own) + 0.01)
        assert (POINTS[0], unit) not in [(one.point, one.unit) for one in fewer]
    assert atlas.search("no such token") == []


def test_exports(atlas: garcon.Atlas) -> None:
    record = atlas[POINTS[1], 4]
    theirs = json.loads(json.dumps(exports.openai(record), allow_nan=False))
    assert theirs["neuron_id"]["layer_index"] == 2 and theirs["neuron_id"]["neuron_index"] == 4
    first = theirs["most_positive_activation_records"][0]
    assert len(first["tokens"]) == len(first["activations"])
    assert len(theirs["random_sample"]) == 20 and len(theirs["quantile_boundaries"]) == 4
    feature = json.loads(json.dumps(exports.neuronpedia(record, "tiny", "2-mlp"), allow_nan=False))
    best = feature["activations"][0]
    assert (
        feature["index"] == "4" and best["values"][best["maxValueTokenIndex"]] == best["maxValue"]
    )
    assert len(feature["pos_str"]) == len(feature["neg_values"]) == 10
    assert sum(feature["freq_hist_data_bar_heights"]) <= ROWS.size
    heights, bars = (feature[f"freq_hist_data_bar_{word}"] for word in ("heights", "values"))
    assert len(heights) == len(bars)  # Neuronpedia's page reads one by the index of the other
    assert set(feature) <= NEURONPEDIA


OPENAI = {
    "NeuronRecord": {
        "neuron_id",
        "random_sample",
        "random_sample_by_quantile",
        "quantile_boundaries",
        "mean",
        "variance",
        "skewness",
        "kurtosis",
        "most_positive_activation_records",
    },
    "NeuronId": {"layer_index", "neuron_index"},
    "ActivationRecord": {"tokens", "activations"},
}
"""The dataclasses of neuron_explainer.activations.activations, by their fields."""

NEURONPEDIA = {
    *("modelId", "layer", "index", "maxActApprox", "frac_nonzero", "activations"),
    *("correlated_neurons_indices", "correlated_neurons_pearson"),
    *("neg_str", "neg_values", "pos_str", "pos_values"),
    *("freq_hist_data_bar_heights", "freq_hist_data_bar_values"),
}
"""Fields of a neuron as Neuronpedia's pages read it."""


def test_an_export_loads_as_the_published_dataclasses(atlas: garcon.Atlas) -> None:
    """As ``neuron_explainer.fast_dataclasses.loads`` does: a class by its name, its fields and no others."""

    def load(told: dict[str, Any]) -> dict[str, Any]:
        if (name := told.pop("dataclass_name", None)) is not None:
            assert set(told) == OPENAI[name], name
        return told

    record = json.loads(json.dumps(exports.openai(atlas[POINTS[1], 4])), object_hook=load)
    samples = [one for part in record["random_sample_by_quantile"] for one in part]
    assert samples == record["random_sample"]
    boundaries = record["quantile_boundaries"]
    assert boundaries == sorted(boundaries)
    assert len(boundaries) == len(record["random_sample_by_quantile"]) - 1
    tops = [max(one["activations"]) for one in record["most_positive_activation_records"]]
    assert max(tops) == pytest.approx(atlas[POINTS[1], 4].examples[0].value)


def test_a_live_probe_on_a_text_of_yours(atlas: garcon.Atlas, model: garcon.RemoteModel) -> None:
    """The cell that a record makes, run as a notebook runs it."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_cell("%load_ext garcon_jupyter")
    shell.user_ns["rmodel"] = model
    text = ' it\'s "so" \\ on and on'
    source = atlas[POINTS[1], 17].probe_cell(text.replace(" on and", "\non and"))
    assert source.startswith(f"%%probe {POINTS[1]} --name unit_17 --on ")
    try:
        ran = shell.run_cell(source)
        assert ran.success, ran.error_in_exec
        found = model.recordings()[POINTS[1], "unit_17"].values
        model.forward(text, [model.probe_points[POINTS[1]].probe(keep, name="all")])
        assert torch.equal(found, model.recordings()[POINTS[1], "all"].value[:, :, 17])
    finally:
        model.detach()
        shell.run_cell("%unload_ext garcon_jupyter")
        InteractiveShell.clear_instance()


def test_arrays_are_mapped_and_need_no_server(atlas: garcon.Atlas) -> None:
    array = atlas.array("top_values")
    assert isinstance(array, np.memmap) and array.shape == (160, 6)
    assert set(atlas.index["arrays"]) == {file.stem for file in atlas.path.glob("*.npy")}


def test_it_opens_in_a_second_at_the_size_of_smollm2(tmp_path: Path) -> None:
    """46,080 units; of the processor's time, so that what else runs does not count."""
    units = {f"layers.{layer}.mlp.post_activation": 1536 for layer in range(30)}
    kinds = {"values": np.float32, "places": np.int64, "tokens": np.int32, "around": np.float32}
    facts = {"tokens": 200_000, "k": 20, "before": 10, "edges": ["0", "1"]}
    with writing(tmp_path, units, "") as files:
        for layer, point in enumerate(units):
            for what, kind in kinds.items():
                wide = (16,) if what in ("tokens", "around") else ()
                files.put(point, f"top_{what}", np.full((1536, 20, *wide), layer, kind))
            files.put(point, "fired", np.zeros(1536, np.int64))
        files.finish([f"word {number}" for number in range(49152)], facts)
    began = time.process_time()
    atlas = garcon.open_atlas(tmp_path)
    example = atlas["layers.29.mlp.post_activation", 1535].examples[0]
    assert time.process_time() - began < 1
    assert len(atlas) == 46_080 and example.tokens[example.at] == "word 29"
    found = atlas.search("word 7")
    assert {one.point for one in found} == {"layers.7.mlp.post_activation"} and len(found) == 1536
    assert time.process_time() - began < 2


def test_shards_give_the_same_atlas(
    atlas: garcon.Atlas, rmodel_tp2: garcon.RemoteModel, tmp_path: Path
) -> None:
    options = {"k": 6, "before": 3, "after": 2, "batch_tokens": 60, "show": False}
    other = rmodel_tp2.atlas(POINTS, ROWS, tmp_path / "other", **options)
    assert atlas.index["arrays"] == other.index["arrays"]
    for name in ("top_places", "top_tokens", "sample_places", "fired"):
        assert np.array_equal(atlas.array(name), other.array(name)), name
    assert np.allclose(atlas.array("top_values"), other.array("top_values"), atol=1e-5)


def test_memory_is_what_the_formula_says(model: garcon.RemoteModel, tmp_path: Path) -> None:
    model.atlas(POINTS, ROWS, tmp_path / "a", k=6, before=3, after=2, show=False)
    recordings = model.recordings()
    names = ("topk", "equal_count", "histogram", "firing", "moments", "covariance", "sketch")
    held = sum(getattr(recordings[p, "atlas"], name).nbytes for p in POINTS for name in names)
    assert held == making.memory(160, 80, k=6, window=6, points=2)
    # Without correlations nothing of pairs is there, no mean of a unit either.
    model.atlas(
        POINTS[0], ROWS, tmp_path / "b", k=6, before=3, after=2, correlated=False, show=False
    )
    alone = model.recordings()[POINTS[0], "atlas"]
    held = sum(getattr(alone, name).nbytes for name in alone.keys())  # noqa: SIM118 - no dictionary
    assert held == making.memory(80, 0, k=6, window=6)


def test_a_dashboard_shows_what_the_atlas_has(atlas: garcon.Atlas) -> None:
    record = atlas[POINTS[1], 17]
    widget = record.show()
    shown = widget.record
    assert [example["values"] for example in shown["top"]] == [
        one.values for one in record.examples
    ]
    assert shown["up"][0][1] == pytest.approx(record.logits()[0][1])
    counts, edges = record.histogram
    assert sum(shown["histogram"]["counts"]) == counts[edges[:-1] > 0].sum()
    assert "unit 17" in widget.still()
    widget.close()


def test_a_page_to_pick_units_on(atlas: garcon.Atlas) -> None:
    page = atlas.browse()
    (point, unit), (token, found) = (row.children for row in page.children[:2])
    shown = [one.tokens[one.at].strip() for one in atlas[POINTS[1], 8].examples]
    token.value = next(filter(None, shown))
    wanted = [(one.point, one.unit) for one in atlas.search(token.value)]
    assert [value for _, value in found.options[1:]] == wanted[:50]
    if wanted:
        found.value = wanted[0]
        assert (point.value, unit.value) == wanted[0]


@pytest.fixture(scope="module")
def connectome(model: garcon.RemoteModel, atlas: garcon.Atlas) -> Iterator[Connectome]:
    """Of the same model, beside the atlas while it lasts."""
    path = atlas.path.parent / "tiny.connectome"
    yield experiments.connectome(model, path, k=4)
    shutil.rmtree(path)


def test_connections_lead_from_page_to_page(atlas: garcon.Atlas, connectome: Connectome) -> None:
    """From a unit to one that it reads, to a head that the atlas has not, and back."""
    record = atlas[POINTS[1], 17]
    widget = record.show()
    unit = connectome.unit(POINTS[1], 17)
    kinds = {kind["name"]: kind for kind in widget.record["connections"]}
    assert [*kinds] == [TABLES[table].says for table in unit.tables]
    best = unit.strongest("gate_from_neurons")[0]
    row = kinds["gate reads neurons"]["rows"][0]
    layer = best.point.split(".")[1]
    assert row == [f"L{layer} N{best.unit}", pytest.approx(best.value), f"{best.point} {best.unit}"]
    token = kinds["raises tokens"]["rows"][0]
    assert token[2] == "" and unit.strongest("neurons_to_logits")[0].name.strip() in token[0]
    still = read_svg(widget.still())
    assert "gate reads neurons · " in still and f"L{layer} N{best.unit}" in still

    widget.wanted = f"{POINTS[0]} 5"
    widget.wait()
    assert widget.key == f"{POINTS[0]} 5" and widget.behind == f"{POINTS[1]} 17"
    assert widget.record["top"][0]["values"] == atlas[POINTS[0], 5].examples[0].values
    widget.wanted = "layers.1.attn.z 2"
    widget.wait()
    assert widget.title == "layers.1.attn.z · head 2" and "top" in widget.record
    assert not widget.record["top"] and widget.record["connections"]
    widget.wanted = f"{POINTS[1]} 17"
    widget.wait()
    assert widget.behind == "" and widget.record["top"] == record.show().record["top"]
    widget.wanted = "layers.1.attn.z 99"
    with pytest.raises(garcon.UnknownName, match="no unit 99"):
        widget.wait()
    widget.close()


def test_the_page_follows_its_links(atlas: garcon.Atlas, connectome: Connectome) -> None:
    shown: list[Any] = []
    page = atlas.browse(connectome=connectome)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            display_atlas, "NeuronWidget", lambda *a: shown.append(NeuronWidget(*a)) or shown[-1]
        )
        (point, unit), _ = (row.children for row in page.children[:2])
        unit.value = 7
        shown[-1].wanted = f"{POINTS[1]} 3"
        shown[-1].wait()
        assert (point.value, unit.value) == (POINTS[1], 3) and len(shown) == 1
        shown[-1].wanted = "layers.1.attn.z 2"  # of which the atlas has no page
        shown[-1].wait()
        assert (point.value, unit.value) == (POINTS[1], 3) and len(shown) == 1


def test_a_connectome_shows_its_units_without_an_atlas(connectome: Connectome) -> None:
    widget = connectome.show("layers.2.attn.q", 3)
    assert widget.title == "layers.2.attn.z · head 3" and widget.key == "layers.2.attn.z 3"
    assert "read by gate of neurons" in read_svg(widget.still())
    widget.wanted = widget.record["connections"][0]["rows"][0][2]
    widget.wait()
    assert widget.behind == "layers.2.attn.z 3"
    assert connectome.show().title.startswith("connectome: share")


def test_more_slots_than_tokens(model: garcon.RemoteModel, tmp_path: Path) -> None:
    atlas = model.atlas(POINTS, [[5, 6, 7]], tmp_path / "few", k=6, show=False)
    record = atlas[POINTS[0], 4]
    assert len(record.examples) == len(record.sample) == 3
    assert np.isnan(record.array("top_values")[3:]).all()
    assert json.dumps(exports.openai(record), allow_nan=False)
    assert json.dumps(exports.neuronpedia(record, "tiny", "0-mlp"), allow_nan=False)


def test_rows_that_cannot_be_read_are_named(model: garcon.RemoteModel, tmp_path: Path) -> None:
    """What was recorded before them is there, and no directory passes for an atlas."""
    file = tmp_path / "some.jsonl"
    file.write_text('{"text": "one"}\n' * 40 + '{"text": 3}\n')
    options = {"batch_tokens": 64, "length": 16, "show": False}
    with pytest.raises(garcon.BadData, match="Row 41|Line 41 of some.jsonl"):
        model.atlas(POINTS, file, tmp_path / "a", **options)
    assert model.recordings()[POINTS[0], "atlas"].firing.tokens_seen > 0
    with pytest.raises(
        garcon.BadData, match="Document 1 of the texts has .* tokens, more than 128"
    ):
        model.atlas(POINTS, ["a", "so " * 200], tmp_path / "a", packed=False, show=False)
    for empty, said in (("", "is empty"), ("\n \n", "has no tokens")):
        (tmp_path / "empty.txt").write_text(empty)
        with pytest.raises(garcon.BadData, match=said):
            model.atlas(POINTS, tmp_path / "empty.txt", tmp_path / "a", show=False)
    with pytest.raises(garcon.BadData, match="holds no atlas"):
        garcon.open_atlas(tmp_path / "a")


def test_a_disk_that_fills_leaves_what_was_recorded(
    model: garcon.RemoteModel, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(garcon.BadData, match="could not be written: File too large"):
            model.atlas(POINTS, ROWS, tmp_path / "full", show=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)
    assert model.recordings()[POINTS[0], "atlas"].topk.tokens_seen == ROWS.size
    with pytest.raises(garcon.BadData, match="holds no atlas"):
        garcon.open_atlas(tmp_path / "full")
    # With room, the same directory will do.
    assert len(model.atlas(POINTS, ROWS, tmp_path / "full", show=False)) == 160


def test_bad_input(model: garcon.RemoteModel, tmp_path: Path) -> None:
    with pytest.raises(garcon.BadData, match="holds no atlas"):
        garcon.open_atlas(tmp_path)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(garcon.BadData, match="holds something else"):
        model.atlas(POINTS, ROWS, tmp_path)
    with pytest.raises(garcon.BadData, match="output weights"):
        model.atlas("layers.0.resid_post", ROWS, tmp_path / "a", logits=True)
    with pytest.raises(garcon.BadProbe):
        model.atlas("layers.0.attn.pattern", ROWS, tmp_path / "a")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "atlas.json").write_text('{"format": 99}')
    with pytest.raises(garcon.BadData, match="format 99"):
        garcon.open_atlas(tmp_path / "newer")
