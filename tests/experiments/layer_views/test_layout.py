"""Maps against plain hooks, scikit-learn's trustworthiness, and themselves."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, experiments
from garcon_jupyter.errors import MissingModule
from garcon_jupyter.experiments.layer_views import embedding
from garcon_jupyter.experiments.layer_views.neighbours import trustworthiness
from garcon_jupyter.widgets import DotsWidget, labels
from tests.experiments.directions.by_hand import stream, texts
from tests.experiments.directions.test_linear_probe import padded
from tests.experiments.layer_views.test_pca import by_svd
from tests.oracle import Plain

ROWS = texts()[0]
POINT = "layers.2.resid_post"


def asked(rmodel: garcon.RemoteModel, **options: Any) -> experiments.ExperimentResult:
    given = {"tokens": 8192, "progress": False} | options
    return experiments.layout(rmodel, POINT, padded(ROWS), **given)


def test_a_map_of_tokens_by_pca(either: garcon.RemoteModel, plain: Plain) -> None:
    rows = torch.cat(stream(plain, 2, ROWS))
    vectors, _ = by_svd(rows)
    found = asked(either)
    theirs = (rows - rows.mean(0)) @ vectors[:2].T
    assert torch.allclose(found.values, theirs, atol=1e-4)
    places = [[text, at] for text, row in enumerate(ROWS) for at in range(len(row))]
    assert found.more["place"].tolist() == places
    assert torch.allclose(found.more["norm"], rows.norm(dim=1), rtol=1e-5)
    ids = [token for row in ROWS for token in row]
    words = either.token_strings([sorted(set(ids))], alone=True)[0]
    named = dict(zip(sorted(set(ids)), words, strict=True))
    assert all(f"⟨{named[t]}⟩" in text for t, text in zip(ids, found.facts["texts"], strict=True))
    assert len(either.recordings()) == 0


def test_a_map_of_units_by_pca(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    rows = torch.cat(stream(plain, 2, ROWS)).T
    rows = (rows - rows.mean(1, keepdim=True)) / rows.std(1, correction=0, keepdim=True)
    vectors, _ = by_svd(rows)
    found = asked(rmodel, of="units")
    assert torch.allclose(found.values, (rows - rows.mean(0)) @ vectors[:2].T, atol=1e-3)
    assert found.axes["dot"] == tuple(range(48)) and found.facts["constant units"] == []


def test_trustworthiness_is_that_of_scikit_learn() -> None:
    manifold = pytest.importorskip("sklearn.manifold", reason="needs scikit-learn")
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(700, 20, generator=draw, dtype=torch.float64)
    for dots in (rows[:, :2], torch.randn(700, 2, generator=draw, dtype=torch.float64)):
        for k in (3, 10):
            theirs = manifold.trustworthiness(
                rows.numpy(), dots.numpy(), n_neighbors=k, metric="cosine"
            )
            assert trustworthiness(rows, dots, k) == pytest.approx(theirs, abs=1e-9)


def test_trustworthiness_at_its_ends() -> None:
    angles = torch.rand(40, generator=torch.manual_seed(1), dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    assert trustworthiness(circle, circle, 5) == 1
    shuffled = circle[torch.randperm(40, generator=torch.manual_seed(0))]
    assert trustworthiness(circle, shuffled, 5) < 0.7


def test_the_trustworthiness_of_a_map(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    rows = torch.cat(stream(plain, 2, ROWS))
    found = asked(rmodel)
    theirs = trustworthiness(rows - rows.mean(0), found.values, 10)
    assert found.facts["trustworthiness"] == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_a_seed_gives_the_same_map_to_the_bit(
    rmodel: garcon.RemoteModel, plain: Plain, method: Any
) -> None:
    manifold = pytest.importorskip("sklearn.manifold", reason="needs scikit-learn")
    pytest.importorskip(embedding.NEEDS[method][0], reason=f"needs {embedding.NEEDS[method][1]}")
    fewer = {"tsne": {"n_iter": 100}, "umap": {"n_epochs": 50}}[method]
    one, again, other = (
        asked(rmodel, tokens=150, method=method, seed=seed, **fewer) for seed in (0, 0, 1)
    )
    assert torch.equal(one.values, again.values) and one.facts == again.facts
    assert one.values.shape == other.values.shape and not torch.equal(one.values, other.values)
    assert one.facts["made with"].startswith(embedding.NEEDS[method][1])
    all_rows = stream(plain, 2, ROWS)
    rows = torch.stack([all_rows[text][at] for text, at in one.more["place"].tolist()])
    theirs = manifold.trustworthiness(
        (rows - rows.mean(0)).numpy(), one.values.numpy(), n_neighbors=10, metric="cosine"
    )
    assert one.facts["trustworthiness"] == pytest.approx(theirs, abs=1e-3)
    assert one.facts["trustworthiness"] > asked(rmodel, tokens=150).facts["trustworthiness"]
    with pytest.raises(BadRequest, match=f"{method} does not take colour"):
        asked(rmodel, method=method, colour="red")


def test_tokens_are_drawn_by_lot(rmodel: garcon.RemoteModel) -> None:
    def places(**options: Any) -> set[tuple[int, ...]]:
        return {tuple(place) for place in asked(rmodel, **options).more["place"].tolist()}

    few = places(tokens=60)
    assert len(few) == 60 and few == places(tokens=60, batch_tokens=30)
    assert few < places(tokens=120) and few != places(tokens=60, seed=1)


def test_without_a_package_the_error_names_it(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    with pytest.raises(MissingModule, match=r"openTSNE.*garcon-jupyter\[tsne\]"):
        asked(rmodel, method="tsne")
    with pytest.raises(MissingModule, match=r"umap-learn.*garcon-jupyter\[umap\]"):
        asked(rmodel, method="umap")
    assert not rmodel.runs() and "umap" not in vars(sys.modules[embedding.__name__])


def test_mistakes_are_told(rmodel: garcon.RemoteModel) -> None:
    for options, words in (
        ({"of": "heads"}, "no map of 'heads'.*tokens, units"),
        ({"method": "mds"}, "no method 'mds'.*pca, tsne, umap"),
        ({"massive": True}, "massive=True"),
        ({"tokens": 0}, "tokens=0"),
        ({"tokens": 9000}, "1 to 8192"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"tokens": 20}, "20 dots, and 10 neighbours.*neighbours=9"),
        ({"perplexity": 3}, "pca does not take perplexity"),
    ):
        with pytest.raises(BadRequest, match=words):
            asked(rmodel, **options)
    assert len(rmodel.recordings()) == 0


def test_its_picture_has_a_dot_and_a_text_for_each(rmodel: garcon.RemoteModel) -> None:
    found = asked(rmodel, tokens=50)
    picture = found.show()
    assert isinstance(picture, DotsWidget)
    assert picture.texts == [labels.written(text) for text in found.facts["texts"]]
    assert np.allclose(picture.values, found.values)
    assert "trustworthiness" in picture.subtitle
    picture.selected = [7, 3]
    assert picture.selected_texts == [found.facts["texts"][dot] for dot in (3, 7)]
    assert picture.names[3] == "text {}, position {}".format(*found.more["place"][3].tolist())
