"""The attribution graph of a prompt.

found = experiments.attribution_graph(rmodel, "The capital of France is", ["tc0", "tc1", …])
found.to_frame()                                  # its edges
found.show()                                      # layers × positions
experiments.save_graph(found, "graph.json")       # for circuit-tracer's and Neuronpedia's viewers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.background import Pace
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.attribution.exact import check_numbers
from garcon_jupyter.experiments.attribution_graphs.ablated_nodes import checked_nodes
from garcon_jupyter.experiments.attribution_graphs.adjacency import Adjacency
from garcon_jupyter.experiments.attribution_graphs.frozen_passes import LATENT, LOGIT, FrozenModel
from garcon_jupyter.experiments.attribution_graphs.pruning import KeptGraph, SquareGraph, pruned
from garcon_jupyter.experiments.attribution_graphs.run import run_of
from garcon_jupyter.experiments.attribution_graphs.transcoders import transcoders_of
from garcon_jupyter.experiments.clean_passes import decoder, one_text, whole_pieces
from garcon_jupyter.experiments.lenses.texts import Progress
from garcon_jupyter.experiments.result import ExperimentResult, Label

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

SAYS = "what the source adds to the target's pre-activation, or to its logit less the mean of all"

TOKENS = 1024
"""Tokens of a batch of targets at most."""

LEAST_TARGETS = 16
"""Targets of a batch at least: of fewer, the forward and the probes of each pass would cost more than they."""


def attribution_graph(
    rmodel: Client,
    prompt: Any,
    dictionaries: Sequence[str],
    targets: int = 256,
    logit_share: float = 0.95,
    most_logits: int = 10,
    node_share: float = 0.8,
    edge_share: float = 0.98,
    bypass: Sequence[int] | None = None,
    check: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> ExperimentResult:
    r"""How tokens, latents of transcoders and what these lack add up to each latent and to the logits of a prompt.

    Nodes are the tokens' embeddings, the active latents, the error of each MLP at each position (all of it where a layer has no
    transcoder), and the logits. Attention patterns and the denominators of all norms are held as they are at this run. Then a later
    pre-activation, or a logit less the mean of all, is a sum over earlier nodes,

        pre(t) = Σ_s a(s) · d(s) · ∂pre(t)/∂stream + what biases add,

    whose terms are the edges (Dunefsky, Chlenski and Nanda 2024; Ameisen et al. 2025). They are exact for the model that is so held.
    A backward pass gives all edges into as many targets as a batch has rows. Logits come first, then the latents that have the most
    influence by what is known, as in circuit-tracer (Hanna, Piotrowski et al. 2025), whose pruning this also is.

    Args:
        prompt: one text, or tokens.
        dictionaries: names of transcoders that are loaded, of one layer each, from what an MLP reads to what it puts out; or of a
            cross-layer one.
        targets: so many latents, those with the most influence, get incoming edges; others are no nodes.
        logit_share: the likeliest next tokens are nodes whose probability adds up to this,
        most_logits: but no more than these.
        node_share, edge_share: nodes, and then edges, are kept that have this share of the influence together.
        bypass: positions whose latents are none, so that the error there is all of the MLP; [] for none. By default those that any of the
            transcoders was not trained on, as for ``rmodel.spliced``.
        check: so many latents are set to zero in the model itself, in which nothing is held: half of them the strongest, the others
            drawn.
        seed: of that draw.
        progress: whether a line says how far it is.

    Returns:
        ``values`` [target, source], the edges that are kept; NaN elsewhere. ``more`` has of each target its "value" and what "bias"es add
        (value − all edges, kept or not), of each source its "influence" and its "total effect" on the likeliest logit, along all ways;
        with `check`, "exact effect". ``facts["nodes"]`` tells each node by its name, ``facts["scores"]`` how much of the whole
        latents explain, ``facts["check"]`` how far total effects are from exact ones. An interrupt leaves the targets that are done.

    Raises:
        UnknownName: no dictionary of that name is loaded.
        PointUnavailable: the model has parts that cannot be held: a mixer that is no attention, a norm of values, several streams.
        BadRequest: dictionaries that are no transcoders of an MLP; several texts; numbers that are none; no active latent.
        DoesNotFit: a batch does not fit into the server's memory; before anything has run.

    Examples:
        >>> import tempfile
        >>> text = "When John and Mary went to the shops, John gave the bag to"
        >>> ends, where = ("layers.26.mlp.in", "layers.26.mlp.out"), tempfile.mkdtemp() + "/layer26"
        >>> _ = rmodel.train_dictionary(ends, [text] * 40, 64, "transcoder", out=where, k=4, batch=64, show=False)
        >>> transcoder = rmodel.dictionaries.load(where, show=False)
        >>> graph = experiments.attribution_graph(rmodel, text, [transcoder.name], targets=4, progress=False)
        >>> graph.facts["dictionaries"], list(graph.axes)
        (['layer26'], ['target', 'source'])
        >>> transcoder.unload()
    """
    import torch

    tokens = one_text(rmodel, prompt)
    _check(targets, most_logits, check, logit_share, node_share, edge_share)
    chosen = transcoders_of(rmodel, dictionaries)
    length = tokens.shape[1]
    untrained = {p for each in chosen for p in each.points.untrained if p < length}
    past = _positions(sorted(untrained) if bypass is None else bypass, length)
    run = run_of(
        rmodel, tokens, chosen, past, logit_share, min(most_logits, rmodel.catalog.sizes["V"])
    )
    model = FrozenModel(rmodel, tokens, chosen, run, past)
    known, values, interrupted = _grown(model, targets, Progress(targets, "targets", progress))
    order = sorted(known.rows, key=lambda latent: -int(run.which[latent]))
    total = known.total_effects(order, run.activations)[0]
    latents = sorted(known.rows)
    square = _square(known, latents, tokens.shape[1])
    kept = pruned(square, node_share, edge_share)
    facts = {
        "model": rmodel.facts["name"],
        "tokens": list(rmodel.token_strings(tokens)[0]),
        "token ids": tokens.ids[0].tolist(),
        "dictionaries": list(dict.fromkeys(each.name for each in chosen)),
        "layers": rmodel.catalog.n_layers,
        "bypass": list(past),
        "active latents": len(run.which),
        "targets": len(latents),
        "interrupted": interrupted,
        "node_share": node_share,
        "scores": {"replacement": kept.replacement, "completeness": kept.completeness},
        "limits": _limits(),
    }
    exact = None
    if check:
        found, facts["check"] = checked_nodes(model, latents, total[latents], check, seed)
        exact = torch.full_like(total, float("nan"))
        exact[latents] = found
    return _result(model, known, values, square, kept, latents, total, exact, facts)


def _grown(model: FrozenModel, most: int, progress: Progress) -> tuple[Adjacency, Tensor, bool]:
    """Edges into the logits, and then, a batch after the other, into the latents with the most influence.

    Returns:
        Those, the logits' values, and whether it was interrupted.
    """
    import torch

    run = model.run
    edges, values = model.edges([(LOGIT, token) for token in run.logits])
    weights = torch.tensor(run.probabilities, dtype=torch.float64)
    known = Adjacency(weights, len(run.which), edges)
    most_rows = max(1, TOKENS // model.tokens.shape[1])
    least = min(LEAST_TARGETS, most_rows)
    pace = Pace(least, most_rows)
    try:
        while batch := known.next_targets(min(max(pace.size, least), most - len(known.rows))):
            with pace.piece(len(batch)):
                edges, found = model.edges([(LATENT, latent) for latent in batch])
            known.rows |= dict(zip(batch, edges, strict=True))
            known.values |= dict(zip(batch, found.tolist(), strict=True))
            progress.at(len(known.rows))
    except KeyboardInterrupt:
        progress.end(len(known.rows))
        return known, values, True
    progress.end(len(known.rows))
    return known, values, False


def _square(known: Adjacency, latents: Sequence[int], length: int) -> SquareGraph:
    """All nodes by all nodes: of latents, those that are targets."""
    import torch

    columns = torch.tensor([*latents, *range(known.latents, known.logits.shape[1])])
    count, logits = len(latents), len(known.weights)
    size = len(columns) + logits
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for row, latent in enumerate(latents):
        matrix[row, : len(columns)] = known.rows[latent][columns]
    matrix[-logits:, : len(columns)] = known.logits[:, columns]
    return SquareGraph(matrix, count, len(columns) - count - length, length, known.weights)


def _result(
    model: FrozenModel,
    known: Adjacency,
    values: Tensor,
    square: SquareGraph,
    kept: KeptGraph,
    latents: Sequence[int],
    total: Tensor,
    exact: Tensor | None,
    facts: dict[str, Any],
) -> ExperimentResult:
    """The kept nodes and edges by their names."""
    import torch

    names, nodes = _named(model, latents, kept)
    inner, size = len(square.matrix) - square.logits, len(square.matrix)
    sources = [n for n in range(inner) if kept.nodes[n]]
    targets = [n for n in (*range(square.latents), *range(inner, size)) if kept.nodes[n]]
    at = torch.tensor(targets)[:, None], torch.tensor(sources)[None, :]
    edges = square.matrix[at].where(kept.edges[at], float("nan"))
    axes: dict[str, tuple[Label, ...]] = {
        "target": tuple(names[n] for n in targets),
        "source": tuple(names[n] for n in sources),
    }
    whole = [*(known.values[latent] for latent in latents), *values.tolist()]
    added = [
        *(float(known.rows[latent].sum()) for latent in latents),
        *known.logits.sum(1).tolist(),
    ]
    row = {n: n if n < square.latents else n - inner + square.latents for n in targets}
    columns = torch.tensor([*latents, *range(known.latents, known.logits.shape[1])])
    more = {
        "value": torch.tensor([whole[row[n]] for n in targets], dtype=torch.float64),
        "bias": torch.tensor([whole[row[n]] - added[row[n]] for n in targets], dtype=torch.float64),
        "influence": square.influence()[sources],
        "total effect": total[columns][sources],
    }
    if exact is not None:
        more["exact effect"] = exact[columns][sources]
    facts["nodes"] = {names[n]: nodes[n] for n in sorted({*sources, *targets})}
    return ExperimentResult("attribution_graph", edges, axes, SAYS, facts, more)


def _named(
    model: FrozenModel, latents: Sequence[int], kept: KeptGraph
) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of all nodes, and what each is."""
    run, length = model.run, model.tokens.shape[1]
    strings = whole_pieces(model.rmodel, model.tokens)
    words = decoder(model.rmodel, run.logits)
    names, nodes = list[str](), list[dict[str, Any]]()

    def add(name: str, kind: str, layer: int | None, position: int, **what: Any) -> None:
        share = float(kept.cumulative[len(names)])
        names.append(name)
        nodes.append({"kind": kind, "layer": layer, "position": position, "share": share, **what})

    for latent in latents:
        of = model.transcoders[int(run.which[latent])]
        position, number = run.places[latent].tolist()
        active = float(run.activations[latent])
        add(
            f"{of.label} {number} at {position}",
            "latent", of.layer, position, dictionary=of.name, latent=number, activation=active,
        )  # fmt: skip
    for layer in range(model.rmodel.catalog.n_layers):
        for position in range(length):
            add(f"error {layer} at {position}", "error", layer, position)
    for position, token in enumerate(model.tokens.ids[0].tolist()):
        add(f"{strings[position]!r} at {position}", "token", None, position, token=token)
    for token, chance in zip(run.logits, run.probabilities, strict=True):
        name = f"logit {words[token]!r}"
        name = f"{name} ({token})" if name in names else name
        add(name, "logit", None, length - 1, token=token, word=words[token], probability=chance)
    return names, nodes


def _positions(bypass: Sequence[int], length: int) -> tuple[int, ...]:
    chosen = (bypass,) if isinstance(bypass, int) else tuple(bypass)
    if any(isinstance(p, bool) or not isinstance(p, int) or not 0 <= p < length for p in chosen):
        raise BadRequest(
            f"bypass={bypass!r} are no positions of the prompt.",
            f"It has {length} tokens: 0 to {length - 1}.",
        )
    return chosen


def _check(targets: int, most_logits: int, check: int, *parts: float) -> None:
    check_numbers(targets=(targets, 1), most_logits=(most_logits, 1), check=(check, 0))
    words = ("logit_share", "node_share", "edge_share")
    for word, share in zip(words, parts, strict=True):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise BadRequest(f"{word}={share!r} is no share.", "Give more than 0, and 1 at most.")


def _limits() -> list[str]:
    """What a graph does not say, in words."""
    return [
        "where heads attend is held: why they attend there is not in it",
        "a latent that is off is no node, and one that would come on is not seen",
        "total effects go through targets alone",
    ]
