"""Edge attribution: what travels from each part that writes to the residual stream to each that reads it, by gradients.

found = experiments.attribute_edges(rmodel, clean, corrupted, answers=(" Mary", " John"), check=20)
found.values                       # [writer, reader]; NaN where a reader stands before the writer
found.at(writer="head 20.0")       # to all readers
found.facts["check"]               # how far it is from patching 20 of the paths
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.grid import ALL, CellLayout, GridCell
from garcon_jupyter.experiments.activation_patching.measures import Measure, Metric
from garcon_jupyter.experiments.activation_patching.pairs import Pairs
from garcon_jupyter.experiments.activation_patching.path_patch import LOGITS, Paths
from garcon_jupyter.experiments.activation_patching.requests import Patch
from garcon_jupyter.experiments.attribution.edge_passes import passed
from garcon_jupyter.experiments.attribution.exact import (
    SampledCells,
    apart,
    check_numbers,
    patched,
    sample,
)
from garcon_jupyter.experiments.attribution.pair_batches import ENDS, PairBatch, told
from garcon_jupyter.experiments.attribution.paths import AS_THEY_ARE, Path, entry_of, midpoints
from garcon_jupyter.experiments.attribution.stream_ends import ENTERS, StreamEnds
from garcon_jupyter.experiments.clean_passes import need
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Method = Literal["corrupted", "clean", "mean", "integrated"]

SAYS = "share of the clean answer that travels from writer to reader, by its gradient: 0 as corrupted, 1 as clean"

NUMBERS = 1 << 26
"""Of readers' gradients at most so many travel at once."""

_NEEDED = (
    *("layers.{i}.resid_pre", "layers.{i}.attn.head_out", "layers.{i}.mlp.contribution"),
    *("layers.{i}.attn.q", "layers.{i}.attn.k", "layers.{i}.attn.v", "layers.{i}.mlp.in"),
    *("layers.{i}.attn.contribution", "final_norm.scale", "logits"),
)

LEFT_OVER = {"float32": 1e-3, "float64": 1e-3, "float16": 1e-2}
"""By dtype of the model, how much of a node may reach no reader by rounding, beside the largest; of bfloat16 more."""


def attribute_edges(
    rmodel: Client,
    clean: Any,
    corrupted: Any,
    answers: Any = None,
    metric: Metric | None = None,
    method: Method = "corrupted",
    steps: int = 5,
    check: int = 0,
    seed: int = 0,
) -> ExperimentResult:
    r"""How much of the clean answer would travel over each edge, by gradients (edge attribution patching).

    An edge leads from a writer to the residual stream (the embedding, a head, an MLP) to a later reader (queries of a head, keys and values
    of a key/value head, an MLP's input, the logits). Were only what this reader sees of this writer the clean run's, the metric would
    change, to first order, by

        Σ over positions of (writer_clean − writer_corrupted) · ∂L/∂(the reader's input)

    (Syed, Rager and Conmy 2023). The gradient is taken in the stream, through the Jacobian of the reader's norm at this run. Keys and
    values are read once for all heads that share them, so they have one reader for each key/value head. Where a norm comes after
    attention (Gemma 2 and 3, OLMo 2), what a head writes is taken through its Jacobian at this run; what an MLP writes is taken after its.

    The edges of a writer add up to its node attribution, which the same pass gives by another way. A model for which they do not reads
    or writes by ways that are not named here, such as clipped queries, and is refused.

    Args:
        clean, corrupted, answers, metric: as for :func:`~garcon_jupyter.experiments.attribution.nodes.attribute`. Several pairs take a
            pass each.
        method: where gradients are taken: at one of the runs, "corrupted" or "clean"; the "mean" of both; "integrated" over runs whose
            embeddings go from corrupted to clean in `steps` (EAP-IG, Hanna, Pezzelle and Belinkov 2024).
        check: so many edges are patched exactly as well, by :func:`path_patch
            <garcon_jupyter.experiments.activation_patching.path_patch.path_patch>`: half of them the strongest, the others drawn.
        seed: of that draw.

    Returns:
        ``values`` [writer, reader], or [pair, writer, reader]; NaN where there is no edge. ``more["nodes"]`` [writer] is the node
        attribution; with `check`, ``more["exact"]`` and ``facts["check"]`` as for ``attribute``. Of writers and readers p · D numbers
        each travel for each run that gradients are taken at: about 30 MB for SmolLM2 and 14 tokens.

    Raises:
        PointUnavailable: the model lacks points that this is made of.
        BadRequest, BadProbe, DoesNotFit: as for ``attribute``; or writers' edges do not add up.

    Examples:
        >>> clean = "When John and Mary went to the shops, John gave the bag to"
        >>> corrupted = "When John and Mary went to the shops, Mary gave the bag to"
        >>> found = experiments.attribute_edges(rmodel, clean, corrupted, (" Mary", " John"))
        >>> found.values.shape
        torch.Size([301, 481])
        >>> found.strongest(1)
        [({'writer': ..., 'reader': 'logits'}, ...)]
    """
    if method not in get_args(Method):
        raise BadRequest(
            f"There is no method {method!r}.", f"There are {', '.join(get_args(Method))}."
        )
    check_numbers(steps=(steps, 1), check=(check, 0))
    need(rmodel, "An attribution of edges", *_NEEDED)
    _refuse_mixed_layers(rmodel)
    pairs = Pairs.of(rmodel, clean, corrupted)
    measure = Measure.of(rmodel, pairs, answers, metric)
    ends = StreamEnds.of(rmodel)
    each = [
        _of_pair(rmodel, ends, pairs, pair, measure, method, steps) for pair in range(len(pairs))
    ]
    return _result(rmodel, ends, pairs, measure, each, method, steps, check, seed)


@dataclass(frozen=True)
class _OfPair:
    """What was found of a pair: its edges [writer, reader] and its nodes [writer], as shares of its ends."""

    edges: Tensor
    nodes: Tensor
    ends: tuple[float, float]


def _result(
    rmodel: Client,
    ends: StreamEnds,
    pairs: Pairs,
    measure: Measure,
    each: Sequence[_OfPair],
    method: Method,
    steps: int,
    check: int,
    seed: int,
) -> ExperimentResult:
    import torch

    values = torch.stack([one.edges for one in each])
    ends_of = torch.tensor([one.ends for one in each])
    more = {
        "nodes": torch.stack([one.nodes for one in each]),
        "corrupted": ends_of[:, 0],
        "clean": ends_of[:, 1],
    }
    facts = {
        **told(rmodel, pairs, measure),
        "method": method,
        "ends": [*map(list, [one.ends for one in each])],
        "limits": ["first order: what edges do together, and their curvature, are left out"],
    }
    if method == "integrated":
        facts["steps"] = steps
    axes: dict[str, Any] = {
        "pair": range(len(pairs)),
        "writer": ends.writers,
        "reader": ends.readers,
    }
    if check:
        paths = EdgePaths.of(rmodel, ends, sample(values.nanmean(0), check, seed))
        more["exact"] = patched(rmodel, pairs, measure, paths.cells(), values, paths.rows)
        facts["check"] = apart(values, more["exact"])
    if len(pairs) == 1:
        values, more = values[0], {name: value[0] for name, value in more.items()}
        facts["ends"] = facts["ends"][0]
        del axes["pair"]
    return ExperimentResult("attribute_edges", values, axes, SAYS, facts, more)


def _of_pair(
    rmodel: Client,
    ends: StreamEnds,
    pairs: Pairs,
    pair: int,
    measure: Measure,
    method: Method,
    steps: int,
) -> _OfPair:
    import torch

    length = pairs.lengths[pair]
    products = torch.zeros(len(ends.writers), len(ends.readers))
    scores = torch.zeros(len(ends.writers))
    low = high = torch.zeros(1)
    for batch, path, edits in _pieces(rmodel, ends, pairs, pair, method, steps, length):
        measured, seen = passed(rmodel, ends, batch, measure, path, edits)
        low, high = batch.ends(measured)
        changes, gradients = ends.differences(seen, len(path.rows)), ends.gradients(seen)
        for row, weight in enumerate(path.weights):
            change = changes[row if len(changes) > 1 else 0]
            products += weight * (change.flatten(1) @ gradients[row].flatten(1).T)
        scores += torch.cat([seen[point, "score"] for point in ends.points_written()])
    writes, reads = torch.tensor(ends.written)[:, None], torch.tensor(ends.read)
    edges = products.masked_fill(reads <= writes, float("nan"))
    wide = float(high - low)
    found = _OfPair(edges / wide, scores / wide, (float(low), float(high)))
    _check(found, ends.writers, LEFT_OVER.get(rmodel.facts["model"]["dtype"], 5e-2))
    return found


def _pieces(
    rmodel: Client,
    ends: StreamEnds,
    pairs: Pairs,
    pair: int,
    method: Method,
    steps: int,
    length: int,
) -> Iterator[tuple[PairBatch, Path, dict[str, Path]]]:
    """The passes of a pair: rows, those at which gradients are taken, and what is set."""
    if method in AS_THEY_ARE:
        yield PairBatch(pairs, (pair,)), AS_THEY_ARE[method], {}
        return
    width = rmodel.catalog.size("D") or 1
    at_once = max(1, NUMBERS // (len(ends.readers) * length * width))
    nodes = midpoints(steps)
    for start in range(0, steps, at_once):
        some = nodes[start : start + at_once]
        path = Path.between(ENDS, some)
        yield PairBatch(pairs, (pair,), len(some)), path, {entry_of(rmodel): path}


def _check(found: _OfPair, names: Sequence[str], left_over: float) -> None:
    """The edges of each writer must add up to what it does in all."""
    sums = found.edges.nansum(1)
    apart_by = (sums - found.nodes).abs()
    if not float(apart_by.max()) <= left_over * float(found.nodes.abs().max()):
        worst = int(apart_by.argmax())
        raise BadRequest(
            f"The edges of {names[worst]} add up to {float(sums[worst]):.4g}, and its own attribution is "
            f"{float(found.nodes[worst]):.4g}: this model reads its stream, or writes to it, in other ways as well.",
            "experiments.attribute tells of values, whatever reads them.",
        )


def _refuse_mixed_layers(rmodel: Client) -> None:
    """Every layer must have attention and an MLP: what else mixes tokens reads the stream by ways of its own."""
    for template in ("layers.{i}.attn.head_out", "layers.{i}.mlp.in"):
        if len(having := rmodel.catalog.layers[template]) < rmodel.catalog.n_layers:
            raise BadRequest(
                f"Only {len(having)} of {rmodel.catalog.n_layers} layers have {template}.",
                "Edges are told of models whose layers all have attention and an MLP.",
            )


# -- edges as paths ------------------------------------------------------------------------------


@dataclass(frozen=True)
class EdgePaths:
    """Some edges, to be patched as direct paths.

    Attributes:
        ends: the writers and readers.
        edges: of each the number of its writer and of its reader.
        paths: to each reader, by its number.
        senders: points of the writers, which cells have by number.
    """

    ends: StreamEnds
    edges: Sequence[tuple[int, ...]]
    paths: dict[int, Paths]
    senders: list[str]

    @classmethod
    def of(cls, rmodel: Client, ends: StreamEnds, edges: Sequence[tuple[int, ...]]) -> EdgePaths:
        """Those of some edges."""
        paths = {reader: Paths.of(rmodel, _receiver(ends.readers[reader])) for _, reader in edges}
        senders = dict.fromkeys(_sender(ends.writers[writer])[0] for writer, _ in edges)
        return cls(ends, edges, paths, [*senders])

    def cells(self) -> SampledCells:
        """The edges, each as a cell whose place is its writer's."""
        found = []
        for writer, reader in self.edges:
            point, place = _sender(self.ends.writers[writer])
            where = (self.senders.index(point), place)
            layer = int(point.split(".")[1])
            found.append(GridCell((writer, reader), (where,), layer, None))
        axes = {"writer": self.ends.writers, "reader": self.ends.readers}
        return SampledCells(tuple(self.senders), self.senders, found, {**axes})

    def rows(self, grid: CellLayout, cell: GridCell) -> list[list[Patch]]:
        """The rows of an edge."""
        return self.paths[cell.at[1]].rows(grid, cell)


def _sender(writer: str) -> tuple[str, tuple[int, ...]]:
    """The point of a writer, and where in a row's value it is."""
    kind, _, place = writer.partition(" ")
    if kind == "head":
        layer, head = map(int, place.split("."))
        return f"layers.{layer}.attn.z", (ALL, head, ALL)
    return (f"layers.{place}.mlp.contribution" if kind == "mlp" else ENTERS), (ALL, ALL, ALL)


def _receiver(reader: str) -> Any:
    """A reader, as paths take their receivers."""
    if reader == "logits":
        return LOGITS
    kind, _, place = reader.partition(" ")
    if kind == "mlp":
        return f"layers.{place}.mlp.in"
    layer, head = map(int, place.split("."))
    return {f"layers.{layer}.attn.{kind}": [head]}
