"""What is measured of each run: the difference of two answers' logits, or a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client import shipping
from garcon_jupyter.client.function_checks import check_call
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.pairs import Pairs, answers_of
from garcon_jupyter.wire import requests as wire

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

Metric = Callable[[Any], Any]
"""logits [row, p, V] to one number for each row, [row]; runs on the server."""


@dataclass(frozen=True)
class Measure:
    """A metric of runs.

    Attributes:
        answers: of each pair the tokens whose logits are compared; None where there is a metric.
        metric: the caller's own.
        code: the same, as it travels.
    """

    answers: tuple[tuple[int, int], ...] | None
    metric: Metric | None = None
    code: wire.Code | None = None

    @classmethod
    def of(cls, rmodel: Client, pairs: Pairs, answers: Any, metric: Any) -> Measure:
        """What the caller asks for.

        Raises:
            BadRequest: both answers and a metric; answers that are no two tokens.
            BadProbe: the metric cannot be called with logits, or cannot travel.
        """
        if metric is None:
            return cls(tuple(answers_of(rmodel, pairs, answers)))
        if answers is not None:
            raise BadRequest(
                "There are answers and a metric, and only one of them can be measured.",
                "Leave one out.",
            )
        check_call(metric, "metric", "logits")
        return cls(None, metric, shipping.pack(metric, "metric"))

    @property
    def name(self) -> str:
        """What it is called."""
        return self.code.name if self.code else "difference of the answers' logits"

    @property
    def reads(self) -> str:
        """The logits that it is given: "all", or "last" where these are enough."""
        return "last" if self.metric is None else "all"

    def of_rows(self, pairs: Sequence[int]) -> Metric:
        """The metric of rows of these pairs; on the graph, for the server."""
        if self.metric is not None:
            return self.metric
        assert self.answers is not None
        tokens = [self.answers[pair] for pair in pairs]

        def difference(logits: Any) -> Any:
            import torch

            chosen = logits[:, -1].gather(1, torch.tensor(tokens, device=logits.device)).float()
            return chosen[:, 0] - chosen[:, 1]

        return difference
