"""Attribution by gradients against plain autograd, and against cells patched with plain hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadProbe, BadRequest, PointUnavailable, experiments
from garcon_jupyter.experiments.attribution.paths import gauss_legendre, midpoints
from tests.experiments.activation_patching.test_patch import padded
from tests.experiments.attribution.by_hand import LlamaByHand
from tests.oracle import Plain, close

CLEAN, CORRUPTED = [[0, 40, 41, 42, 99]], [[0, 40, 77, 42, 99]]
ANSWERS = (17, 23)


@pytest.fixture(scope="module")
def by_hand(plain: Plain) -> LlamaByHand:
    return LlamaByHand(plain.model, ANSWERS)


def attributed(rmodel: garcon.RemoteModel, **options: Any) -> Any:
    return experiments.attribute(rmodel, CLEAN, CORRUPTED, **{"answers": ANSWERS, **options})


@pytest.mark.parametrize("method", ["corrupted", "clean", "mean"])
def test_values_are_differences_times_gradients(
    either: garcon.RemoteModel, by_hand: LlamaByHand, method: str
) -> None:
    """And of no other run, nor of the texts exchanged."""
    found = attributed(either, by=("layer", "position", "head"), method=method)
    expected = by_hand.attribution(CLEAN, CORRUPTED, method).sum(-1)
    assert close(found.values, expected, 1e-4)
    assert not close(found.values, -expected, 0.5)
    for other in {"corrupted", "clean", "mean"} - {method}:
        assert not close(found.values, by_hand.attribution(CLEAN, CORRUPTED, other).sum(-1), 1e-2)
    assert list(found.axes) == ["layer", "position", "head"]
    assert len(either.recordings()) == 0


def test_texts_exchanged_are_the_other_end(rmodel: garcon.RemoteModel) -> None:
    other = experiments.attribute(rmodel, CORRUPTED, CLEAN, answers=ANSWERS, method="clean")
    assert close(attributed(rmodel).values, other.values, 1e-5)
    assert attributed(rmodel).facts["ends"] == pytest.approx(other.facts["ends"][::-1], abs=1e-5)


def test_axes_add_up(rmodel: garcon.RemoteModel) -> None:
    whole = attributed(rmodel, by=("layer", "position", "head", "unit")).values
    assert whole.shape == (4, 5, 6, 16)
    assert close(attributed(rmodel).values, whole.sum((1, 3)))
    assert close(attributed(rmodel, by=("head", "layer")).values, whole.sum((1, 3)).T)
    assert close(attributed(rmodel, by="layer").values, whole.sum((1, 2, 3)))
    one = attributed(rmodel, points="layers.2.attn.z", by=("head",))
    assert close(one.values, whole[2].sum((0, 2))) and list(one.axes) == ["head"]
    middle = attributed(rmodel, points="layers.1-2.attn.z")
    assert middle.axes["layer"] == (1, 2) and close(middle.values, whole[1:3].sum((1, 3)))


def test_keys_and_values_have_a_cell_for_each_of_their_own_heads(
    rmodel: garcon.RemoteModel,
) -> None:
    """Queries, keys and values are linear in what attention reads, so what they carry adds up to what it carries."""
    by = ("layer", "position", "head")
    shared = ("layer", "position", "kv_head")
    parts = {
        x: attributed(rmodel, points=f"layers.*.attn.{x}", by=by if x == "q" else shared).values
        for x in "qkv"
    }
    with pytest.raises(BadRequest, match="one of its is no head"):
        attributed(rmodel, points="layers.*.attn.k", by=by)
    sizes = rmodel.catalog.sizes
    assert [parts[x].shape[2] for x in "qkv"] == [sizes["H"], sizes["K"], sizes["K"]]
    entering = attributed(rmodel, points="layers.*.attn.in", by=("layer", "position")).values
    assert close(sum(part.sum(2) for part in parts.values()), entering, 1e-4)


def test_scores_that_are_masked_carry_nothing(rmodel: garcon.RemoteModel) -> None:
    found = attributed(
        rmodel, points="layers.*.attn.scores", by=("layer", "head", "position", "key")
    )
    assert not found.values.isnan().any() and found.values.any()
    assert not found.values.triu(1).any()


def test_integrated_over_inputs(either: garcon.RemoteModel, by_hand: LlamaByHand) -> None:
    """The mean of gradients over runs between the embeddings; the input as a whole carries everything."""
    found = attributed(either, method="integrated", steps=4)
    embed = by_hand.model.get_input_embeddings()
    clean, corrupted = (embed(torch.tensor(ids)).detach() for ids in (CLEAN, CORRUPTED))
    (high, z_clean, _), (low, z_corrupted, _) = (by_hand.run(ids) for ids in (CLEAN, CORRUPTED))
    gradients = [
        by_hand.run(None, corrupted + share * (clean - corrupted))[2]
        for share in (0.125, 0.375, 0.625, 0.875)
    ]
    means = [torch.stack(each).mean(0) for each in zip(*gradients, strict=True)]
    each = zip(z_clean, z_corrupted, means, strict=True)
    expected = torch.stack([by_hand.by_head((a - b)[0] * g[0]).sum((0, 2)) for a, b, g in each])
    assert close(found.values, expected / (high - low), 1e-4)
    assert abs(attributed(either, method="integrated", steps=40).facts["input"] - 1) < 0.01
    assert abs(attributed(either, method="integrated", steps=1).facts["input"] - 1) > 0.01


def test_integrated_at_a_layer_adds_up_to_the_whole_layers_patch(
    either: garcon.RemoteModel, by_hand: LlamaByHand
) -> None:
    found = attributed(either, method="layer", steps=16)
    (high, z_clean, _), (low, *_) = (by_hand.run(ids) for ids in (CLEAN, CORRUPTED))
    whole = [
        (by_hand.patched(CORRUPTED, {layer: z_clean[layer]}) - float(low)) / float(high - low)
        for layer in range(4)
    ]
    assert (found.values.sum(1) - torch.tensor(whole)).abs().max() < 0.01
    plainly = attributed(either).values.sum(1)  # what a gradient at one end is off by
    assert (plainly - torch.tensor(whole)).abs().max() > 0.05


def test_a_sample_is_patched_beside_it(either: garcon.RemoteModel, by_hand: LlamaByHand) -> None:
    found = attributed(either, by=("layer", "position", "head"), check=8, seed=3)
    exact = found.more["exact"]
    assert int((~exact.isnan()).sum()) == 8 == found.facts["check"]["cells"]
    (high, z_clean, _), (low, z_corrupted, _) = (by_hand.run(ids) for ids in (CLEAN, CORRUPTED))
    for layer, position, head in (~exact.isnan()).nonzero().tolist():
        z = by_hand.by_head(z_corrupted[layer].clone())
        z[0, position, head] = by_hand.by_head(z_clean[layer])[0, position, head]
        share = (by_hand.patched(CORRUPTED, {layer: z.flatten(-2)}) - low) / (high - low)
        assert abs(float(exact[layer, position, head]) - float(share)) < 1e-4
    strongest = found.values.flatten().abs().argsort(descending=True)[:4]
    assert not exact.flatten()[strongest].isnan().any()
    seen = ~exact.isnan()
    error = (found.values - exact)[seen].abs().max()
    assert found.facts["check"]["largest error"] == pytest.approx(float(error), abs=1e-6)


def test_more_cells_than_there_are_is_all_of_them(rmodel: garcon.RemoteModel) -> None:
    found = attributed(rmodel, points="layers.1.attn.z", by="head", check=100)
    assert found.facts["check"]["cells"] == 6 and not found.more["exact"].isnan().any()


MANY = [CLEAN[0], [0, 12, 13, 14], [0, 7, 41, 9, 99]]
OTHERS = [CORRUPTED[0], [0, 12, 80, 14], [0, 8, 41, 9, 99]]


@pytest.mark.parametrize("method", ["corrupted", "mean", "integrated", "layer"])
def test_several_pairs_are_each_of_them(either: garcon.RemoteModel, method: str) -> None:
    """Of unequal lengths, each with answers of its own."""
    answers = [(17, 23), (5, 6), (30, 31)]
    options: dict[str, Any] = {"by": ("layer", "position"), "method": method, "steps": 3}
    found = experiments.attribute(
        either, padded(MANY), padded(OTHERS), "layers.*.attn.z", answers=answers, **options
    )
    assert list(found.axes) == ["pair", "layer", "position"] and found.values.shape == (3, 4, 5)
    for pair, (one, other) in enumerate(zip(MANY, OTHERS, strict=True)):
        alone = experiments.attribute(either, [one], [other], answers=answers[pair], **options)
        assert close(found.values[pair, :, : len(one)], alone.values, 1e-4)
        assert float(found.more["clean"][pair]) == pytest.approx(alone.facts["ends"][1], abs=1e-5)
    assert found.values[1, :, 4].isnan().all() and not found.values[[0, 2]].isnan().any()


def test_pairs_of_one_length_share_passes(rmodel: garcon.RemoteModel) -> None:
    def requests(*pairs: int) -> int:
        before = rmodel.requests
        clean, corrupted = ([texts[pair] for pair in pairs] for texts in (MANY, OTHERS))
        experiments.attribute(rmodel, padded(clean), padded(corrupted), answers=ANSWERS)
        return rmodel.requests - before

    assert requests(0) == requests(0, 2) < requests(0, 1)


def test_the_same_cells_of_all_pairs_are_patched(rmodel: garcon.RemoteModel) -> None:
    by = ("layer", "position")
    found = experiments.attribute(
        rmodel, padded(MANY), padded(OTHERS), "layers.*.resid_pre", by, ANSWERS, check=12, seed=1
    )
    exact = found.more["exact"]
    truth = experiments.patch(
        rmodel, padded(MANY), padded(OTHERS), "layers.*.resid_pre", by, ANSWERS
    )
    seen = ~exact.isnan()
    assert torch.equal(seen[0], seen[2]) and int(seen[0].sum()) == 12
    assert (exact - truth.values)[seen].abs().max() < 1e-4
    assert not seen[1, :, 4].any()  # a text that has no such position


def test_scores_are_patched_beside_it(rmodel: garcon.RemoteModel) -> None:
    """Cells of four axes, of a value inside attention; the cells of a layer integrated are those of its patches, nearly."""
    by = ("layer", "head", "position", "key")
    found = attributed(rmodel, points="layers.*.attn.scores", by=by, check=10, method="layer")
    exact = found.more["exact"]
    assert found.facts["check"]["cells"] == 10 and found.facts["check"]["pearson"] > 0.95
    for layer, head, position, key in (~exact.isnan()).nonzero().tolist():
        assert key <= position or float(exact[layer, head, position, key]) == 0


@pytest.mark.parametrize("replace", ["patch", "mean", "resample"])
def test_what_is_found_of_pairs_is_a_circuit(rmodel: garcon.RemoteModel, replace: str) -> None:
    """Of heads of keys and values, by a threshold, as it stands: the mean over pairs orders it."""
    one, other = [[MANY[0], MANY[2]], [OTHERS[0], OTHERS[2]]]
    by = ("layer", "kv_head")
    found = experiments.attribute(rmodel, one, other, "layers.*.attn.v", by, ANSWERS)
    mean = found.values.mean(0).abs()
    threshold = float(mean.flatten().sort().values[-3])
    kept = experiments.faithfulness(
        rmodel, found, one, other, threshold=threshold, answers=ANSWERS, replace=replace
    )
    assert kept.axes["cells"] == (3,) and len(kept.facts["circuit"]) == 3
    at = divmod(int(mean.argmax()), 2)
    assert kept.facts["circuit"][0] == dict(zip(by, at, strict=True))


def test_a_metric_of_ones_own(rmodel: garcon.RemoteModel) -> None:
    def difference(logits: Tensor) -> Tensor:
        return logits[:, -1, ANSWERS[0]] - logits[:, -1, ANSWERS[1]]

    mine = attributed(rmodel, answers=None, metric=difference, check=2)
    assert close(mine.values, attributed(rmodel).values) and mine.facts["answers"] == []


def test_mistakes_are_told(rmodel: garcon.RemoteModel) -> None:
    with pytest.raises(BadRequest, match="5 and 4 tokens"):
        experiments.attribute(rmodel, CLEAN, [CORRUPTED[0][:4]])
    with pytest.raises(BadRequest, match="same tokens: there is nothing to restore"):
        experiments.attribute(rmodel, CLEAN, CLEAN, answers=ANSWERS)
    with pytest.raises(BadRequest, match="Both answers are token 17"):
        attributed(rmodel, answers=(17, 17))
    with pytest.raises(BadRequest, match="not two tokens for 1 pairs"):
        attributed(rmodel, answers=(17,))
    with pytest.raises(BadRequest, match=r"\[b, p, D\]: no head"):
        attributed(rmodel, points="layers.*.resid_pre")
    with pytest.raises(BadRequest, match="would add up layers"):
        attributed(rmodel, by=("head",))
    with pytest.raises(BadRequest, match="no axis 'neuron'.*It has layer, position, head, unit"):
        attributed(rmodel, by=("layer", "neuron"))
    with pytest.raises(BadRequest, match="units of all heads"):
        attributed(rmodel, by=("layer", "unit"))
    with pytest.raises(BadRequest, match="an axis twice"):
        attributed(rmodel, by=("layer", "head", "head"))
    with pytest.raises(BadRequest, match="2 kinds"):
        attributed(rmodel, points="layers.*.attn.{q,k}")
    with pytest.raises(BadRequest, match="no method 'exact'.*integrated"):
        attributed(rmodel, method="exact")
    with pytest.raises(BadRequest, match="steps=0"):
        attributed(rmodel, method="layer", steps=0)
    with pytest.raises(BadRequest, match="3 clean texts and 2 corrupted"):
        experiments.attribute(rmodel, padded(MANY), padded(OTHERS[:2]))
    with pytest.raises(BadProbe, match="cannot be a metric function"):
        attributed(rmodel, answers=None, metric=lambda: 0)
    with pytest.raises(PointUnavailable, match="nothing comes after"):
        attributed(rmodel, points="logits", by=("position",))
    with pytest.raises(PointUnavailable, match=r"router\.logits"):
        attributed(rmodel, points="layers.*.mlp.router.logits", by=("layer",))
    with pytest.raises(BadRequest, match="no value of each row"):
        attributed(rmodel, points="module:model.norm.output", by=("position",))


def test_memory_is_told_before_it_is_used(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from garcon_backend.execution import admission

    monkeypatch.setattr(admission.memory, "left", lambda device: 1 << 10)
    monkeypatch.setattr(admission, "NEGLIGIBLE", 1 << 10)
    with pytest.raises(garcon.DoesNotFit, match="The pass needs at least"):
        attributed(rmodel)
    with pytest.raises(garcon.DoesNotFit, match="The pass needs at least"):
        experiments.attribute_edges(rmodel, CLEAN, CORRUPTED, ANSWERS)
    assert len(rmodel.recordings()) == 0


def test_metrics_that_are_none_are_told(rmodel: garcon.RemoteModel) -> None:
    metrics = {
        r"gives \[\] for 2 rows, not one number for each row": lambda logits: logits.sum(),
        r"gives \[2, 5\] for 2 rows": lambda logits: logits.sum(-1),
        "gives list for 2 rows": lambda logits: [1.0, 2.0],
        "does not depend on the logits": lambda logits: logits[:, -1, 3].detach(),
        "nothing to restore": lambda logits: logits[:, -1, 3] * 0,
    }
    for words, metric in metrics.items():
        with pytest.raises(BadRequest, match=words):
            attributed(rmodel, answers=None, metric=metric)
    with pytest.raises(BadRequest, match="Leave one out"):
        attributed(rmodel, metric=lambda logits: logits[:, -1, 3])
    assert len(rmodel.recordings()) == 0
    assert attributed(rmodel).values.any()


def test_quadratures() -> None:
    for rule, degree in ((midpoints(4), 1), (gauss_legendre(3), 5)):
        for power in range(degree + 1):
            integral = sum(weight * share**power for share, weight in rule)
            assert integral == pytest.approx(1 / (power + 1), abs=1e-12)
