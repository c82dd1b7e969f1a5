"""Principal components against the singular value decomposition of what plain hooks see."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest, experiments
from garcon_jupyter.experiments.layer_views import principal
from garcon_jupyter.experiments.layer_views.apart import Apart
from garcon_jupyter.experiments.layer_views.massive import border
from garcon_jupyter.model_files import embedded
from garcon_jupyter.recorders import alone, seen
from tests.conftest import quiet
from tests.experiments.directions.by_hand import stream, texts
from tests.experiments.directions.test_linear_probe import padded
from tests.oracle import Plain

ROWS = texts()[0]
POINT = "layers.2.resid_post"


def by_svd(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Components [k, D] with the entry of largest size positive, and variances, of float64 rows."""
    _, lengths, vectors = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
    return vectors * largest.sign(), lengths**2 / len(rows)


def test_components_are_those_of_the_singular_value_decomposition(
    either: garcon.RemoteModel, plain: Plain
) -> None:
    rows = torch.cat(stream(plain, 2, ROWS))
    found = experiments.pca(either, POINT, padded(ROWS), components=8, progress=False)
    vectors, variances = by_svd(rows)
    assert torch.allclose(found.more["components"].double(), vectors[:8], atol=2e-5)
    assert torch.allclose(found.more["variances"][0], variances, rtol=1e-5)
    shares = variances / variances.sum()
    assert torch.allclose(found.values[0], shares[:8], rtol=1e-5)
    assert torch.allclose(found.more["mean"], rows.mean(0), atol=1e-5)
    assert found.facts["massive tokens"] == 0 and found.facts["tokens"] == len(rows)
    assert torch.equal(found.values[0], found.values[1])
    uncentred = torch.linalg.svdvals(rows) ** 2  # the wrong answer of who forgets the mean
    assert not torch.allclose(found.values[0, 0], (uncentred / uncentred.sum())[0], rtol=1e-3)
    assert len(either.recordings()) == 0


def data(massive: int) -> Tensor:
    """Rows [200, 12] of which some are a hundred times as long."""
    rows = torch.randn(200, 12, generator=torch.manual_seed(1), dtype=torch.float64) + 1
    rows[torch.randperm(200, generator=torch.manual_seed(2))[:massive]] *= 100
    return rows


def recorded(rows: Tensor, sizes: list[int], known: float = 0.0) -> Any:
    recorder, state = Apart(known), None
    for part in rows.split(sizes):
        tokens = torch.arange(len(part))[None]
        state = recorder.update(state, seen(part[None], alone(tokens)))
    return state


@pytest.mark.parametrize("sizes", [[200], [3, 97, 100], [50] * 4, [1] * 200])
def test_massive_tokens_are_apart_however_the_data_is_cut(sizes: list[int]) -> None:
    rows = data(17)
    state = recorded(rows, sizes)
    if state.torn:
        state = recorded(rows, sizes, border(state.norms))
    assert not state.torn
    ordinary = rows[rows.norm(dim=1) <= 5 * rows.norm(dim=1).median()]
    assert len(ordinary) == 183
    for part, these in zip(state.parted(), (rows, ordinary), strict=True):
        vectors, variances = principal.components(part.covariance)
        theirs, lengths = by_svd(these)
        assert part.tokens_seen == len(these)
        assert torch.allclose(vectors, theirs, atol=1e-6)
        assert torch.allclose(variances, lengths, rtol=1e-6)


def test_what_goes_in_unnoticed_is_seen_and_read_again() -> None:
    """The first tokens are all long, so that the border is high as long as none is known."""
    rows = torch.cat([1000 * data(0)[:5], data(0)])
    state = recorded(rows, [5, 200])
    assert state.torn
    again = recorded(rows, [5, 200], border(state.norms))
    assert not again.torn and again.parted()[1].tokens_seen == 200


def test_scores_are_those_of_the_wide_and_of_the_tall() -> None:
    for shape in ((30, 12), (12, 30)):
        rows = torch.randn(*shape, generator=torch.manual_seed(4), dtype=torch.float64)
        vectors, _ = by_svd(rows)
        theirs = (rows - rows.mean(0)) @ vectors.T
        assert torch.allclose(principal.scores(rows, 5), theirs[:, :5], atol=1e-9)


def test_smollm2_has_its_massive_tokens_named(smollm2: garcon.RemoteModel) -> None:
    """Of a real model the first component of all tokens is a handful of them."""
    found = experiments.pca(smollm2, "layers.12.resid_post", TEXTS, packed=False, progress=False)
    plain = Plain(embedded.fetch("smollm2", progress=quiet))
    ids = [plain.tokenizer(text)["input_ids"] for text in TEXTS]
    rows = [plain.output("model.layers.12", [row])[0].double() for row in ids]
    norms = torch.cat([row.norm(dim=1) for row in rows])
    massive = norms > 5 * norms.median()
    places = [(text, position) for text, row in enumerate(ids) for position in range(len(row))]
    theirs = {place for place, is_massive in zip(places, massive, strict=True) if is_massive}
    assert {(one["text"], one["position"]) for one in found.facts["massive"]} == theirs
    assert theirs >= {(text, 0) for text in range(len(TEXTS))}
    assert found.facts["massive"][0]["norm"] == pytest.approx(float(norms.max()), rel=1e-4)
    whole = torch.cat(rows)
    for share, these in zip(found.values[:, 0], (whole[~massive], whole), strict=True):
        _, variances = by_svd(these)
        assert float(share) == pytest.approx(float(variances[0] / variances.sum()), rel=1e-4)
    assert found.values[1, 0] > 0.99 and found.values[0, 0] < 0.3


TEXTS = [
    "The museum opens at nine, and on Mondays it stays closed for the whole day.",
    "When the rain stopped, the children ran out into the garden to look for snails.",
    "Light takes about eight minutes to travel from the surface of the Sun to the Earth.",
    "She put the letter back into the drawer and never spoke of it again.",
]


def test_mistakes_are_told(rmodel: garcon.RemoteModel) -> None:
    def fails(match: str, error: type[Exception] = BadRequest, **changed: Any) -> None:
        given = {"point": POINT, "data": padded(ROWS), "progress": False} | changed
        with pytest.raises(error, match=match):
            experiments.pca(rmodel, **given)

    fails("massive='hide' is no way.*'exclude'", massive="hide")
    fails("components=0", components=0)
    fails("holds 1 token", data=[[5]])
    fails("resid_pots", garcon.UnknownPoint, point="layers.2.resid_pots")
    fails("not one value for each token", garcon.BadProbe, point="layers.0.attn.pattern")
    fails("2 points|selects", garcon.BadProbe, point="layers.*.resid_post")
    assert len(rmodel.recordings()) == 0
