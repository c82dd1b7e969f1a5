"""The table of effects against plain transformers with plain hooks in float64, and the wrong answers that it must not give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import open_here
from garcon_jupyter import BadRequest, UnknownName, experiments
from tests import checkpoints
from tests.dictionaries.making import saelens
from tests.experiments.unit_effects.by_hand import Coder, Numbers, PlainEffects

IDS = [[0, 40, 41, 42, 99, 7, 41]]
ANSWERS = (17, 23)
MANY = 100_000


@dataclass
class Both:
    """A small Llama in float64 as we serve it, with a dictionary after layer 1, and as transformers has it."""

    rmodel: garcon.RemoteModel
    plain: PlainEffects
    coder: Coder


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("effects")
    path = checkpoints.make("llama", folder / "model")
    rmodel = garcon.connect(open_here(path, dtype="float64"))
    width = rmodel.catalog.sizes["D"]
    files = saelens(folder / "sae", width, 64, "blocks.1.hook_resid_post")
    rmodel.dictionaries.load(files)
    mapped = saelens(folder / "tc", width, 40, "blocks.2.mlp.hook_in", "transcoder")
    rmodel.dictionaries.load(mapped, at=("layers.2.mlp.in", "layers.2.mlp.out"))
    plain = PlainEffects(path, torch.tensor(IDS), ANSWERS)
    return Both(rmodel, plain, Coder.of(files))


def of_unit(found: experiments.ExperimentResult, label: str, right: Numbers) -> dict[str, Tensor]:
    """For each column the largest difference from what is right, over all places that are told; nothing told, nothing right."""
    columns = {
        "activation": right.activation,
        "write norm": right.written,
        "direct effect": right.direct,
        "value": right.by_gradient,
    }
    mine = {**found.more, "value": found.values}
    rows = [row for row, unit in enumerate(found.axes["unit"]) if str(unit).startswith(label)]
    numbers = [int(str(found.axes["unit"][row])[len(label) :]) for row in rows]
    assert rows
    worst = {}
    for name, theirs in columns.items():
        ours = mine[name][rows].T
        there = ours.isfinite()
        assert bool(there.any())
        worst[name] = ((ours - theirs[:, numbers])[there].abs().max()) / theirs.abs().max()
    return worst


def test_latents_column_by_column(both: Both) -> None:
    found = experiments.effects(both.rmodel, IDS, "sae", ANSWERS, strongest=60)
    right = both.plain.latents(both.coder, 1, both.plain.direction())
    worst = of_unit(found, "sae ", right)
    assert max(worst.values()) < 1e-6
    assert found.facts["metric"] == pytest.approx(float(right.metric), rel=1e-5, abs=1e-7)
    told = found.values.isfinite()
    assert int(told.sum()) == 60
    # No unit that is stronger was left out.
    assert float(found.values[told].abs().min()) == pytest.approx(
        float(right.by_gradient.abs().flatten().sort(descending=True).values[59]), rel=1e-6
    )


def test_the_wrong_columns_are_far_off(both: Both) -> None:
    """The encoder's bias left out, the norm's denominator not held, the decoder's length left out."""
    found = experiments.effects(both.rmodel, IDS, "sae", ANSWERS, strongest=60)
    plain, coder = both.plain, both.coder
    right = plain.latents(coder, 1, plain.direction())
    unbiased = Coder(coder.W_enc, torch.zeros_like(coder.b_enc), coder.W_dec, coder.b_dec)
    assert (
        of_unit(found, "sae ", plain.latents(unbiased, 1, plain.direction()))["activation"] > 1e-2
    )
    loose = plain.latents(coder, 1, plain.direction(held=False))
    assert of_unit(found, "sae ", loose)["direct effect"] > 1e-2
    bare = Numbers(
        right.activation, right.activation, right.by_gradient, right.direct, right.metric
    )
    assert of_unit(found, "sae ", bare)["write norm"] > 1e-2


def test_ablation_is_a_run_without_the_latent(both: Both) -> None:
    found = experiments.effects(both.rmodel, IDS, "sae", ANSWERS, strongest=12)
    clean = both.plain.metric()
    rows, positions = found.values.isfinite().nonzero(as_tuple=True)
    for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
        latent = int(str(found.axes["unit"][row]).split()[1])
        without = both.plain.without_latent(both.coder, 1, position, latent)
        ours = float(found.more["total effect"][row, position])
        assert ours == pytest.approx(float(clean - without), rel=1e-5, abs=1e-7)


def test_all_latents_with_error_and_bias_are_the_output(both: Both) -> None:
    """Σ activation × gradient + error × gradient + bias × gradient = output × gradient."""
    plain, coder = both.plain, both.coder
    kept: list[Tensor] = []

    def leaf(x: Tensor) -> Tensor:
        kept.append(x.detach().requires_grad_())
        return kept[0]

    with plain.hooked("model.layers.1", leaf, output=True):
        metric = plain.metric()
    (gradient,) = torch.autograd.grad(metric, kept[0])
    x, codes = kept[0].detach(), coder.encode(kept[0].detach())
    found = experiments.effects(both.rmodel, IDS, "sae", ANSWERS, strongest=1)
    sums = found.facts["sums"]["sae"]
    assert sums["bias"] == pytest.approx(float((coder.b_dec * gradient).sum()), rel=1e-6)
    error = x - codes @ coder.W_dec - coder.b_dec
    assert sums["error"] == pytest.approx(float((error * gradient).sum()), rel=1e-6)
    assert sum(sums.values()) == pytest.approx(float((x * gradient).sum()), rel=1e-6)
    # Without its bias, or without what it lacks, it is not.
    assert sums["latents"] + sums["error"] != pytest.approx(sum(sums.values()), rel=1e-4)
    assert sums["latents"] + sums["bias"] != pytest.approx(sum(sums.values()), rel=1e-2)


def test_heads_and_neurons(both: Both) -> None:
    plain, sizes = both.plain, both.rmodel.catalog.sizes
    found = experiments.effects(both.rmodel, IDS, ["heads", "neurons"], ANSWERS, strongest=MANY)
    direction, clean = plain.direction(), plain.metric()
    for layer in (0, 3):
        for label, path, units in (
            (f"head {layer}.", f"model.layers.{layer}.self_attn.o_proj", sizes["H"]),
            (f"neuron {layer}.", f"model.layers.{layer}.mlp.down_proj", sizes["M"]),
        ):
            right = plain.inner(path, units, direction)
            assert max(of_unit(found, label, right).values()) < 1e-6
            ours = float(found.at(unit=f"{label}2", position=6))
            assert ours == pytest.approx(float(right.by_gradient[6, 2]), rel=1e-6)
            lost = float(clean - plain.without_inner(path, units, 6, 2))
            row = found.axes["unit"].index(f"{label}2")
            assert float(found.more["total effect"][row, 6]) == pytest.approx(
                lost, rel=1e-5, abs=1e-7
            )
    heads = experiments.direct_logit_attribution(both.rmodel, IDS, ANSWERS, by="head")
    mine = [
        [
            float(found.more["direct effect"][found.axes["unit"].index(f"head {i}.{h}"), -1])
            for h in range(sizes["H"])
        ]
        for i in range(4)
    ]
    assert torch.allclose(torch.tensor(mine), heads.values, atol=1e-5)


def test_a_metric_of_ones_own_and_other_orders(both: Both) -> None:
    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1, 17] - logits[:, -1, 23]

    by_answers = experiments.effects(both.rmodel, IDS, "sae", ANSWERS, strongest=9)
    own = experiments.effects(both.rmodel, IDS, "sae", metric=metric, strongest=9)
    assert own.axes == by_answers.axes and own.facts["answers"] is None
    for name, values in by_answers.more.items():
        assert torch.allclose(own.more[name], values, atol=1e-7, equal_nan=True)
    direct = experiments.effects(both.rmodel, IDS, "sae", ANSWERS, strongest=5, by="direct effect")
    at = direct.values.isfinite().nonzero()
    assert set(at[:, 1].tolist()) == {6}  # where the answer is
    active = experiments.effects(
        both.rmodel, IDS, ["sae", "tc"], ANSWERS, strongest=5, by="activation"
    )
    assert bool((active.more["activation"].nan_to_num(7.0) > 1).all())
    assert active.facts["sums"].keys() == {"sae", "tc"}


def test_it_is_saved_shown_and_a_table(both: Both, tmp_path: Path) -> None:
    found = experiments.effects(both.rmodel, IDS, ["sae", "heads"], ANSWERS, strongest=8)
    again = experiments.load(found.save(tmp_path / "effects.npz"))
    assert torch.equal(again.values.nan_to_num(9.0), found.values.nan_to_num(9.0))
    table = again.to_frame()
    assert len(table) == 8 and not table.isna().any().any()
    strings = both.rmodel.token_strings(IDS)[0]
    for _, row in table.iterrows():
        assert row["position name"] == strings[row["position"]]
    picture = again.show()
    assert picture.values_of("total effect").array.shape == found.values.shape
    ((unit, position),) = [(row, col) for row, col in found.values.isfinite().nonzero().tolist()][
        :1
    ]
    picture.selected_row, picture.selected_column = unit, position
    assert "total effect" in picture.detail["text"]
    assert str(found.axes["unit"][unit]) in picture.detail["title"]
    assert "<svg" in picture.still() or "<img" in picture.still()
    assert not both.rmodel.recordings()


def test_what_cannot_be_told(both: Both, tmp_path: Path) -> None:
    tell = experiments.effects
    with pytest.raises(UnknownName, match="sea"):
        tell(both.rmodel, IDS, "sea", ANSWERS)
    with pytest.raises(BadRequest, match="twice"):
        tell(both.rmodel, IDS, ["sae", "sae"], ANSWERS)
    with pytest.raises(BadRequest, match="strongest=0"):
        tell(both.rmodel, IDS, "sae", ANSWERS, strongest=0)
    with pytest.raises(BadRequest, match="by='size'"):
        tell(both.rmodel, IDS, "sae", ANSWERS, by="size")
    with pytest.raises(BadRequest, match="no token 900000"):
        tell(both.rmodel, IDS, "sae", (1, 900_000))
    with pytest.raises(BadRequest, match="both|Both"):
        tell(both.rmodel, IDS, "sae", (5, 5))
    inside = saelens(
        tmp_path / "inside", both.rmodel.catalog.sizes["D"], 16, "blocks.1.mlp.hook_in"
    )
    both.rmodel.dictionaries.load(inside, at="layers.1.mlp.in")
    try:
        found = tell(both.rmodel, IDS, "inside", ANSWERS, strongest=4)
        assert bool(found.more["direct effect"].isnan().all())
        assert any("no direct effects of inside" in limit for limit in found.facts["limits"])
        with pytest.raises(BadRequest, match="direct effect"):
            tell(both.rmodel, IDS, "inside", ANSWERS, by="direct effect")
    finally:
        both.rmodel.dictionaries.unload("inside")


def test_within_a_splice_gradients_are_its_own(both: Both) -> None:
    live = experiments.effects(both.rmodel, IDS, ["sae", "tc"], ANSWERS, strongest=30)
    with both.rmodel.spliced("tc", error="frozen"):
        frozen = experiments.effects(both.rmodel, IDS, ["sae", "tc"], ANSWERS, strongest=30)
    with both.rmodel.spliced("tc", error="none"):
        bare = experiments.effects(both.rmodel, IDS, "tc", ANSWERS, strongest=30)
    assert frozen.facts["metric"] == pytest.approx(live.facts["metric"], rel=1e-5, abs=1e-7)
    assert frozen.facts["sums"]["sae"]["latents"] != pytest.approx(
        live.facts["sums"]["sae"]["latents"], rel=1e-3
    )
    assert bare.facts["metric"] != pytest.approx(live.facts["metric"], rel=1e-3)
    assert not bare.facts["sums"]


def test_over_ranks(either: garcon.RemoteModel, tmp_path: Path, llama_path: Path) -> None:
    """Two ranks, each with a part of heads, neurons and latents, tell what one tells."""
    files = saelens(tmp_path / "cut", either.catalog.sizes["D"], 64, "blocks.1.hook_resid_post")
    either.dictionaries.load(files)
    try:
        found = experiments.effects(either, IDS, ["cut", "heads", "neurons"], ANSWERS, strongest=30)
    finally:
        either.dictionaries.unload("cut")
    plain = PlainEffects(llama_path, torch.tensor(IDS), ANSWERS)
    direction = plain.direction()
    right = plain.latents(Coder.of(files), 1, direction)
    assert max(of_unit(found, "cut ", right).values()) < 1e-3
    right = plain.inner("model.layers.1.self_attn.o_proj", either.catalog.sizes["H"], direction)
    assert max(of_unit(found, "head 1.", right).values()) < 1e-3
