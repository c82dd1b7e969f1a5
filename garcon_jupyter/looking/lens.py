"""The logit lens, computed beside the model: of every layer a few numbers per position travel.

Two forwards. The first leaves the model's own prediction on the server; the second reads the residual
stream after each layer through the final norm and the unembedding, compares, and keeps what is drawn.
(One would do on one rank; over pipeline stages a layer is gone when the last prediction is made.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.looking.passes import (
    contexts,
    decoder,
    keep,
    keep_prediction,
    one_text,
    whole_pieces,
)
from garcon_jupyter.widgets import LensWidget, Readouts

if TYPE_CHECKING:
    from garcon_jupyter.remote_model import RemoteModel

Target = Literal["last", "next"]

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
    tokens = one_text(rmodel, text)
    norm = final_norm(rmodel)
    following = tokens.tolist()[0][1:] if target == "next" else []
    params = ["final_norm.weight", "final_norm.bias", "unembed.weight", "unembed.bias"]
    params = [name for name in params if name in rmodel.catalog.parameters]
    points = rmodel.probe_points["layers.*.resid_post"]
    with contexts(rmodel, "lens") as name:
        own = rmodel.probe_points["logits"].probe(keep_prediction, name=name, read_only=True)
        rmodel.forward(tokens, probes=[own], logits="none")
        source = rmodel.recordings(fetch=False)["logits", name]
        read = _reader(norm, following, choices)
        probes = points.probes(read, name=name, read_only=True, params=params, source=source)
        rmodel.forward(tokens, probes=probes, logits="none")
        recordings = rmodel.recordings(fetch=False)
        kept = [recordings[address.name, name] for address in points.addresses]
        names = ("statistics", "ids", "probabilities")
        handles = [recording.handle(part) for part in names for recording in kept]
        layers = len(kept)
        fetched = rmodel.fetch(*handles, recordings["logits", name].handle("best"))
    parts = [np.stack(fetched[at : at + layers]) for at in range(0, 3 * layers, layers)]
    answers = np.asarray(fetched[-1])
    answers = np.concatenate([np.asarray(following, dtype=np.int64), answers[len(following) :]])
    readouts = Readouts(parts[0], parts[1], parts[2], answers)
    _check(float(readouts.statistics[-1, :, 4].max()))
    return readouts


def _reader(norm: Norm, following: list[int], choices: int) -> Callable[[Any, Any], None]:
    """A probe that reads a residual stream [1, p, D] as if it were the last."""
    centred, epsilon = norm.centred, norm.epsilon

    def read(save_ctx: Any, tensor: Any) -> None:
        import torch

        params, last = save_ctx.params, save_ctx.source.logs
        unembed = params["unembed.weight"]
        answers = save_ctx.source.best
        if following:
            answers[: len(following)] = torch.tensor(following)
        statistics, ids, chances = [], [], []
        for start in range(0, tensor.shape[1], 64):
            x = tensor[0, start : start + 64].float()
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
    """Layer × position of what every layer would predict."""
    tokens = one_text(rmodel, text)
    readouts = read_layers(rmodel, tokens, target)
    words = decoder(rmodel, readouts.ids.flatten().tolist())
    strings = whole_pieces(rmodel, tokens)
    return LensWidget(readouts, strings, words.__getitem__, statistic=statistic)
