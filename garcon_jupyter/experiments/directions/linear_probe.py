"""Linear probes: which of two labels a text has, read off a point by a linear classifier.

found = experiments.linear_probe(rmodel, "layers.*.resid_post", texts, labels)
found.values                            # held-out accuracy [layer]
found.more["shuffled"]                  # the same of labels that were shuffled
Direction.of(found, layer=12)           # the classifier's direction
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.connection.progress import Count
from garcon_jupyter.errors import BadRequest, MissingModule
from garcon_jupyter.experiments.clean_passes import contexts, stream
from garcon_jupyter.experiments.directions.classifiers import (
    METHODS,
    FitPlan,
    Method,
    found,
    has_scikit_learn,
)
from garcon_jupyter.experiments.directions.labels import labelled
from garcon_jupyter.experiments.directions.picked import Picked, Picks
from garcon_jupyter.experiments.result import ExperimentResult, Label

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.points import Address

TURN = 1.0
"""Seconds that fits keep others waiting, as far as points can be cut into parts."""

SAYS = "share of held-out texts whose label is read off the point"


def linear_probe(
    rmodel: Client,
    points: str,
    texts: Any,
    labels: Sequence[Any],
    method: Method = "logistic",
    positions: Picks = "last",
    towards: Any = None,
    held_out: float = 0.25,
    splits: int = 5,
    inverse_penalty: float = 1.0,
    seed: int = 0,
    batch_tokens: int = 2048,
    progress: bool = True,
) -> ExperimentResult:
    r"""How well a linear classifier reads a label off each point, and along which direction.

    Vectors x of the texts are kept beside the layer, in one pass over them for all points, and classifiers are fitted there; what
    travels is accuracies and a vector for each point. ``"difference_of_means"`` has w = μ₂ − μ₁, and its border half way between the
    means (Marks and Tegmark 2023); ``"logistic"`` is scikit-learn's logistic regression on standardised vectors,

        min over w, b of  ½ ‖w‖² + C Σᵢ log(1 + exp(−yᵢ (w·x̂ᵢ + b))),     x̂ = (x − mean) / deviation of the fitted texts

    with w then in units of x (Alain and Bengio 2016). Accuracies are means over stratified splits, each fitted without the texts that
    it holds out. The control does all of it again with the labels of the texts shuffled: what it reaches is chance, and what a probe
    with as many dimensions as texts owes to chance.

    Args:
        points: a point of shape [b, p, …], or a pattern of several: "layers.*.resid_post".
        texts: texts, or tokens.
        labels: one for each text, of two kinds.
        method: "logistic", which needs scikit-learn where the model is, or "difference_of_means".
        positions: what stands for a text: its "last" token, the "mean" over its tokens, the token at a number (negative from the end), or
            "all" tokens, each with the text's label; texts are held out whole.
        towards: the label that directions lead to; by default the larger one.
        held_out: share of the texts of each label that a split holds out.
        splits: how many.
        inverse_penalty: C above.
        seed: of the splits and of the control.
        batch_tokens: tokens of a batch at most.
        progress: show how far it is.

    Returns:
        ``values`` [layer] (or [point], where points are not one of each layer), the held-out accuracy. In ``more``, alike: ``fitted``, the
        accuracy on the texts that were fitted; ``shuffled``, of the control, held out; ``scale`` and ``centre`` of the direction. ``splits``
        [split, layer] has the accuracies one by one; ``vectors`` [layer, units] the directions, of length 1, fitted to all
        texts, of which :meth:`~garcon_jupyter.experiments.directions.direction.Direction.of` makes objects; ``held out texts`` [split, text].
        ``facts["larger share"]`` is what "always the more frequent label" reaches.

    Raises:
        BadRequest: other than two kinds of labels, too few texts of one, a position that a text lacks, NaN in what a point holds.
        BadProbe: a point without a vector for each token.
        MissingModule: scikit-learn is not installed where the model is.

    Examples:
        >>> kind, unkind = ["good", "lovely", "superb", "fine"], ["bad", "awful", "poor", "nasty"]
        >>> texts = [f"The film was {word}" for word in kind + unkind]
        >>> found = experiments.linear_probe(
        ...     rmodel, "layers.*.resid_post", texts, [True] * 4 + [False] * 4, method="difference_of_means", progress=False)
        >>> found.values.shape, found.more["shuffled"].shape
        (torch.Size([30]), torch.Size([30]))
        >>> experiments.Direction.of(found, layer=12).point
        'layers.12.resid_post'
    """
    tokens = rmodel._tokens(texts)
    kinds = labelled(labels, len(tokens), towards)
    _check(method, positions, held_out, splits, inverse_penalty, tokens)
    addresses = _addresses(rmodel, points)
    if method == "logistic" and not rmodel.forward(
        [[0]], probes=[], logits=lambda logits: has_scikit_learn()
    ):
        raise MissingModule(
            "A logistic regression is fitted with scikit-learn, which is not installed where the model is.",
            'pip install "garcon-jupyter[probes]" there, or ask for method="difference_of_means".',
        )
    held, shuffled, shuffled_held = kinds.splits(splits, held_out, seed)
    plan = FitPlan(
        method, float(inverse_penalty), 2000, kinds.second, held, shuffled, shuffled_held
    )
    with contexts(rmodel, "linear probe") as name:
        recorder = Picked(positions, len(tokens))
        chosen = [rmodel.probe_points[each.name].probe(recorder, name=name) for each in addresses]
        stream(rmodel, tokens, chosen, batch_tokens=batch_tokens, packed=False, show=progress)
        names = [each.name for each in addresses]
        told = _fits(rmodel, names, name, plan, progress)
    widths = {str([len(one["vector"])]): each for one, each in zip(told, names, strict=True)}
    _one_width(points, widths)  # of modules nobody knew them before
    facts = {
        "model": rmodel.facts["name"],
        "points": names,
        "method": method,
        "labels": list(kinds.kinds),
        "positions": positions,
        "texts": len(tokens),
        "larger share": kinds.larger_share,
        "held out": held_out,
        "inverse penalty": inverse_penalty if method == "logistic" else None,
        "seed": seed,
        "limits": [
            "that a label can be read off a point does not say that the model reads it there; adding or removing the direction does"
        ],
    }
    return _result(addresses, told, held, facts)


def _check(
    method: str,
    positions: Any,
    held_out: float,
    splits: int,
    inverse_penalty: float,
    tokens: Tokens,
) -> None:
    """Refuse what cannot be fitted, before anything runs."""
    if method not in METHODS:
        raise BadRequest(f"There is no method {method!r}.", f"There are {', '.join(METHODS)}.")
    if not 0 < held_out < 1:
        raise BadRequest(f"held_out={held_out!r} is no share.", "Give one, such as 0.25.")
    if isinstance(splits, bool) or not isinstance(splits, int) or splits < 1:
        raise BadRequest(f"splits={splits!r} are none.", "Give at least 1.")
    if not inverse_penalty > 0:
        raise BadRequest(f"inverse_penalty={inverse_penalty!r} is none.", "Give more than 0.")
    if positions in ("last", "mean", "all"):
        return
    if isinstance(positions, bool) or not isinstance(positions, int):
        raise BadRequest(
            f"positions={positions!r} stand for no text.", 'Give "last", "mean", "all" or a number.'
        )
    for text, length in enumerate(tokens.lengths):
        if not -length <= positions < length:
            raise BadRequest(
                f"Text {text} has {length} tokens, and none at {positions}.",
                "Choose a position that all texts have, or leave out those that lack it.",
            )


def _addresses(rmodel: Client, points: str) -> list[Address]:
    """The points that are asked for, which all hold as many units.

    Raises:
        BadRequest: they do not, or are of the tokens of an expert.
    """
    addresses = rmodel.probe_points[points].addresses
    widths = {str(rmodel.catalog.shape(each)[2:]): each.name for each in addresses}
    _one_width(points, widths)
    if any(each.expert is not None for each in addresses):
        raise BadRequest(
            f"{points!r} has the tokens that are routed to an expert alone.",
            "Choose a point that has all tokens of a text, such as layers.*.resid_post.",
        )
    return addresses


def _one_width(points: str, widths: dict[str, str]) -> None:
    """Refuse points of several widths, each with the name of one."""
    if len(widths) > 1:
        told = ", ".join(f"{name} {shape}" for shape, name in list(widths.items())[:3])
        raise BadRequest(f"{points!r} selects points of several widths: {told}.", "Ask one by one.")


def _fits(
    rmodel: Client, points: list[str], name: str, plan: FitPlan, progress: bool
) -> list[dict[str, Any]]:
    """Fits at each point, where its vectors are: one short request for each, between which others have their turn."""

    def fit(save_ctx: Any, tensor: Any) -> None:
        import numpy as np
        import torch

        state = save_ctx.picked
        vectors, documents = state.vectors.T.double().cpu().numpy(), state.documents.cpu().numpy()
        save_ctx.told = {"finite": bool(torch.isfinite(state.vectors).all())}
        if save_ctx.told["finite"]:
            told = found(vectors, documents, plan)
            save_ctx.told = {
                "finite": True,
                **{n: torch.as_tensor(np.asarray(v)) for n, v in told.items()},
            }
        del save_ctx.picked

    line = Count(len(points), "points") if progress else None
    told: list[dict[str, Any]] = []
    at_once = 1
    while len(told) < len(points):
        began = time.monotonic()
        part = points[len(told) : len(told) + at_once]
        probes = [rmodel.probe_points[each].probe(fit, name=name, read_only=True) for each in part]
        rmodel.forward([[0]], probes=probes, logits="none")
        recordings = rmodel.recordings(fetch=False)
        fetched = rmodel.fetch(*(recordings[each, name].handle("told") for each in part))
        told += fetched if len(part) > 1 else [fetched]
        for point, one in zip(part, told[-len(part) :], strict=True):
            if not one["finite"]:
                raise BadRequest(
                    f"{point} holds NaN or infinite values on these texts.",
                    "rmodel.show(point, text) shows where.",
                )
        if line:
            line.at(len(told))
        at_once = 2 * at_once if time.monotonic() - began < TURN / 2 else max(1, at_once // 2)
    if line:
        line.end()
    return told


def _result(
    addresses: list[Address], told: list[dict[str, Any]], held: Any, facts: dict[str, Any]
) -> ExperimentResult:
    """Accuracies along the points, and what belongs to each."""
    import torch

    def stacked(name: str) -> Tensor:
        return torch.stack([one[name] for one in told]).double()

    layers = [each.layer for each in addresses]
    one_each = None not in layers and len(set(layers)) == len(layers)
    labels: list[Label] = [
        layer if one_each and layer is not None else each.name
        for layer, each in zip(layers, addresses, strict=True)
    ]
    each_split, means = stacked("held_out"), stacked("means")
    vectors = torch.nn.functional.normalize(stacked("vector"), dim=1)
    ends = torch.einsum("lkd,ld->lk", means, vectors)  # of the two labels' means, along it
    more = {
        "fitted": stacked("fitted").mean(1),
        "shuffled": stacked("shuffled").mean(1),
        "scale": ends[:, 1] - ends[:, 0],
        "centre": ends.mean(1),
        "splits": each_split.T,
        "vectors": vectors.float(),
        "held out texts": torch.from_numpy(held),
    }
    axes = {"layer" if one_each else "point": tuple(labels)}
    return ExperimentResult("linear_probe", each_split.mean(1), axes, SAYS, facts, more)
