"""A language model that is a function: for tests, and for rules that somebody wrote by hand."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.explanations.language_models.protocol import (
    CHAT,
    PROMPT_LOGPROBS,
    Completion,
    Message,
)

Answer = Callable[[Sequence[Message]], "str | Completion"]
Rate = Callable[[Sequence[str], Sequence[str]], Any]


class FunctionModel:
    """A function as a language model.

    Args:
        answer: messages to a text, or a :class:`Completion`; what it raises is raised. None for one that only rates.
        rate: (pieces, candidates) to log-probabilities [n, c]; None for one that only answers.
        name: by which its answers are kept: give another one when the function becomes another.
        tokenize: a text to its tokens; by default words with the space before them, and each other sign.
        can: what it says that it can do; by default what it has functions for.
        at_once: how many questions it may be asked at a time.

    Attributes:
        asked: how many questions it was asked.

    Examples:
        >>> from garcon_jupyter.explanations import FunctionModel
        >>> model = FunctionModel(lambda messages: "names of cities", name="cities")
        >>> model.complete([{"role": "user", "content": "What?"}], max_tokens=5).text
        'names of cities'
    """

    def __init__(
        self,
        answer: Answer | None = None,
        rate: Rate | None = None,
        name: str = "function",
        tokenize: Callable[[str], list[str]] | None = None,
        can: Sequence[str] | None = None,
        at_once: int = 1,
    ) -> None:
        self._answer, self._rate, self.name, self.at_once = answer, rate, name, at_once
        self._tokenize = tokenize or _words
        known = [CHAT] * (answer is not None) + [PROMPT_LOGPROBS] * (rate is not None)
        self.can = frozenset(known if can is None else can)
        self.asked = 0
        self._lock = threading.Lock()

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        schema: Mapping[str, Any] | None = None,
        top_logprobs: int = 0,
    ) -> Completion:
        """What the function says to the messages."""
        if self._answer is None:
            raise BadRequest(f"{self.name} writes nothing.", "Give FunctionModel an answer.")
        self._count()
        said = self._answer(messages)
        return said if isinstance(said, Completion) else Completion(said)

    def score(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """What the function rates."""
        if self._rate is None:
            raise BadRequest(f"{self.name} rates nothing.", "Give FunctionModel rate.")
        self._count()
        return np.asarray(self._rate(pieces, candidates), np.float64)

    def tokens_of(self, text: str) -> list[str]:
        """The tokens of a text, by the function that was given."""
        return self._tokenize(text)

    def _count(self) -> None:
        with self._lock:
            self.asked += 1


def _words(text: str) -> list[str]:
    return re.findall(r" ?\w+|[^\w]", text)
