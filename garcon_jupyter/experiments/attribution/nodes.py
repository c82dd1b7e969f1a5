"""Attribution of values by gradients: what exact patching would give, to first order, for all cells at once.

found = experiments.attribute(rmodel, clean, corrupted, "layers.*.attn.z", answers=(" Mary", " John"), check=20)
found.values                   # [layer, head]: 0 as corrupted, 1 as clean
found.facts["check"]           # how far it is from patching 20 of the cells
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from garcon_jupyter.client.probes import ProbePoint
from garcon_jupyter.connection.background import Pace
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.measures import Measure, Metric
from garcon_jupyter.experiments.activation_patching.pairs import Pairs
from garcon_jupyter.experiments.attribution.cells import Cells
from garcon_jupyter.experiments.attribution.exact import (
    SampledCells,
    apart,
    check_numbers,
    patched,
    sample,
)
from garcon_jupyter.experiments.attribution.gradients import GradientReading, weigh
from garcon_jupyter.experiments.attribution.pair_batches import (
    ENDS,
    PairBatch,
    by_length,
    told,
)
from garcon_jupyter.experiments.attribution.paths import (
    AS_THEY_ARE,
    Path,
    entry_of,
    gauss_legendre,
    midpoints,
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


def attribute(
    rmodel: Client,
    clean: Any,
    corrupted: Any,
    points: str | ProbePoint = "layers.*.attn.z",
    by: Sequence[str] = ("layer", "head"),
    answers: Any = None,
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
        clean, corrupted: texts, or tokens; or lists of them, which are attributed two by two. Two of a pair have equally many tokens;
            pairs may be of different lengths, and are never padded. Pairs of one length share passes.
        points: a pattern of points of one kind, such as ``"layers.*.attn.z"`` or ``"layers.8-15.mlp.post_activation"``.
        by: the axes: ("layer", "head"), ("layer", "position"), ("layer", "position", "head"), ("layer", "unit"), …; keys and
            values that several heads share have no "head" but a "kv_head".
        answers: a token (its text or id) of the clean and one of the corrupted text, or a list of two for each pair, whose difference of
            logits at the last position is the metric; by default what the model itself predicts after each.
        metric: logits [row, p, V] to [row], differentiable, instead of that. All positions are unembedded for it.
        steps: of the last two methods, runs between the two: at the middles of equal steps over inputs, at Gauss and Legendre's nodes at a layer.
        check: so many cells are patched exactly as well, the same of all pairs: half of them the strongest, the others drawn.
        seed: of that draw.

    Returns:
        ``values`` by the axes, before them "pair" where there are several pairs; NaN where a text has no such position. ``more`` has
        ``corrupted`` and ``clean``, the metric of the ends of each pair, and so has ``facts["ends"]``; with `check`, ``more["exact"]``
        has the patched values of those cells (others NaN) and ``facts["check"]`` Pearson's correlation with them, the largest error,
        and the error relative to their size.

    Raises:
        UnknownPoint, PointUnavailable: the model has no such point.
        BadRequest: unequal lengths, or as many texts of one kind as of the other there are not; axes that the point has not; a metric that gives no number for each row; nothing to restore;
            a method or numbers that are none.
        BadProbe: the metric cannot be called with logits.
        DoesNotFit: a pair does not fit into the server's memory; before anything has run.

    Examples:
        >>> clean = "When John and Mary went to the shops, John gave the bag to"
        >>> corrupted = "When John and Mary went to the shops, Mary gave the bag to"
        >>> found = experiments.attribute(rmodel, clean, corrupted, answers=(" Mary", " John"), check=20)
        >>> found.strongest(2)
        [({'layer': 23, 'head': 3}, ...), ({'layer': ..., 'head': ...}, ...)]
    """
    pattern = points.name if isinstance(points, ProbePoint) else points
    _check(method, steps, check)
    need(rmodel, "An attribution", "logits")
    pairs = Pairs.of(rmodel, clean, corrupted)
    cells = Cells.of(rmodel, pattern, by, max(pairs.lengths))
    measure = Measure.of(rmodel, pairs, answers, metric)
    found = _attributed(rmodel, pairs, measure, cells, method, steps)
    alone = len(pairs) == 1
    facts = {
        **told(rmodel, pairs, measure),
        "points": pattern,
        "method": method,
        "ends": found.ends[0] if alone else found.ends,
        "limits": _limits(rmodel, method),
    }
    if method in ("integrated", "layer"):
        facts["steps"] = steps
    if found.of_input:
        facts["input"] = found.of_input[0] if alone else found.of_input
    values = found.values
    more = found.more()
    if check:
        places = sample(values.nanmean(0), check, seed)
        chosen = SampledCells(
            cells.patterns, cells.names, [cells.cell(at) for at in places], {**cells.axes}
        )
        more["exact"] = patched(rmodel, pairs, measure, chosen, values)
        facts["check"] = apart(values, more["exact"])
    axes: dict[str, Any] = {"pair": range(len(pairs)), **cells.axes}
    if alone:
        values, more = values[0], {name: value[0] for name, value in more.items()}
        del axes["pair"]
    return ExperimentResult("attribute", values, axes, SAYS, facts, more)


@dataclass(frozen=True)
class _Piece:
    """A pass: what it reads beside the texts as they are, what is set in them, and what is read."""

    batch: PairBatch
    readings: tuple[GradientReading, ...]
    edits: Mapping[str, Path] = field(default_factory=dict)


@dataclass
class _Found:
    """What gradients say.

    Attributes:
        values: of each pair's cells, as shares of its ends.
        ends: of each pair the metric of the corrupted and of the clean run.
        of_input: of each pair, along a path of inputs, the share of the input as a whole.
    """

    values: Tensor
    ends: list[list[float]]
    of_input: list[float]

    def more(self) -> dict[str, Tensor]:
        import torch

        ends = torch.tensor(self.ends)
        return {"corrupted": ends[:, 0], "clean": ends[:, 1]}


def _attributed(
    rmodel: Client, pairs: Pairs, measure: Measure, cells: Cells, method: Method, steps: int
) -> _Found:
    import torch

    values = torch.zeros(len(pairs), *map(len, cells.axes.values()))
    ends, of_input = torch.zeros(len(pairs), 2, dtype=torch.double), torch.zeros(len(pairs))
    got: dict[tuple[int, ...], dict[str, Tensor]] = {}
    for piece in _pieces(rmodel, pairs, cells, method, steps):
        measured, found = weigh(rmodel, piece.batch, measure, piece.readings, piece.edits)
        mine = [*piece.batch.numbers]
        ends[mine] = torch.stack(piece.batch.ends(measured), 1)
        if method == "integrated":
            of_input[mine] += sum(found.pop().values())
        total = got.setdefault(piece.batch.numbers, {})
        for reading in found:
            for point, number in reading.items():
                total[point] = total[point] + number if point in total else number
    for numbers, total in got.items():
        values[[*numbers]] = cells.gather(total)
    wide = (ends[:, 1] - ends[:, 0]).float()
    values = values / wide.view(-1, *[1] * len(cells.axes))
    return _Found(
        values, ends.tolist(), (of_input / wide).tolist() if method == "integrated" else []
    )


def _pieces(
    rmodel: Client, pairs: Pairs, cells: Cells, method: Method, steps: int
) -> Iterator[_Piece]:
    """The passes that a method takes: pairs of one length together, as many as the model does in a moment."""
    for numbers in by_length(pairs):
        length = pairs.lengths[numbers[0]]
        if method in AS_THEY_ARE:
            reading = GradientReading(cells.points, AS_THEY_ARE[method], cells.summing())
            for some in _paced(numbers, ENDS * length):
                yield _Piece(PairBatch(pairs, tuple(some)), (reading,))
        elif method == "integrated":
            for some in _groups(numbers, (ENDS + steps) * length):
                yield from _over_inputs(rmodel, PairBatch(pairs, some), cells, steps)
        else:
            for some in _groups(numbers, (ENDS + steps) * length):
                yield from _over_layers(PairBatch(pairs, some), cells, steps)


def _over_inputs(rmodel: Client, batch: PairBatch, cells: Cells, steps: int) -> Iterator[_Piece]:
    """Passes whose rows have embeddings between the two texts'; every point is read in each, and the input as a whole."""
    entry = entry_of(rmodel)
    for part in _paced(midpoints(steps), batch.length * len(batch.numbers)):
        path = Path.between(ENDS, part)
        readings = (
            GradientReading(cells.points, path, cells.summing()),
            GradientReading((entry,), path, _whole),
        )
        yield _Piece(replace(batch, between=len(part)), readings, {entry: path})


def _over_layers(batch: PairBatch, cells: Cells, steps: int) -> Iterator[_Piece]:
    """Passes of some layers each, with as many rows for each as there are steps."""
    nodes, summing = gauss_legendre(steps), cells.summing()
    for part in _paced(cells.points, steps * batch.length * len(batch.numbers)):
        paths = {
            point: Path.between(ENDS + number * steps, nodes) for number, point in enumerate(part)
        }
        readings = tuple(GradientReading((point,), path, summing) for point, path in paths.items())
        yield _Piece(replace(batch, between=steps * len(part)), readings, paths)


def _whole(numbers: Any) -> Any:
    return numbers.flatten(1).sum(1)


def _groups(numbers: Sequence[int], tokens: int) -> Iterator[tuple[int, ...]]:
    """Some pairs at a time, each of so many tokens."""
    size = max(1, TOKENS // tokens)
    for start in range(0, len(numbers), size):
        yield tuple(numbers[start : start + size])


def _paced(things: Sequence[Any], tokens: int) -> Iterator[Any]:
    """Some of these things at a time, each of so many tokens: as many as the model does in a moment."""
    first, most = (max(1, limit // tokens) for limit in (FIRST_TOKENS, TOKENS))
    pace = Pace(first, most)
    while things:
        part, things = things[: pace.size], things[pace.size :]
        with pace.piece(len(part)):
            yield part


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


def _check(method: str, steps: int, check: int) -> None:
    if method not in get_args(Method):
        raise BadRequest(
            f"There is no method {method!r}.", f"There are {', '.join(get_args(Method))}."
        )
    check_numbers(steps=(steps, 1), check=(check, 0))
