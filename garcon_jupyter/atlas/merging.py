"""One atlas of several, each made from another part of the data: on other servers, or at another time.

    one = first.atlas(points, texts[:1000], "one.atlas")
    other = second.atlas(points, texts[1000:], "other.atlas", first_document=1000)
    garcon.merge_atlases([one, other], "both.atlas")

Documents are numbered by their position in the whole data, from 0, whether or not they could be read; each part says
with ``first_document`` where it begins. The number of a document decides which of equal values is kept, and which
values are drawn for the sample: so the merged atlas has the examples of one run over everything. Its counts are
equal to the last bit, its moments and correlations to rounding.

An atlas keeps the strongest correlations only, from which those of more data do not follow. One that was made with
``mergeable=True`` keeps all of them: `pairs`, within the point, and the sketches (`sketch_sums`, `sketch_signs`) from
which those between points are estimated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from garcon_jupyter import recorders
from garcon_jupyter.array_files import prepare
from garcon_jupyter.atlas.correlations import CORRELATED, across
from garcon_jupyter.atlas.files import INDEX, NOWHERE, Atlas, open_atlas
from garcon_jupyter.atlas.writing import Writer, writing
from garcon_jupyter.errors import BadData
from garcon_jupyter.recorders import Covariance, CovarianceState, Examples, Moments, MomentsState
from garcon_jupyter.recorders.examples import WORST, lot, score_of, sortable

_SETTINGS = ("k", "before", "after", "without", "intervals", "sums", "edges", "of", "labels")

_SAME = ("format", "points", *_SETTINGS, "arrays")
"""What two atlases must have in common."""


def merge(atlases: Sequence[Atlas | str | Path], path: str | Path) -> Atlas:
    """See :func:`garcon_jupyter.merge_atlases`."""
    parts = [one if isinstance(one, Atlas) else open_atlas(one) for one in atlases]
    if not parts:
        raise BadData("There are no atlases to merge.", "Give at least one.")
    parts.sort(key=lambda one: one.parts)
    _check(parts)
    target = Path(path).expanduser()
    if any(target.resolve() == one.path.resolve() for one in parts):
        raise BadData(f"{target} is one of those to merge.", "Give a new directory.")
    prepare(target, INDEX)
    with writing(target, parts[0].units, "the atlases to merge are as they were") as files:
        for point in parts[0].points:
            for what, rows in _arrays(parts, point):
                files.put(point, what, rows)
        if "sketch_sums" in parts[0].index["arrays"]:
            sketches = {point: _sketch(parts, point) for point in parts[0].points}
            for point, what, rows in across(sketches):
                files.put(point, what, rows)
            put_sketches(files, sketches)
        files.finish(parts[0].vocabulary, _facts(parts))
    return open_atlas(target)


def _check(parts: Sequence[Atlas]) -> None:
    """That they go together.

    Raises:
        BadData: they do not; says why.
    """
    first = parts[0]
    for other in parts[1:]:
        for what in _SAME:
            if (first.index.get(what) or None) != (other.index.get(what) or None):
                raise BadData(
                    f"{first.path} and {other.path} differ in their {what}.",
                    "Make both with the same settings.",
                )
        if first.vocabulary != other.vocabulary or not _same_logits(first, other):
            raise BadData(f"{first.path} and {other.path} are of two models.", "Give those of one.")
    if "correlated" in first.index["arrays"] and "pairs" not in first.index["arrays"]:
        raise BadData(
            f"{first.path} keeps the strongest correlations only, which cannot be merged.",
            "Make the atlases with mergeable=True, or with correlated=False.",
        )
    spans = sorted(tuple(span) for one in parts for span in one.parts)
    for (begin, count), (after, _) in itertools.pairwise(spans):
        if begin + count > after:
            raise BadData(
                f"Documents {after} to {begin + count - 1} are in two of these atlases.",
                "Say with first_document where in the whole data each part begins.",
            )


def _same_logits(one: Atlas, other: Atlas) -> bool:
    return "logits_up" not in one.index["arrays"] or all(
        np.allclose(one.array(name), other.array(name), atol=1e-3)
        for name in ("logits_up_values", "logits_down_values")
    )


def _facts(parts: Sequence[Atlas]) -> dict[str, Any]:
    kept = ("model", *_SETTINGS)
    return {name: parts[0].index[name] for name in kept if name in parts[0].index} | {
        "tokens": sum(one.tokens for one in parts),
        "documents": sum(one.index["documents"] for one in parts),
        "parts": sorted(span for one in parts for span in one.parts),
    }


# -- one point ------------------------------------------------------------------------------------


def _arrays(parts: Sequence[Atlas], point: str) -> Iterator[tuple[str, np.ndarray]]:
    for kind in ("top", "sample"):
        examples = reduce(_better, (_examples(one, point, kind) for one in parts))
        for what in ("values", "places", "tokens", "around"):
            yield f"{kind}_{what}", getattr(examples, what).numpy()
    for what in ("histogram", "fired"):
        yield what, np.sum([_rows(one, point, what) for one in parts], 0)
    moments = reduce(Moments().add, (_moments(one, point) for one in parts))
    yield "moments", columns(moments)
    if "pairs" in parts[0].index["arrays"]:
        products = reduce(Covariance().add, (_products(one, point) for one in parts))
        units, values = products.strongest(CORRELATED)
        yield "correlated", units.int().numpy()
        yield "correlations", values.numpy()
        yield "pairs", widened(products, parts[0].array("pairs").shape[1])
    for what in ("logits_up", "logits_up_values", "logits_down", "logits_down_values"):
        if what in parts[0].index["arrays"]:
            yield what, _rows(parts[0], point, what)


def _rows(atlas: Atlas, point: str, what: str) -> np.ndarray:
    first = atlas.first[point]
    return np.array(atlas.array(what)[first : first + atlas.units[point]])


def _tensor(atlas: Atlas, point: str, what: str) -> Tensor:
    return torch.from_numpy(_rows(atlas, point, what))


def _examples(atlas: Atlas, point: str, kind: str) -> Examples:
    """The kept examples as the recorder that ranked them has them."""
    values, places, tokens, around = (
        _tensor(atlas, point, f"{kind}_{what}") for what in ("values", "places", "tokens", "around")
    )
    units = torch.arange(len(values))[:, None]
    scores = sortable(values) if kind == "top" else score_of(lot(0, places, units))
    scores = torch.where(places == NOWHERE, WORST, scores)
    return Examples(0, 0, values, places, scores, tokens, around, atlas.index["before"])


def _better(one: Examples, other: Examples) -> Examples:
    one.take_all(other)
    return one


def _moments(atlas: Atlas, point: str) -> MomentsState:
    mean, variance, skewness, kurtosis, low, high = _tensor(atlas, point, "moments").T
    n = atlas.tokens
    # A unit that does not vary has NaN as skewness and kurtosis.
    m3, m4 = (skewness * variance**1.5 * n), (kurtosis * variance**2 * n)
    return MomentsState(0, n, mean, variance * n, m3.nan_to_num(0), m4.nan_to_num(0), low, high)


def columns(moments: MomentsState) -> np.ndarray:
    """Moments as an atlas keeps them, float64 [units, 6]."""
    m = moments
    return torch.stack((m.mean, m.variance, m.skewness, m.kurtosis, m.low, m.high), 1).numpy()


# -- correlations ---------------------------------------------------------------------------------


def _products(atlas: Atlas, point: str) -> CovarianceState:
    mean, variance = _tensor(atlas, point, "moments").T[:2]
    squares = variance * atlas.tokens
    pairs = _tensor(atlas, point, "pairs")[:, : len(mean)].double()
    products = pairs.nan_to_num(0) * (squares[:, None] * squares[None]).sqrt()
    return CovarianceState(0, atlas.tokens, mean, mean, products, squares, squares)


def widened(state: CovarianceState, width: int) -> np.ndarray:
    """The correlations of all pairs of a point's units, float32 [units, width]; NaN beyond the last unit."""
    pairs = state.correlation.float()
    return torch.nn.functional.pad(pairs, (0, width - len(pairs)), value=torch.nan).numpy()


def _sketch(parts: Sequence[Atlas], point: str) -> recorders.SketchState:
    def of(atlas: Atlas) -> recorders.SketchState:
        totals = _tensor(atlas, point, "moments")[:, 0] * atlas.tokens
        signs = torch.from_numpy(np.array(atlas.array("sketch_signs")[atlas.points.index(point)]))
        sums = _tensor(atlas, point, "sketch_sums")
        return recorders.SketchState(0, atlas.tokens, sums, totals, signs)

    return reduce(recorders.Sketch().add, map(of, parts))


def put_sketches(files: Writer, sketches: dict[str, recorders.SketchState]) -> None:
    """Write what a mergeable atlas keeps of units of different points."""
    for point, sketch in sketches.items():
        files.put(point, "sketch_sums", sketch.sums.numpy())
    files.put_whole("sketch_signs", np.stack([one.signs.numpy() for one in sketches.values()]))
