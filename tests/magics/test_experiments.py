"""Experiments as words: each shows what the function of its name finds, and keeps it in a variable."""

from __future__ import annotations

from pathlib import Path

import torch

from garcon_jupyter import experiments
from garcon_jupyter.errors import BadData, BadRequest, UnknownName
from tests.dictionaries.making import saelens
from tests.magics.conftest import Notebook


def test_composition(connected: Notebook) -> None:
    shown = connected.run("%garcon composition V")
    assert "GridWidget composition: V-composition of two heads" in shown
    expected = experiments.composition(connected["rmodel"], "V")
    assert torch.equal(connected["found"].values.nan_to_num(), expected.values.nan_to_num())
    connected.run("%garcon composition")
    assert connected["found"].facts["kind"] == "K"
    assert "invalid choice: 'W'" in connected.fails("%garcon composition W", BadRequest)


def test_its_few_choices_are_completed(connected: Notebook) -> None:
    assert connected.completions("%garcon comp") == ["composition"]
    assert connected.completions("%garcon composition ") == ["Q", "K", "V"]


def test_connectome(connected: Notebook, tmp_path: Path) -> None:
    path = tmp_path / "tiny.connectome"
    shown = connected.run(f"%garcon connectome {path} --k 3 --layers 1,2 --no-tokens")
    assert "GridWidget connectome: share of the sum of squares that the 3 strongest are" in shown
    found = connected["found"]
    assert found.path == path and [*found.points["neurons"]] == [
        f"layers.{layer}.mlp.post_activation" for layer in (1, 2)
    ]
    assert "gate_from_tokens" not in found.tables
    told = connected.fails(f"%garcon connectome {tmp_path}", BadData)
    assert "holds something else" in told


PAIR = '"Hello, world" "Hello, waiter"'


def test_patch(connected: Notebook) -> None:
    shown = connected.run(
        f'%garcon patch {PAIR} layers.*.attn.z --by layer,head --answers "a" "b" --noise'
    )
    assert "GridWidget patch: " in shown
    expected = connected["rmodel"].experiments.patch(
        "Hello, world",
        "Hello, waiter",
        "layers.*.attn.z",
        by=("layer", "head"),
        answers=("a", "b"),
        denoise=False,
    )
    assert torch.equal(connected["found"].values, expected.values)
    assert "no head" in connected.fails(f"%garcon patch {PAIR} embed.out --by head", BadRequest)


def test_path_patch(connected: Notebook) -> None:
    connected.run(f"%garcon path-patch {PAIR} layers.*.attn.z --to layers.3.attn.v:0 --answers a b")
    expected = connected["rmodel"].experiments.path_patch(
        "Hello, world",
        "Hello, waiter",
        "layers.*.attn.z",
        {"layers.3.attn.v": [0]},
        answers=("a", "b"),
    )
    found = connected["found"]
    assert found.experiment == "path_patch"
    assert torch.equal(found.values.nan_to_num(7.0), expected.values.nan_to_num(7.0))
    told = connected.fails(
        f"%garcon path-patch {PAIR} layers.*.attn.z --to embed.out:a", BadRequest
    )
    assert "argument --to: invalid" in told


def test_attribution(connected: Notebook) -> None:
    connected.run(f"%garcon attribute {PAIR} layers.*.attn.z --answers a b --method mean --check 3")
    found = connected["found"]
    assert found.experiment == "attribute" and list(found.axes) == ["layer", "head"]
    assert found.facts["method"] == "mean" and int(found.more["exact"].isfinite().sum()) == 3
    connected.run(f"%garcon attribute-edges {PAIR} --answers a b")
    assert connected["found"].experiment == "attribute_edges"


def test_reading(connected: Notebook) -> None:
    line = '%garcon direct-logit-attribution "Hello, world" --answers a b --by head'
    assert "GridWidget direct_logit_attribution: " in connected.run(line)
    expected = connected["rmodel"].experiments.direct_logit_attribution(
        "Hello, world", answers=("a", "b"), by="head"
    )
    assert torch.equal(connected["found"].values, expected.values)
    connected.run("%garcon head-scores --rows 2")
    assert list(connected["found"].axes) == ["score", "layer", "head"]


def test_effects(connected: Notebook) -> None:
    line = '%garcon effects "Hello, world" heads neurons --answers a b --strongest 7'
    assert "GridWidget effects on logit of 'a' less that of 'b'" in connected.run(line)
    expected = connected["rmodel"].experiments.effects(
        "Hello, world", ["heads", "neurons"], ("a", "b"), strongest=7
    )
    assert torch.equal(connected["found"].values.nan_to_num(7.0), expected.values.nan_to_num(7.0))
    assert "nobody" in connected.fails('%garcon effects "Hello, world" nobody', UnknownName)


def test_attribution_graph(connected: Notebook, tmp_path: Path) -> None:
    width = connected["rmodel"].catalog.sizes["D"]
    files = saelens(tmp_path / "tc", width, 12, "blocks.1.mlp.hook_in", "transcoder")
    connected["rmodel"].dictionaries.load(files, at=("layers.1.mlp.in", "layers.1.mlp.out"))
    try:
        line = (
            f'%garcon attribution-graph "Hello, world" tc --targets 4 --save {tmp_path / "g.json"}'
        )
        assert "GridWidget attribution graph: " in connected.run(line)
        assert connected["found"].facts["targets"] == 4 and (tmp_path / "g.json").exists()
    finally:
        connected["rmodel"].dictionaries.unload("tc")


def test_directions_and_views_of_a_layer(connected: Notebook) -> None:
    connected["texts"] = [f"Hello, {word} world" for word in ("a", "b", "c", "d")]
    connected["kinds"] = [0, 1, 0, 1]
    line = "%garcon linear-probe layers.*.resid_post texts kinds --method difference_of_means"
    assert "GridWidget linear_probe: " in connected.run(f"{line} --positions -2")
    expected = connected["rmodel"].experiments.linear_probe(
        "layers.*.resid_post", connected["texts"], [0, 1, 0, 1], "difference_of_means", -2
    )
    assert torch.equal(connected["found"].values, expected.values)
    assert "no variable sorts" in connected.fails(line.replace("kinds", "sorts"), BadRequest)
    assert "GridWidget pca: " in connected.run("%garcon pca layers.1.resid_post texts")
    connected.run("%garcon layout layers.1.resid_post texts --of units --massive")
    found = connected["found"]
    assert found.facts["of"] == "units" and found.facts["massive tokens are"] == "on the map"


def test_lenses(connected: Notebook, tmp_path: Path) -> None:
    rmodel = connected["rmodel"]
    lens = rmodel.experiments.fit_jacobian_lens("Hello, world", 2, skip=1)
    path = lens.save(tmp_path / "lens.safetensors")
    shown = connected.run(f'%garcon read-lens "Hello, world" --lens {path} --answer a')
    assert "GridWidget read_lens: " in shown
    expected = rmodel.experiments.read_lens("Hello, world", lens, answer="a")
    assert torch.equal(connected["found"].values.nan_to_num(), expected.values.nan_to_num())
    connected.run('%garcon read-lens "Hello, world"')
    assert connected["found"].facts["lens"] == "logit lens"
