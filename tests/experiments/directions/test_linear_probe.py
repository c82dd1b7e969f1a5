"""Linear probes against scikit-learn and means by hand, on what plain hooks see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, experiments
from garcon_jupyter.errors import MissingModule
from garcon_jupyter.experiments.directions import classifiers, labels, linear_probe
from tests.experiments.directions.by_hand import LAYERS, stream, texts
from tests.oracle import Plain

pytestmark = pytest.mark.sampled

POINTS = "layers.*.resid_post"
ROWS, LABELS = texts()
SECOND = np.array(LABELS)


def asked(rmodel: garcon.RemoteModel, **options: Any) -> experiments.ExperimentResult:
    rows = rmodel._tokens(padded(ROWS))
    return experiments.linear_probe(rmodel, POINTS, rows, LABELS, progress=False, **options)


def padded(rows: list[list[int]]) -> Any:
    from garcon_jupyter.client.tokens import Tokens

    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return Tokens(ids, torch.arange(width)[None] < lengths[:, None])


def by_hand(
    vectors: np.ndarray, documents: np.ndarray, held: np.ndarray, second: np.ndarray
) -> tuple[float, np.ndarray]:
    """Held-out accuracy of scikit-learn's pipeline, and its weights in units of the vectors."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    out = held[documents]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-8))
    model.fit(vectors[~out], second[documents][~out])
    score = model.score(vectors[out], second[documents][out]) if out.any() else np.nan
    return score, model[1].coef_[0] / model[0].scale_


PICKS: dict[Any, Callable[[Tensor], Tensor]] = {
    "last": lambda x: x[-1:],
    "mean": lambda x: x.mean(0, keepdim=True),
    "all": lambda x: x,
    2: lambda x: x[2:3],
    -2: lambda x: x[-2:-1],
}


@pytest.mark.parametrize("positions", PICKS)
def test_logistic_regression_is_that_of_scikit_learn_on_plain_hooks(
    rmodel: garcon.RemoteModel, plain: Plain, positions: Any
) -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    found = asked(rmodel, positions=positions, splits=2)
    assert found.axes == {"layer": tuple(range(LAYERS))}
    held = found.more["held out texts"].numpy()
    for layer in range(LAYERS):
        seen = [PICKS[positions](x) for x in stream(plain, layer, ROWS)]
        documents = np.repeat(np.arange(len(seen)), [len(x) for x in seen])
        vectors = torch.cat(seen).numpy()
        scores = [by_hand(vectors, documents, each, SECOND)[0] for each in held]
        assert found.more["splits"][:, layer].tolist() == pytest.approx(scores, abs=1e-9)
        assert float(found.values[layer]) == pytest.approx(np.mean(scores))
        _, weights = by_hand(vectors, documents, np.zeros(len(seen), bool), SECOND)
        ours = found.more["vectors"][layer].double().numpy()
        assert np.allclose(ours, weights / np.linalg.norm(weights), atol=1e-4)
    assert len(rmodel.recordings()) == 0


def nearest_mean(x: np.ndarray, out: np.ndarray) -> float:
    """Share of the texts held out that lie nearer to the mean of their own label than to that of the other."""
    means = [x[~out & (kind == SECOND)].mean(0) for kind in (False, True)]
    nearer = ((x - means[1]) ** 2).sum(1) < ((x - means[0]) ** 2).sum(1)
    return float((nearer == SECOND)[out].mean())


def test_the_difference_of_means_by_hand(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    found = asked(rmodel, method="difference_of_means", splits=3)
    held = found.more["held out texts"].numpy()
    assert (held.sum(1) == round(0.25 * SECOND.sum()) + round(0.25 * (~SECOND).sum())).all()
    for layer in range(LAYERS):
        x = torch.cat([v[-1:] for v in stream(plain, layer, ROWS)]).numpy()
        scores = [nearest_mean(x, out) for out in held]
        assert found.more["splits"][:, layer].tolist() == pytest.approx(scores)
        difference = x[SECOND].mean(0) - x[~SECOND].mean(0)
        direction = experiments.Direction.of(found, layer=layer)
        assert np.allclose(
            direction.vector, difference / np.linalg.norm(difference), rtol=1e-4, atol=1e-6
        )
        assert direction.scale == pytest.approx(np.linalg.norm(difference), rel=1e-5)
        along = (x[SECOND].mean(0) + x[~SECOND].mean(0)) / 2 @ direction.vector.numpy()
        assert direction.centre == pytest.approx(along, rel=1e-4, abs=1e-5)
        # Wrong answers: the labels exchanged, and the token before the last.
        before = torch.cat([v[-2:-1] for v in stream(plain, layer, ROWS)]).numpy()
        beside = before[SECOND].mean(0) - before[~SECOND].mean(0)
        assert float(direction.vector.numpy() @ -difference) < 0
        assert not np.allclose(direction.vector, beside / np.linalg.norm(beside), atol=1e-2)


def test_ranks_find_what_one_process_finds(either: garcon.RemoteModel, plain: Plain) -> None:
    found = asked(either, method="difference_of_means", positions=2)
    x = torch.cat([v[2:3] for v in stream(plain, 0, ROWS)])
    second = torch.tensor(LABELS)
    difference = x[second].mean(0) - x[~second].mean(0)
    assert torch.allclose(
        found.more["vectors"][0].double(), difference / difference.norm(), atol=1e-5
    )
    scores = [nearest_mean(x.numpy(), out) for out in found.more["held out texts"].numpy()]
    assert found.more["splits"][:, 0].tolist() == pytest.approx(scores)


def test_a_label_that_is_nowhere_is_not_found() -> None:
    """The control: more dimensions than texts fit any labels, and tell nothing of other texts."""
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(60, 200))
    kinds = labels.labelled([bool(k) for k in draw.integers(0, 2, 60)], 60)
    vectors[:, 0] += 8 * kinds.second
    held, shuffled, shuffled_held = kinds.splits(20, 0.25, 0)
    plan = classifiers.FitPlan(
        "difference_of_means", 1.0, 100, kinds.second, held, shuffled, shuffled_held
    )
    told = classifiers.found(vectors, np.arange(60), plan)
    assert np.mean(told["held_out"]) > 0.9 and np.mean(told["fitted"]) > 0.99
    assert abs(np.mean(told["shuffled"]) - 0.5) < 0.1
    assert (shuffled.sum(1) == kinds.second.sum()).all()


def test_splits_hold_out_whole_texts_of_both_labels_and_hang_on_the_seed() -> None:
    kinds = labels.labelled(["no", "yes"] * 3 + ["no"] * 30, 36, towards="no")
    assert kinds.kinds == ("yes", "no") and kinds.larger_share == pytest.approx(33 / 36)
    held, shuffled, _ = kinds.splits(4, 0.1, seed=1)
    for out in held:
        assert 1 <= out[kinds.second].sum() <= 32 and 1 <= out[~kinds.second].sum() <= 2
    again, _, _ = kinds.splits(4, 0.1, seed=1)
    other, _, _ = kinds.splits(4, 0.1, seed=2)
    assert (held == again).all() and (held != other).any()
    assert (shuffled != kinds.second).any()


def test_mistakes_are_told_before_anything_runs(rmodel: garcon.RemoteModel) -> None:
    def fails(match: str, error: type[Exception] = BadRequest, **changed: Any) -> None:
        given = {"points": POINTS, "texts": [[5, 6, 7]] * 4, "labels": [0, 0, 1, 1]} | changed
        given = {"method": "difference_of_means", "progress": False} | given
        with pytest.raises(error, match=match):
            experiments.linear_probe(rmodel, **given)

    fails("1 kinds of labels: 0", labels=[0, 0, 0, 0])
    fails("3 kinds of labels: 0, 1, 2", labels=[0, 0, 1, 2])
    fails("1 text has the label 1", labels=[0, 0, 0, 1])
    fails("3 labels for 4 texts", labels=[0, 0, 1])
    fails("cannot be sorted", labels=[0, "a", 1, 1])
    fails("No text has the label 'up'", towards="up")
    fails("no method 'ridge'.*logistic", method="ridge")
    fails("no position|none at 3", positions=3)
    fails("stand for no text", positions="first")
    fails("held_out=1", held_out=1)
    fails("splits=0", splits=0)
    fails("inverse_penalty=0", inverse_penalty=0)
    fails("layer.*9|9.*layers", garcon.GarconError, points="layers.9.resid_post")
    fails("not one value for each token", garcon.BadProbe, points="layers.0.attn.pattern")
    fails("several widths", points="layers.0.mlp.*")
    assert len(rmodel.recordings()) == 0 and not rmodel.runs()


def test_modules_are_points_too(rmodel: garcon.RemoteModel) -> None:
    point = "module:model.layers.0.mlp.output"
    given = (padded(ROWS), LABELS, "difference_of_means")
    found = experiments.linear_probe(rmodel, point, *given, progress=False)
    same = experiments.linear_probe(rmodel, "layers.0.mlp.out", *given, progress=False)
    assert found.axes == {"point": (point,)} and torch.equal(found.values, same.values)
    with pytest.raises(BadRequest, match=r"several widths: .*\[80\].*\[48\]"):
        experiments.linear_probe(
            rmodel, "module:model.layers.0.mlp.*.output", *given, progress=False
        )


def test_nan_is_refused_with_its_point(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A point may overflow; then there is nothing to fit."""
    from garcon_jupyter.experiments.directions.picked import Picked

    class Spoilt(Picked):
        def _of(self, values: Tensor) -> Tensor:
            return super()._of(values) * float("nan")

    monkeypatch.setattr(linear_probe, "Picked", Spoilt)
    with pytest.raises(BadRequest, match="layers.0.resid_post holds NaN"):
        asked(rmodel, method="difference_of_means")
    assert len(rmodel.recordings()) == 0


def test_without_scikit_learn_the_error_names_it(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "has_scikit_learn", lambda: False)
    monkeypatch.setattr(linear_probe, "has_scikit_learn", lambda: False)
    with pytest.raises(MissingModule, match=r"scikit-learn.*garcon-jupyter\[probes\]"):
        asked(rmodel)
    assert not rmodel.runs()


def test_a_result_comes_back_from_its_file(rmodel: garcon.RemoteModel, tmp_path: Any) -> None:
    found = asked(rmodel, method="difference_of_means")
    again = experiments.load(found.save(tmp_path / "found.npz"))
    one, other = (experiments.Direction.of(x, name="word") for x in (found, again))
    assert torch.equal(one.vector, other.vector) and one.made == other.made
    assert one.point == f"layers.{found.values.argmax()}.resid_post" and "word" in repr(one)
    assert {"fitted", "shuffled", "scale", "centre"} <= set(found.to_frame())
    with pytest.raises(BadRequest, match="'layer' has no place 7"):
        experiments.Direction.of(found, layer=7)
