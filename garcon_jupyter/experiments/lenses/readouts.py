"""A lens read beside the model: of every layer a few numbers per position travel.

One forward of the text leaves two things on the server: the residual stream after each layer, and the model's
own prediction. Layers are read a group at a time, each where its stream lies, with a forward of a single
token to carry the readers there; so a picture can begin with the last layers and grow.

    read_layers(rmodel, "The capital of France is").statistics        # [layer, token, statistic]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.client.recordings import Recording
from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.connection.background import Pace
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import (
    contexts,
    keep_prediction,
    keep_stream,
    need,
    one_text,
)
from garcon_jupyter.experiments.lenses.lens import LOGIT, LayerMap, Lens
from garcon_jupyter.experiments.lenses.unembedding import (
    Norm,
    final_norm,
    parameters,
    unembedded,
)
from garcon_jupyter.experiments.target_tokens import one_token_each

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

Target = Literal["last", "next"]

FIRST = 2
"""Layers that are read before the picture is there."""

CHUNK = 64
"""Positions of a layer that are read at a time: of so many, logits are in memory at once."""

TOGETHER = 2048
"""Positions of all layers that are read in one request at most."""

FARTHEST = 0.01
"""Nats that the readout of the last layer may be from the model's own prediction, by rounding."""


STATISTICS = ("top probability", "answer probability", "answer rank", "entropy", "KL to the last")
"""What a readout is told by, in this order."""


@dataclass(frozen=True)
class LayerReadouts:
    """What was read of one text at every layer and position.

    Attributes:
        tokens: the text.
        statistics: float32 [layer, token, statistic], by :data:`STATISTICS`: the probability of the likeliest token;
            probability and rank (0 is first) of the *answer*; entropy, and Kullback-Leibler divergence of this layer's
            prediction from the last one's, KL(last ‖ this), both in nats.
        ids: int64 [layer, token, choice], the likeliest tokens.
        probabilities: float32, of those.
        answers: int64 [token], the token that probability and rank are of.

    Of a layer that was not read (yet) all statistics are NaN and all ids -1.
    """

    tokens: Tokens
    statistics: NDArray[np.float32]
    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    answers: NDArray[np.int64]

    @classmethod
    def missing(cls, layers: int, tokens: Tokens, choices: int = 5) -> LayerReadouts:
        """Of layers that are still to be read."""
        places = (layers, tokens.shape[1])
        return cls(
            tokens,
            np.full((*places, len(STATISTICS)), np.nan, np.float32),
            np.full((*places, choices), -1, np.int64),
            np.zeros((*places, choices), np.float32),
            np.full(tokens.shape[1], -1, np.int64),
        )


def read_layers(
    rmodel: Client,
    text: Any,
    target: Target = "last",
    choices: int = 5,
    answer: str | int | None = None,
    lens: Lens = LOGIT,
) -> LayerReadouts:
    """What every layer would predict of one text.

    Args:
        text: a text or tokens.
        target: of which token probability and rank are told: "last", what the model predicts in the end,
            or "next", the token that follows in the text (at the last position, what the model predicts).
        choices: how many likely tokens are kept of each prediction.
        answer: a token, as text or id, that probability and rank are told of instead, everywhere.
        lens: by which layers are read; those that it has no map of are not.

    Raises:
        BadRequest: a lens of another model; several texts; an answer of several tokens; a model whose logits are more than final norm and unembedding.
    """
    *_, readouts = read_by_layers(rmodel, one_text(rmodel, text), target, choices, answer, lens)
    return readouts


def read_by_layers(
    rmodel: Client,
    tokens: Tokens,
    target: Target,
    choices: int = 5,
    answer: str | int | None = None,
    lens: Lens = LOGIT,
) -> Generator[LayerReadouts, None, None]:
    """As :func:`read_layers`, a few layers after the other, from the last one down, or as much of one as the model
    does in a moment.

    Yields:
        The readouts so far, always the same arrays with more of them filled.
    """
    lens.check(rmodel)
    need(rmodel, "The lens", "layers.{i}.resid_post", "final_norm.scale", "logits")
    norm = final_norm(rmodel)
    following = _told_of(rmodel, tokens, target, answer)
    points = [address.name for address in rmodel.catalog.select("layers.*.resid_post")]
    readouts = LayerReadouts.missing(len(points), tokens, choices)
    with contexts(rmodel, "lens") as name:
        layers = [layer for layer in range(len(points)) if lens.reads(layer, len(points) - 1)]
        probes = [
            rmodel.probe_points[points[layer]].probe(keep_stream, name=name, read_only=True)
            for layer in layers
        ]
        own = rmodel.probe_points["logits"].probe(keep_prediction, name=name, read_only=True)
        rmodel.forward(tokens, probes=[*probes, own], logits="none")
        prediction = rmodel.recordings(fetch=False)["logits", name]
        readouts.answers[:] = prediction.handle("best").fetch()
        readouts.answers[: len(following)] = following
        todo = _chunks(layers, tokens.shape[1])
        pace = Pace(_first(tokens.shape[1]), TOGETHER // CHUNK)
        while todo:
            part, todo = todo[: pace.size], todo[pace.size :]
            with pace.piece(len(part)):
                found = _read(
                    rmodel, points, name, _spans(part), norm, following, choices, prediction, lens
                )
            for (layer, span), (statistics, ids, probabilities) in found:
                readouts.statistics[layer, span] = statistics
                readouts.ids[layer, span], readouts.probabilities[layer, span] = ids, probabilities
                if layer == len(points) - 1:
                    _check(float(statistics[:, 4].max()))
            yield readouts


def _told_of(rmodel: Client, tokens: Tokens, target: Target, answer: str | int | None) -> list[int]:
    """The tokens whose probability is told at the first positions; what the model predicts at the others."""
    if answer is not None:
        return one_token_each(rmodel, [answer], after=tokens) * tokens.shape[1]
    return tokens.tolist()[0][1:] if target == "next" else []


Span = tuple[int, slice]
"""A layer, and some of its positions."""


def _chunks(layers: Sequence[int], positions: int) -> list[Span]:
    """All that is to be read, from the last layer down."""
    return [
        (layer, slice(start, min(start + CHUNK, positions)))
        for layer in sorted(layers, reverse=True)
        for start in range(0, positions, CHUNK)
    ]


def _first(positions: int) -> int:
    """Chunks of the first piece: those of the last layers."""
    return min(FIRST * -(-positions // CHUNK), TOGETHER // CHUNK)


def _spans(chunks: list[Span]) -> list[Span]:
    """Chunks that follow one another, put together."""
    spans: list[Span] = []
    for layer, chunk in chunks:
        if spans and spans[-1][0] == layer:
            spans[-1] = layer, slice(spans[-1][1].start, chunk.stop)
        else:
            spans.append((layer, chunk))
    return spans


def _read(
    rmodel: Client,
    points: list[str],
    name: str,
    spans: list[Span],
    norm: Norm,
    following: list[int],
    choices: int,
    prediction: Recording,
    lens: Lens,
) -> list[tuple[Span, list[Any]]]:
    """Statistics, ids and probabilities of positions of layers whose streams the server keeps."""
    params = parameters(rmodel)
    probes = [
        rmodel.probe_points[points[layer]].probe(
            _reader(norm, following, choices, span, lens.at(layer)),
            name=name,
            read_only=True,
            params=params,
            source=prediction,
        )
        for layer, span in spans
    ]
    rmodel.forward([[0]], probes=probes, logits="none")
    recordings = rmodel.recordings(fetch=False)
    parts = ("statistics", "ids", "probabilities")
    handles = [recordings[points[layer], name].handle(part) for layer, _ in spans for part in parts]
    fetched = rmodel.fetch(*handles)
    each = [fetched[at : at + len(parts)] for at in range(0, len(fetched), len(parts))]
    return list(zip(spans, each, strict=True))


def _reader(
    norm: Norm, following: list[int], choices: int, span: slice, layer_map: LayerMap | None
) -> Callable[[Any, Any], None]:
    """A probe that reads positions of the kept residual stream [p, D] of its layer as if it were the last.

    What passes it is a token that nobody asked for, which only brings it to the layer's rank.
    """
    step = CHUNK

    def read(save_ctx: Any, tensor: Any) -> None:
        import torch

        params, stream, last = save_ctx.params, save_ctx.stream, save_ctx.source.logs
        answers = save_ctx.source.best
        if following:
            answers[: len(following)] = torch.tensor(following)
        statistics, ids, chances = [], [], []
        for start in range(span.start, span.stop, step):
            end = min(start + step, span.stop)
            x = stream[start:end].float()
            if layer_map is not None:
                x = layer_map(x)
            logits = unembedded(x, norm, params)
            final = last[start:end].to(logits.device)
            of_answer = logits.gather(1, answers[start:end, None].to(logits.device))
            best = logits.topk(choices, -1)
            # Few passes over the vocabulary: of log-probabilities, logits less their logsumexp, only sums are needed.
            shares = (logits - best.values[:, :1]).exp()
            mass = shares.sum(-1)
            total = best.values[:, 0] + mass.log()
            chances_of_best = (best.values - total[:, None]).exp()
            expected = final.exp()
            rows = [
                chances_of_best[:, 0],
                (of_answer[:, 0] - total).exp(),
                (logits > of_answer).sum(-1).float(),
                total - torch.linalg.vecdot(shares, logits) / mass,
                torch.linalg.vecdot(expected, final)
                - torch.linalg.vecdot(expected, logits)
                + total,
            ]
            statistics.append(torch.stack(rows, -1))
            ids.append(best.indices)
            chances.append(chances_of_best)
        save_ctx.statistics = torch.cat(statistics).cpu()
        save_ctx.ids, save_ctx.probabilities = torch.cat(ids).cpu(), torch.cat(chances).cpu()

    return read


def _check(divergence: float) -> None:
    """The last layer's readout must be the model's own prediction, else the lens shows another model."""
    if not math.isfinite(divergence) or divergence > FARTHEST:
        raise BadRequest(
            "The logits of this model are more than its final norm and unembedding: reading its last "
            f"layer so is {divergence:.2g} nats from what it predicts.",
            "Its logits may be soft-capped or scaled; a lens of its own would have to do the same.",
        )
