"""Effects of latents of several points against plain transformers with plain hooks in float64, and the wrong answers that are far off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import experiments
from tests import checkpoints
from tests.dictionaries.making import cross_layer, crosscoder
from tests.dictionaries.several_by_hand import CltByHand
from tests.experiments.unit_effects.by_hand import PlainEffects
from tests.experiments.unit_effects.test_table import ANSWERS, IDS, of_unit

LAYERS, LATENTS, MANY = 4, 24, 100_000
HOOKS = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post")


@dataclass
class Both:
    """A small Llama in float64 as we serve it, with a dictionary of each kind, and as transformers has it."""

    rmodel: garcon.RemoteModel
    plain: PlainEffects
    clt: Path
    crossed: Path


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("effects")
    path = checkpoints.make("llama", folder / "model")
    rmodel = garcon.connect(open_here(path, dtype="float64"))
    width = rmodel.catalog.sizes["D"]
    clt = cross_layer(folder / "clt", width, LATENTS, LAYERS)
    crossed = crosscoder(folder / "crossed", width, LATENTS, HOOKS)
    for files in (clt, crossed):
        rmodel.dictionaries.load(files, show=False)
    return Both(rmodel, PlainEffects(path, torch.tensor(IDS), ANSWERS), clt, crossed)


def test_latents_of_a_cross_layer_transcoder_column_by_column(both: Both) -> None:
    found = experiments.effects(both.rmodel, IDS, "clt", ANSWERS, strongest=MANY)
    direction = both.plain.direction()
    for layer, right in enumerate(both.plain.cross_layer(both.clt, direction)):
        assert max(of_unit(found, f"clt@{layer} ", right).values()) < 1e-6, layer
        if layer == LAYERS - 1:
            continue
        # What is written into the own layer alone.
        own = CltByHand(both.clt).direction(layer, layer)
        alone = replace(right, written=right.activation.abs() * own.norm(dim=-1))
        assert of_unit(found, f"clt@{layer} ", alone)["write norm"] > 1e-2
        alone = replace(right, direct=right.activation * (own @ direction))
        assert of_unit(found, f"clt@{layer} ", alone)["direct effect"] > 1e-2
    assert (
        found.facts["limits"]
        == experiments.effects(both.rmodel, IDS, "heads", ANSWERS, strongest=1).facts["limits"]
    )


def test_ablation_is_a_run_without_the_latent_in_all_its_layers(both: Both) -> None:
    found = experiments.effects(both.rmodel, IDS, ["clt", "heads"], ANSWERS, strongest=40)
    clean, told = both.plain.metric(), 0
    for row, position in found.values.isfinite().nonzero().tolist():
        unit = str(found.axes["unit"][row])
        if not unit.startswith("clt@") or told > 6:
            continue
        layer, latent = map(int, unit.removeprefix("clt@").split())
        without = both.plain.without_crossing(both.clt, layer, position, latent)
        ours = float(found.more["total effect"][row, position])
        assert ours == pytest.approx(float(clean - without), rel=1e-5, abs=1e-7)
        told += 1
    assert told > 2


def test_all_latents_of_all_layers_are_the_outputs(both: Both) -> None:
    """Σ over layers of activation × gradient, error and bias is Σ output × gradient."""
    found = experiments.effects(both.rmodel, IDS, "clt", ANSWERS, strongest=1)
    sums = found.facts["sums"]
    assert sums.keys() == {"clt"}
    wanted = float(both.plain.outputs_by_gradient("mlp"))
    assert sum(sums["clt"].values()) == pytest.approx(wanted, rel=1e-6)
    assert sums["clt"]["latents"] + sums["clt"]["error"] != pytest.approx(wanted, rel=1e-4)


def test_latents_of_a_crosscoder_by_way_of_its_last_point(both: Both) -> None:
    found = experiments.effects(both.rmodel, IDS, "crossed", ANSWERS, strongest=MANY)
    right = both.plain.crosscoder(both.crossed, both.plain.direction())
    assert max(of_unit(found, "crossed ", right).values()) < 1e-6
    assert any("layers.2.resid_post, where it reads last" in s for s in found.facts["limits"])


def test_over_ranks(either: garcon.RemoteModel, tmp_path: Path, llama_path: Path) -> None:
    """Two ranks, each with a part of the latents of every layer, tell what one tells."""
    files = cross_layer(tmp_path / "cut", either.catalog.sizes["D"], LATENTS, LAYERS)
    either.dictionaries.load(files, show=False)
    try:
        found = experiments.effects(either, IDS, "cut", ANSWERS, strongest=200)
    finally:
        either.dictionaries.unload("cut")
    plain = PlainEffects(llama_path, torch.tensor(IDS), ANSWERS)
    for layer, right in enumerate(plain.cross_layer(files, plain.direction())):
        assert max(of_unit(found, f"cut@{layer} ", right).values()) < 1e-3, layer
