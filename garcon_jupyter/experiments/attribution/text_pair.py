"""A clean and a corrupted text of equally many tokens, and the metric that tells their answers apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import one_text
from garcon_jupyter.experiments.target_tokens import one_token_each

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Metric = Callable[[Any], Any]
"""logits [row, p, V] to one number for each row, [row]; runs on the server."""

CLEAN, CORRUPTED = 0, 1
"""Rows of a batch that begins with the pair."""


@dataclass(frozen=True)
class TextPair:
    """Two texts whose positions correspond.

    Attributes:
        ids: [2, p], the clean text and the corrupted one.
        metric: of the logits, by default the logit of the clean answer less that of the corrupted, at the last position.
        answers: the token ids of that difference; empty where the metric is another.
        strings: the tokens of the clean and of the corrupted text.
    """

    ids: Tensor
    metric: Metric
    answers: tuple[int, ...]
    strings: tuple[tuple[str, ...], tuple[str, ...]]

    @classmethod
    def of(cls, rmodel: Client, clean: Any, corrupted: Any, answers: Any, metric: Any) -> TextPair:
        """A pair, checked.

        Args:
            answers: a token (its text or id) for the clean and one for the corrupted text; None where there is a metric, or
                for what the model itself predicts after each.

        Raises:
            BadRequest: several texts, unequal lengths, equal texts; an answer of several tokens, or not two; both a metric
                and answers.
        """
        import torch

        first, second = one_text(rmodel, clean), one_text(rmodel, corrupted)
        if first.shape != second.shape:
            raise BadRequest(
                f"The texts have {first.shape[1]} and {second.shape[1]} tokens.",
                "Equally many are needed, so that positions correspond.",
            )
        if torch.equal(first.ids, second.ids):
            raise BadRequest(
                "Both texts are the same tokens: there is nothing to restore.",
                "Change what shall matter, such as a name.",
            )
        chosen: tuple[int, ...] = ()
        if metric is None:
            chosen = _two_answers(rmodel, first, second, answers)
            metric = _difference(*chosen)
        elif answers is not None:
            raise BadRequest(
                "A metric stands in place of the answers, and both were given.",
                "Give answers=(…, …) or metric=….",
            )
        elif not callable(metric):
            raise BadRequest(
                f"metric={metric!r} is no function.", "Give one of logits [row, p, V] to [row]."
            )
        ids = torch.cat([first.ids, second.ids])
        words = rmodel.token_strings(ids)
        return cls(ids, checked(metric), chosen, (tuple(words[0]), tuple(words[1])))

    def batch(self, rows: int) -> Tensor:
        """Both texts, and the corrupted one again for so many rows, [2 + rows, p]."""
        import torch

        return torch.cat([self.ids, self.ids[CORRUPTED:].expand(rows, -1)])

    def facts(self) -> dict[str, Any]:
        """What a result says of the pair, as plain data."""
        clean, corrupted = map(list, self.strings)
        return {"clean": clean, "corrupted": corrupted, "answers": list(self.answers)}


def ends(measured: Tensor) -> tuple[float, float]:
    """The metric of the corrupted and of the clean run, of what was measured of a batch that begins with the pair.

    Raises:
        BadRequest: they are the same, or no numbers: nothing can be told in shares of their difference.
    """
    high, low = (float(measured[row]) for row in (CLEAN, CORRUPTED))
    if not abs(high - low) > 0 or abs(high - low) == float("inf"):
        raise BadRequest(
            f"The metric is {high:.4g} on the clean and {low:.4g} on the corrupted text: there is nothing to restore.",
            "Choose other answers, or texts that the model answers differently.",
        )
    return low, high


def checked(metric: Metric) -> Metric:
    """The metric, which says so where it gives something else than a number for each row; it goes to the server with it."""

    def numbers(logits: Any) -> Any:
        import torch

        from garcon_jupyter.errors import BadRequest

        found = metric(logits)
        shape = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        if shape != [len(logits)]:
            raise BadRequest(
                f"The metric gives {shape} for {len(logits)} rows of logits.",
                "It is given logits [row, p, V], and returns a tensor [row].",
            )
        return found

    return numbers


def _difference(clean: int, corrupted: int) -> Metric:
    def difference(logits: Any) -> Any:
        return (logits[:, -1, clean] - logits[:, -1, corrupted]).float()

    return difference


def _two_answers(rmodel: Client, clean: Any, corrupted: Any, answers: Any) -> tuple[int, int]:
    """Two token ids: as given, or what the model predicts after each text."""
    if answers is None:
        best = [rmodel.forward(t, probes=[], logits="last")[0].argmax() for t in (clean, corrupted)]
        first, second = (int(each) for each in best)
    else:
        if isinstance(answers, str) or len(answers) != 2:
            raise BadRequest(
                f"answers={answers!r} are not two.",
                'Give one of the clean and one of the corrupted text: (" Mary", " John").',
            )
        first, second = one_token_each(rmodel, answers, after=clean)
    if first == second:
        raise BadRequest(
            f"Both answers are token {first}: their difference is always zero.",
            'Give two that the texts tell apart: answers=(" Mary", " John").',
        )
    return first, second
