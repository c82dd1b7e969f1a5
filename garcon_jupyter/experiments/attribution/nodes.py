"""Attribution of values by gradients: what exact patching would give, to first order, for all cells at once.

found = experiments.attribute(rmodel, clean, corrupted, "layers.*.attn.z", answers=(" Mary", " John"), check=20)
found.values                   # [layer, head]: 0 as corrupted, 1 as clean
found.facts["check"]           # how far it is from patching 20 of the cells
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from garcon_jupyter.client.probes import ProbePoint
from garcon_jupyter.connection.background import Pace
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.attribution.cells import Cells
from garcon_jupyter.experiments.attribution.exact import patched, sample
from garcon_jupyter.experiments.attribution.gradients import GradientReading, weigh
from garcon_jupyter.experiments.attribution.paths import Path, gauss_legendre, midpoints
from garcon_jupyter.experiments.attribution.text_pair import (
    CLEAN,
    CORRUPTED,
    Metric,
    TextPair,
    ends,
)
from garcon_jupyter.experiments.clean_passes import need
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Method = Literal["corrupted", "clean", "mean", "integrated", "layer"]

SAYS = "share of the clean answer that the value would restore, by its gradient: 0 as corrupted, 1 as clean"

TOKENS = 1024
"""Tokens of one forward and backward at most, beside the pair: what bounds its logits and their gradient on the server."""

FIRST_TOKENS = 256
"""Tokens of the first one, before it is known how long that takes."""

_AS_THEY_ARE = {
    "corrupted": Path((CORRUPTED,), (1.0,)),
    "clean": Path((CLEAN,), (1.0,)),
    "mean": Path((CLEAN, CORRUPTED), (0.5, 0.5)),
}
"""Methods that need no run but the two."""


def attribute(
    rmodel: Client,
    clean: Any,
    corrupted: Any,
    points: str | ProbePoint = "layers.*.attn.z",
    by: Sequence[str] = ("layer", "head"),
    answers: Sequence[Any] | None = None,
    metric: Metric | None = None,
    method: Method = "corrupted",
    steps: int = 5,
    check: int = 0,
    seed: int = 0,
) -> ExperimentResult:
    r"""How much of the clean answer each cell would restore in the corrupted run, by gradients (attribution patching).

    Patching a cell sets its value v in the corrupted run to that of the clean one, and takes a run for each cell. To first order
    in the change, with the metric L,

        L(patched) − L(corrupted) ≈ Σ (v_clean − v_corrupted) · ∂L/∂v,

    which one forward and one backward give for all cells (Nanda 2023; Syed, Rager and Conmy 2023). The sum is over what is not
    an axis. Values are shares of L(clean) − L(corrupted), as measured, so they mean what those of exact patching mean.

    Where the gradient is taken is the *method*:

    - ``"corrupted"``, ``"clean"``: at one of the two runs; ``"mean"``: the mean of both. One forward, one backward.
    - ``"integrated"``: averaged over runs whose embeddings go from corrupted to clean in `steps` (integrated gradients,
      Sundararajan, Taly and Yan 2017; of activations EAP-IG, Hanna, Pezzelle and Belinkov 2024). ``facts["input"]`` is what the
      input as a whole restores by this: 1 but for too few steps.
    - ``"layer"``: averaged over runs whose value at one layer goes from corrupted to clean, for each layer by itself. The cells of
      a layer add up to what patching the whole layer gives; each is near its exact patch. As dear as exact patching of `steps`
      cells a layer, forward and backward: worth it where a layer has many cells, such as neurons.

    Args:
        clean, corrupted: texts of equally many tokens.
        points: a pattern of points of one kind, such as ``"layers.*.attn.z"`` or ``"layers.8-15.mlp.post_activation"``.
        by: the axes: ("layer", "head"), ("layer", "position"), ("layer", "position", "head"), ("layer", "unit"), …; keys and
            values have one cell for each key/value head.
        answers: a token (its text or id) of the clean and one of the corrupted text, whose difference of logits at the last position
            is the metric; by default what the model itself predicts after each.
        metric: logits [row, p, V] to [row], differentiable, instead of that.
        steps: of the last two methods, runs between the two: at the middles of equal steps over inputs, at Gauss and Legendre's nodes at a layer.
        check: so many cells are patched exactly as well: half of them the strongest, the others drawn.
        seed: of that draw.

    Returns:
        ``values`` by the axes. ``facts["ends"]`` is the metric of the corrupted and of the clean run; with `check`, ``more["exact"]``
        has the patched values of those cells (others NaN) and ``facts["check"]`` Pearson's correlation with them, the largest error,
        and the error relative to their size.

    Raises:
        UnknownPoint, PointUnavailable: the model has no such point.
        BadRequest: unequal lengths; axes that the point has not; a metric that gives no number for each row; nothing to restore;
            a method or numbers that are none.

    Examples:
        >>> clean = "When John and Mary went to the shops, John gave the bag to"
        >>> corrupted = "When John and Mary went to the shops, Mary gave the bag to"
        >>> found = experiments.attribute(rmodel, clean, corrupted, answers=(" Mary", " John"), check=20)
        >>> found.strongest(2)
        [({'layer': 23, 'head': 3}, ...), ({'layer': ..., 'head': ...}, ...)]
    """
    pattern = points.name if isinstance(points, ProbePoint) else points
    _check_numbers(method, steps, check)
    need(rmodel, "An attribution", "logits")
    pair = TextPair.of(rmodel, clean, corrupted, answers, metric)
    cells = Cells.of(rmodel.catalog, pattern, by, pair.ids.shape[1])
    found = _attributed(rmodel, pair, cells, method, steps)
    values = found.cells / (found.high - found.low)
    facts = {
        "model": rmodel.facts["name"],
        **pair.facts(),
        "points": pattern,
        "method": method,
        "ends": [found.low, found.high],
        "limits": _limits(rmodel, method),
    }
    if method in ("integrated", "layer"):
        facts["steps"] = steps
    if found.of_input is not None:
        facts["input"] = found.of_input / (found.high - found.low)
    more = {}
    if check:
        exact = _patched(rmodel, pair, cells, sample(values, check, seed), found)
        more["exact"], facts["check"] = exact, _apart(values, exact)
    return ExperimentResult("attribute", values, cells.axes, SAYS, facts, more)


@dataclass(frozen=True)
class _Piece:
    """A pass: how many rows it has beside the pair, what is set in them, and what is read."""

    rows: int
    readings: tuple[GradientReading, ...]
    edits: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    """What gradients say, in units of the metric: of each cell, and, along a path of inputs, of the input as a whole."""

    low: float
    high: float
    cells: Tensor
    of_input: float | None


def _attributed(rmodel: Client, pair: TextPair, cells: Cells, method: Method, steps: int) -> _Found:
    total: dict[str, Any] = {}
    of_input = None
    for piece in _pieces(rmodel, pair, cells, method, steps):
        measured, found = weigh(rmodel, pair, piece.rows, piece.readings, piece.edits)
        low, high = ends(measured)
        if method == "integrated":
            of_input = (of_input or 0.0) + sum(float(number) for number in found.pop().values())
        for numbers in found:
            total |= {point: total.get(point, 0) + number for point, number in numbers.items()}
    return _Found(low, high, cells.gather(total), of_input)


def _pieces(
    rmodel: Client, pair: TextPair, cells: Cells, method: Method, steps: int
) -> Iterator[_Piece]:
    """The passes that a method takes."""
    if method in _AS_THEY_ARE:
        yield _Piece(0, (GradientReading(cells.points, _AS_THEY_ARE[method], cells.summing()),))
    elif method == "integrated":
        yield from _over_inputs(rmodel, pair, cells, steps)
    else:
        yield from _over_layers(pair, cells, steps)


def _over_inputs(rmodel: Client, pair: TextPair, cells: Cells, steps: int) -> Iterator[_Piece]:
    """Passes whose rows have embeddings between the two texts'; every point is read in each, and the input as a whole."""
    entry = _input_of(rmodel)
    for part in _paced(midpoints(steps), pair.ids.shape[1]):
        path = Path.between(len(pair.ids), part)
        readings = (
            GradientReading(cells.points, path, cells.summing()),
            GradientReading((entry,), path, _whole),
        )
        yield _Piece(len(part), readings, {entry: path})


def _over_layers(pair: TextPair, cells: Cells, steps: int) -> Iterator[_Piece]:
    """Passes of some layers each, with as many rows for each as there are steps."""
    nodes, summing = gauss_legendre(steps), cells.summing()
    for part in _paced(cells.points, steps * pair.ids.shape[1]):
        paths = {
            point: Path.between(len(pair.ids) + number * steps, nodes)
            for number, point in enumerate(part)
        }
        readings = tuple(GradientReading((point,), path, summing) for point, path in paths.items())
        yield _Piece(steps * len(part), readings, paths)


def _whole(numbers: Any) -> Any:
    return numbers.sum()


def _paced(things: Sequence[Any], tokens: int) -> Iterator[Any]:
    """Some of these things at a time, each of so many tokens: as many as the model does in a moment."""
    first, most = (max(1, limit // tokens) for limit in (FIRST_TOKENS, TOKENS))
    pace = Pace(first, most)
    while things:
        part, things = things[: pace.size], things[pace.size :]
        with pace.piece(len(part)):
            yield part


def _input_of(rmodel: Client) -> str:
    """The point at which a text enters the model."""
    return "layers.0.resid_pre" if "embed.out" in rmodel.catalog.refused else "embed.out"


def _limits(rmodel: Client, method: Method) -> list[str]:
    """What a result does not say, in words."""
    limits = ["first order: a cell's own curvature, and what cells do together, are left out"]
    if method == "layer":
        limits = ["what cells of a layer do together is shared out among them"]
    if method == "integrated" and "layers.{i}.per_layer.gate" not in rmodel.catalog.refused:
        limits.append("embeddings of tokens for each layer are the corrupted text's throughout")
    if "layers.{i}.mlp.router.logits" not in rmodel.catalog.refused:
        limits.append("where another expert is chosen the metric jumps, which no gradient sees")
    return limits


def _patched(
    rmodel: Client,
    pair: TextPair,
    cells: Cells,
    places: list[tuple[int, ...]],
    found: _Found,
) -> Tensor:
    """Exact values of some cells, as shares; NaN for all others."""
    import torch

    exact = torch.full(cells.shape, float("nan"))
    for place, number in zip(places, patched(rmodel, pair, cells, places), strict=True):
        exact[place] = (number - found.low) / (found.high - found.low)
    return exact


def _apart(values: Tensor, exact: Tensor) -> dict[str, float | int]:
    """How far values are from exact ones, where there are some."""
    import torch

    seen = ~exact.isnan()
    mine, theirs = values[seen].double(), exact[seen].double()
    error = mine - theirs
    told: dict[str, float | int] = {"cells": int(seen.sum())}
    if len(mine) > 1:
        told["pearson"] = float(torch.corrcoef(torch.stack([mine, theirs]))[0, 1])
    return told | {
        "largest error": float(error.abs().max()),
        "relative error": float(error.norm() / theirs.norm()),
    }


def _check_numbers(method: str, steps: int, check: int) -> None:
    if method not in get_args(Method):
        raise BadRequest(
            f"There is no method {method!r}.", f"There are {', '.join(get_args(Method))}."
        )
    for word, number, least in (("steps", steps, 1), ("check", check, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise BadRequest(f"{word}={number!r} is no number of them.", f"Give at least {least}.")
