"""A text as the model found it: how surprising each token was, and what was expected after it.

score(rmodel, "The capital of France is Paris").metrics           # [token, metric]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.experiments.clean_passes import one_text

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

METRICS = ("loss", "probability", "rank", "entropy after")


@dataclass(frozen=True)
class Scores:
    """What the model made of one text.

    Attributes:
        tokens: the text.
        metrics: float32 [token, metric], by :data:`METRICS`: loss (nats), probability and rank (0 is
            first) of the token given those before it, NaN at the first; entropy (nats) of what follows.
        ids: [token, choice], the likeliest next tokens.
        probabilities: float32, of those.
    """

    tokens: Tokens
    metrics: Tensor
    ids: Tensor
    probabilities: Tensor


def score(rmodel: Client, text: Any, choices: int = 5) -> Scores:
    """Run a text through the model, clean; only the scores travel.

    Raises:
        BadRequest: there are several texts.
    """
    tokens = one_text(rmodel, text)
    answer = rmodel.forward(tokens, probes=[], logits=_scorer(tokens.tolist()[0], choices))
    return Scores(tokens, *answer)


def _scorer(row: list[int], choices: int) -> Callable[[Any], Any]:
    """A function of the logits [1, p, V] that runs on the server, 128 positions at a time."""

    def scores(logits: Any) -> Any:
        import torch

        length = len(row)
        metrics = torch.full((length, 4), float("nan"))
        ids = torch.zeros((length, choices), dtype=torch.long)
        chances = torch.zeros((length, choices))
        for start in range(0, length, 128):
            logs = logits[0, start : start + 128].float().log_softmax(-1)
            end = start + len(logs)
            best = logs.topk(choices, -1)
            ids[start:end], chances[start:end] = best.indices.cpu(), best.values.exp().cpu()
            metrics[start:end, 3] = -(logs.exp() * logs).sum(-1).cpu()
            # Position i predicts token i + 1, to which loss, probability and rank belong.
            following = torch.tensor(row[start + 1 : end + 1], device=logs.device)[:, None]
            found = logs[: len(following)]
            of_token = found.gather(1, following)
            first, last = start + 1, start + 1 + len(following)
            metrics[first:last, 0] = -of_token[:, 0].cpu()
            metrics[first:last, 1] = of_token[:, 0].exp().cpu()
            metrics[first:last, 2] = (found > of_token).sum(-1).float().cpu()
        return metrics, ids, chances

    return scores
