"""Edge attribution: what travels from each part that writes to the residual stream to each that reads it, by gradients.

found = experiments.attribute_edges(rmodel, clean, corrupted, answers=(" Mary", " John"))
found.values                       # [writer, reader]; NaN where a reader stands before the writer
found.at(writer="head 20.0")       # to all readers
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from garcon_jupyter.client.probes import Probe
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.attribution.text_pair import (
    CLEAN,
    CORRUPTED,
    Metric,
    TextPair,
    ends,
)
from garcon_jupyter.experiments.clean_passes import contexts, need
from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.points import fill

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

SAYS = "share of the clean answer that travels from writer to reader, by its gradient: 0 as corrupted, 1 as clean"

ENTERS = "layers.0.resid_pre"
LAST_NORM = "final_norm"

_NEEDED = (
    *("layers.{i}.resid_pre", "layers.{i}.attn.head_out", "layers.{i}.mlp.contribution"),
    *("layers.{i}.attn.q", "layers.{i}.attn.k", "layers.{i}.attn.v", "layers.{i}.mlp.in"),
    *("final_norm.scale", "logits"),
)

LEFT_OVER = {"float32": 1e-3, "float64": 1e-3, "float16": 1e-2}
"""By dtype of the model, how much of a node may reach no reader by rounding, beside the largest; of bfloat16 more."""


@dataclass(frozen=True)
class _Writers:
    """What is added to the stream.

    Attributes:
        names: of each.
        places: where in the order of the pass each writes: twice the layer, and one more for an MLP; -1 for the embedding.
        differences: clean less corrupted, [writer, p, D].
        scores: their node attribution, by the gradient where they write, [writer].
    """

    names: list[str]
    places: list[int]
    differences: Tensor
    scores: Tensor


@dataclass(frozen=True)
class _Readers:
    """What reads the stream.

    Attributes:
        names: of each.
        places: as those of writers; a reader reads all that was written at earlier places.
        gradients: at its input, before its norm, [reader, p, D].
    """

    names: list[str]
    places: list[int]
    gradients: Tensor


def attribute_edges(
    rmodel: Client,
    clean: Any,
    corrupted: Any,
    answers: Sequence[Any] | None = None,
    metric: Metric | None = None,
    method: Literal["corrupted", "clean"] = "corrupted",
) -> ExperimentResult:
    r"""How much of the clean answer would travel over each edge, by gradients (edge attribution patching).

    An edge leads from a writer to the residual stream (the embedding, a head, an MLP) to a later reader (queries of a head, keys and values
    of a key/value head, an MLP's input, the logits). Were only what this reader sees of this writer the clean run's, the metric would
    change, to first order, by

        Σ over positions of (writer_clean − writer_corrupted) · ∂L/∂(the reader's input)

    (Syed, Rager and Conmy 2023). The gradient is taken in the stream, through the Jacobian of the reader's norm at this run. Keys and
    values are read once for all heads that share them, so they have one reader for each key/value head.

    The edges of a writer add up to its node attribution, which the same pass gives by another way. A model for which they do not reads
    or writes by ways that are not named here, and is refused: post-norms, multipliers of what a head writes, clipped queries.

    Args:
        clean, corrupted, answers, metric: as for :func:`~garcon_jupyter.experiments.attribution.nodes.attribute`.
        method: at which run gradients are taken.

    Returns:
        ``values`` [writer, reader], NaN where there is no edge; ``more["nodes"]`` [writer] is the node attribution. Of writers and readers
        p · D numbers each travel: about 30 MB for SmolLM2 and 14 tokens.

    Raises:
        PointUnavailable: the model lacks points that this is made of.
        BadRequest: as for ``attribute``; or writers' edges do not add up.

    Examples:
        >>> clean = "When John and Mary went to the shops, John gave the bag to"
        >>> corrupted = "When John and Mary went to the shops, Mary gave the bag to"
        >>> found = experiments.attribute_edges(rmodel, clean, corrupted, (" Mary", " John"))
        >>> found.values.shape
        torch.Size([301, 481])
        >>> found.strongest(1)
        [({'writer': ..., 'reader': 'logits'}, ...)]
    """
    if method not in ("corrupted", "clean"):
        raise BadRequest(f"There is no method {method!r}.", "There are corrupted, clean.")
    need(rmodel, "An attribution of edges", *_NEEDED)
    _refuse_mixed_layers(rmodel)
    pair = TextPair.of(rmodel, clean, corrupted, answers, metric)
    row = CLEAN if method == "clean" else CORRUPTED
    measured, seen = _passed(rmodel, pair, row)
    low, high = ends(measured)
    writers, readers = _writers(rmodel, seen), _readers(rmodel, seen)
    values = _edges(writers, readers) / (high - low)
    nodes = writers.scores / (high - low)
    _check(values, nodes, writers.names, LEFT_OVER.get(rmodel.facts["model"]["dtype"], 5e-2))
    facts = {
        "model": rmodel.facts["name"],
        **pair.facts(),
        "method": method,
        "ends": [low, high],
        "limits": ["first order: what edges do together, and their curvature, are left out"],
    }
    axes = {"writer": tuple(writers.names), "reader": tuple(readers.names)}
    return ExperimentResult("attribute_edges", values, axes, SAYS, facts, {"nodes": nodes})


def _edges(writers: _Writers, readers: _Readers) -> Tensor:
    """[writer, reader], NaN where the reader does not read what the writer writes."""
    import torch

    products = writers.differences.flatten(1) @ readers.gradients.flatten(1).T
    writes, reads = torch.tensor(writers.places)[:, None], torch.tensor(readers.places)
    return products.masked_fill(reads <= writes, float("nan"))


def _check(values: Tensor, nodes: Tensor, names: Sequence[str], left_over: float) -> None:
    """The edges of each writer must add up to what it does in all."""
    apart = (values.nansum(1) - nodes).abs()
    if float(apart.max()) > left_over * float(nodes.abs().max()):
        worst = int(apart.argmax())
        raise BadRequest(
            f"The edges of {names[worst]} add up to {float(values[worst].nansum()):.4g}, and its own attribution is "
            f"{float(nodes[worst]):.4g}: this model reads its stream, or writes to it, in other ways as well.",
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


# -- the pass ------------------------------------------------------------------------------------


def _keep_difference(save_ctx: Any, tensor: Any) -> None:
    save_ctx.difference = (tensor[0] - tensor[1]).detach().float().cpu()


def _keep_score(row: int) -> Callable[[Any, Any], None]:
    """A gradient probe that multiplies the difference with the gradient where it is written: [head], or one number."""

    def keep_score(save_ctx: Any, tensor: Any) -> None:
        gradient = tensor[row].float()
        product = save_ctx.difference.to(gradient.device) * gradient
        save_ctx.score = (product.sum((0, 2)) if product.dim() == 3 else product.sum()[None]).cpu()

    return keep_score


def _keep_row(row: int) -> Callable[[Any, Any], None]:
    def keep_row(save_ctx: Any, tensor: Any) -> None:
        save_ctx.value = tensor[row].detach().float().cpu()

    return keep_row


def _keep_gradient(row: int, weight: str | None = None) -> Callable[[Any, Any], None]:
    """A gradient probe that keeps the gradient of a row; of heads, at what they are projected from, [head, p, D]."""

    def keep_gradient(save_ctx: Any, tensor: Any) -> None:
        gradient = tensor[row].float()
        if weight is not None:
            by_head = save_ctx.params[weight].float().view(*gradient.shape[1:], -1)
            gradient = (gradient.transpose(0, 1) @ by_head).contiguous()
        save_ctx.gradient = gradient.cpu()

    return keep_gradient


Seen = dict[tuple[str, str], "Tensor"]
"""(point, "difference" | "score" | "gradient" | "value") → what was kept there."""


def _passed(rmodel: Client, pair: TextPair, row: int) -> tuple[Tensor, Seen]:
    """One forward and one backward, with all that edges are made of."""
    metric, made = pair.metric, rmodel.probe_points
    probes: list[Probe] = []
    wanted: list[tuple[str, str]] = []

    def ask(what: str, point: str, function: Any, **options: Any) -> None:
        probes.append(made[point].probe(function, name=name, read_only=True, **options))
        wanted.append((point, what))

    def measure(save_ctx: Any, tensor: Any) -> None:
        save_ctx.value = metric(tensor.detach()).double().cpu()

    with contexts(rmodel, "edges") as name:
        ask("value", "logits", measure)
        gradient = _keep_gradient(row)
        for point in _written(rmodel):
            ask("difference", point, _keep_difference)
            ask("score", point, _keep_score(row), grad=True)
        for layer in range(rmodel.catalog.n_layers):
            for letter in "qkv":
                point, weight = (
                    fill(f"layers.{{i}}.attn.{letter}{end}", layer) for end in ("", "_proj")
                )
                ask("gradient", point, _keep_gradient(row, weight), grad=True, params=[weight])
            ask("gradient", fill("layers.{i}.mlp.in", layer), gradient, grad=True)
        ask("gradient", f"{LAST_NORM}.out", gradient, grad=True)
        for norm in _norms(rmodel):
            for part in ("scale", "normalized"):
                ask("value", f"{norm}.{part}", _keep_row(row))
        rmodel.backward(pair.ids, lambda logits: metric(logits).sum(), probes=probes)
        recordings = rmodel.recordings(fetch=False)
        found = rmodel.fetch(*(recordings[point, name].handle(what) for point, what in wanted))
    seen = dict(zip(wanted, found, strict=True))
    return seen.pop(("logits", "value")), seen


def _written(rmodel: Client) -> list[str]:
    """The points of writers, in order."""
    layers = range(rmodel.catalog.n_layers)
    halves = ("layers.{i}.attn.head_out", "layers.{i}.mlp.contribution")
    return [ENTERS, *(fill(half, layer) for layer in layers for half in halves)]


def _norms(rmodel: Client) -> list[str]:
    """The norms through which the stream is read, of those that the model has."""
    named = [
        fill(f"layers.{{i}}.{half}.norm", layer)
        for layer in range(rmodel.catalog.n_layers)
        for half in ("attn", "mlp")
        if layer in rmodel.catalog.layers.get(f"layers.{{i}}.{half}.norm.scale", ())
    ]
    return [*named, LAST_NORM]


# -- both ends -----------------------------------------------------------------------------------


def _writers(rmodel: Client, seen: Seen) -> _Writers:
    import torch

    names, places = ["embedding"], [-1]
    points = _written(rmodel)
    for layer in range(rmodel.catalog.n_layers):
        heads = len(seen[fill("layers.{i}.attn.head_out", layer), "score"])
        names += [*(f"head {layer}.{head}" for head in range(heads)), f"mlp {layer}"]
        places += [*([2 * layer] * heads), 2 * layer + 1]
    differences = [seen[point, "difference"] for point in points]
    return _Writers(
        names,
        places,
        torch.cat([d.transpose(0, 1) if d.dim() == 3 else d[None] for d in differences]),
        torch.cat([seen[point, "score"] for point in points]),
    )


def _readers(rmodel: Client, seen: Seen) -> _Readers:
    import torch

    names: list[str] = []
    places: list[int] = []
    gradients: list[Tensor] = []

    def add(found: list[str], place: int, norm: str, gradient: Tensor) -> None:
        names.extend(found)
        places.extend([place] * len(found))
        gradients.append(_before_norm(rmodel, norm, gradient, seen))

    parallel = "layers.{i}.resid_mid" in rmodel.catalog.refused
    for layer in range(rmodel.catalog.n_layers):
        parts = {x: seen[fill(f"layers.{{i}}.attn.{x}", layer), "gradient"] for x in "qkv"}
        heads = [f"{x} {layer}.{head}" for x, part in parts.items() for head in range(len(part))]
        norm = fill("layers.{i}.attn.norm", layer)
        add(heads, 2 * layer, norm, torch.cat([*parts.values()]))
        mlp = seen[fill("layers.{i}.mlp.in", layer), "gradient"]
        place = 2 * layer if parallel else 2 * layer + 1
        own = fill("layers.{i}.mlp.norm", layer)
        if parallel and (f"{own}.scale", "value") not in seen:  # one norm for both halves
            own = norm
        add([f"mlp {layer}"], place, own, mlp[None])
    end = seen[f"{LAST_NORM}.out", "gradient"]
    add(["logits"], 2 * rmodel.catalog.n_layers, LAST_NORM, end[None])
    return _Readers(names, places, torch.cat(gradients))


def _before_norm(rmodel: Client, norm: str, gradient: Tensor, seen: Seen) -> Tensor:
    """Gradients [reader, p, D] at what a norm puts out, as they are at what the norm reads: by its Jacobian there.

    With n = (x − mean x) / scale and a gain w: (g − mean g − n · mean(n ⊙ g)) / scale of g = w ⊙ gradient; an RMSNorm takes no mean away.
    """
    if (f"{norm}.scale", "value") not in seen:
        return gradient
    scale, normalized = (seen[f"{norm}.{part}", "value"] for part in ("scale", "normalized"))
    if f"{norm}.weight" in rmodel.catalog.parameters:
        gradient = gradient * rmodel.get_parameter(f"{norm}.weight").float()
    along = (normalized * gradient).mean(-1, keepdim=True)
    if float(normalized.mean(-1).abs().max()) < 1e-4:  # a LayerNorm
        gradient = gradient - gradient.mean(-1, keepdim=True)
    return (gradient - normalized * along) / scale
