"""The logit lens, computed beside the model: of every layer a few numbers per position travel.

One forward of the text leaves two things on the server: the residual stream after each layer, and the model's
own prediction. Layers are read a group at a time, each where its stream lies, with a forward of a single
token to carry the readers there; so a picture can begin with the last layers and grow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.looking.passes import (
    contexts,
    decoder,
    keep,
    keep_prediction,
    keep_stream,
    one_text,
    whole_pieces,
)
from garcon_jupyter.recordings import Recording
from garcon_jupyter.tokens import Tokens
from garcon_jupyter.widgets import LensWidget, Readouts

if TYPE_CHECKING:
    from garcon_jupyter.remote_model import RemoteModel

Target = Literal["last", "next"]

FIRST = 2
"""Layers that are read before the picture is there."""

TOGETHER = 2048
"""Positions of all layers that are read in one request: others have their turn in between."""

FARTHEST = 0.01
"""Nats that the readout of the last layer may be from the model's own prediction, by rounding."""


@dataclass(frozen=True)
class Norm:
    """The final norm, as what it does to two vectors tells it: LayerNorm or RMSNorm, and its epsilon."""

    centred: bool
    epsilon: float


_NORMS: WeakKeyDictionary[RemoteModel, Norm] = WeakKeyDictionary()


def final_norm(rmodel: RemoteModel) -> Norm:
    """What the final norm is, found out by a forward of one token.

    The last residual stream is replaced by zeros in one row and by ones in another. What the norm divides
    zeros by is the root of its epsilon; of ones a LayerNorm divides by the same, an RMSNorm by about 1.
    """
    if rmodel not in _NORMS:

        def replace(save_ctx: Any, tensor: Any) -> None:
            tensor[0], tensor[1] = 0.0, 1.0

        last = rmodel.probe_points[f"layers.{rmodel.catalog.n_layers - 1}.resid_post"]
        scale = rmodel.probe_points["final_norm.scale"]
        with contexts(rmodel, "norm") as name:
            probes = [last.probe(replace, name=name), scale.probe(keep, name=name, read_only=True)]
            rmodel.forward([[0], [0]], probes=probes, logits="none")
            zeros, ones = rmodel.recordings()[scale.name, name].tensor.double().flatten().tolist()
        _NORMS[rmodel] = Norm(centred=ones < 0.5, epsilon=zeros**2)
    return _NORMS[rmodel]


def read_layers(
    rmodel: RemoteModel, text: Any, target: Target = "last", choices: int = 5
) -> Readouts:
    """What every layer would predict of one text.

    Args:
        text: a text or tokens.
        target: of which token probability and rank are told: "last", what the model predicts in the end,
            or "next", the token that follows in the text (at the last position, what the model predicts).
        choices: how many likely tokens are kept of each prediction.

    Raises:
        BadRequest: several texts; a model whose logits are more than final norm and unembedding.
    """
    *_, readouts = read_by_layers(rmodel, one_text(rmodel, text), target, choices)
    return readouts


def read_by_layers(
    rmodel: RemoteModel, tokens: Tokens, target: Target, choices: int = 5
) -> Generator[Readouts, None, None]:
    """As :func:`read_layers`, a group of layers after the other, from the last one down.

    Yields:
        The readouts so far, always the same arrays with more of them filled.
    """
    norm = final_norm(rmodel)
    following = tokens.tolist()[0][1:] if target == "next" else []
    points = [address.name for address in rmodel.catalog.select("layers.*.resid_post")]
    readouts = Readouts.missing(len(points), tokens.shape[1], choices)
    with contexts(rmodel, "lens") as name:
        probes = rmodel.probe_points["layers.*.resid_post"].probes(
            keep_stream, name=name, read_only=True
        )
        own = rmodel.probe_points["logits"].probe(keep_prediction, name=name, read_only=True)
        rmodel.forward(tokens, probes=[*probes, own], logits="none")
        prediction = rmodel.recordings(fetch=False)["logits", name]
        readouts.answers[:] = prediction.handle("best").fetch()
        readouts.answers[: len(following)] = following
        read = _reader(norm, following, choices)
        for layers in _groups(len(points), tokens.shape[1]):
            names = [points[layer] for layer in layers]
            for layer, parts in zip(
                layers, _read(rmodel, names, name, read, prediction), strict=True
            ):
                statistics, ids, probabilities = parts
                readouts.statistics[layer] = statistics
                readouts.ids[layer], readouts.probabilities[layer] = ids, probabilities
            if len(points) - 1 in layers:
                _check(float(readouts.statistics[-1, :, 4].max()))
            yield readouts


def _groups(layers: int, positions: int) -> Iterator[range]:
    """Layers from the last one down, in groups each twice as large as the one before: the first is there
    soon, and all of them take few passes."""
    end, size = layers, FIRST
    while end > 0:
        start = max(0, end - max(1, min(size, TOGETHER // positions)))
        yield range(start, end)
        end, size = start, 2 * size


def _read(
    rmodel: RemoteModel,
    points: list[str],
    name: str,
    read: Callable[[Any, Any], None],
    prediction: Recording,
) -> list[list[Any]]:
    """Statistics, ids and probabilities of layers whose streams the server keeps."""
    params = ["final_norm.weight", "final_norm.bias", "unembed.weight", "unembed.bias"]
    params = [parameter for parameter in params if parameter in rmodel.catalog.parameters]
    probes = [
        rmodel.probe_points[point].probe(
            read, name=name, read_only=True, params=params, source=prediction
        )
        for point in points
    ]
    rmodel.forward([[0]], probes=probes, logits="none")
    recordings = rmodel.recordings(fetch=False)
    parts = ("statistics", "ids", "probabilities")
    handles = [recordings[point, name].handle(part) for point in points for part in parts]
    fetched = rmodel.fetch(*handles)
    return [fetched[at : at + len(parts)] for at in range(0, len(fetched), len(parts))]


def _reader(norm: Norm, following: list[int], choices: int) -> Callable[[Any, Any], None]:
    """A probe that reads the kept residual stream [p, D] of its layer as if it were the last.

    What passes it is a token that nobody asked for, which only brings it to the layer's rank.
    """
    centred, epsilon = norm.centred, norm.epsilon

    def read(save_ctx: Any, tensor: Any) -> None:
        import torch

        params, stream, last = save_ctx.params, save_ctx.stream, save_ctx.source.logs
        unembed = params["unembed.weight"]
        answers = save_ctx.source.best
        if following:
            answers[: len(following)] = torch.tensor(following)
        statistics, ids, chances = [], [], []
        for start in range(0, len(stream), 64):
            x = stream[start : start + 64].float()
            if centred:
                x = x - x.mean(-1, keepdim=True)
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)
            x = x * params["final_norm.weight"].float()
            if "final_norm.bias" in params:
                x = x + params["final_norm.bias"].float()
            # The large matrix first: on a CPU that is twice as fast for few positions.
            logits = (unembed @ x.to(unembed.dtype).T).T.float().contiguous()
            if "unembed.bias" in params:
                logits = logits + params["unembed.bias"].float()
            final = last[start : start + 64].to(logits.device)
            of_answer = logits.gather(1, answers[start : start + 64, None].to(logits.device))
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


def lens_widget(
    rmodel: RemoteModel, text: Any, target: Target = "last", statistic: str = "top probability"
) -> LensWidget:
    """Layer × position of what every layer would predict; it fills from the last layer down."""
    tokens = one_text(rmodel, text)
    words: dict[int, str] = {}

    def name(readouts: Readouts) -> Readouts:
        new = set(readouts.ids[readouts.ids >= 0].tolist()) - set(words)
        words.update(decoder(rmodel, new))
        return readouts

    growing = read_by_layers(rmodel, tokens, target)
    first = name(next(growing))
    strings = whole_pieces(rmodel, tokens)
    widget = LensWidget(first, strings, words.__getitem__, statistic=statistic)

    def fill() -> None:
        with closing(growing):
            for readouts in growing:
                if widget.worker.closed:
                    return
                widget.fill(name(readouts))

    widget.later("layers", fill)
    return widget
