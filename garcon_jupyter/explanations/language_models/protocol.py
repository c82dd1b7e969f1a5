"""What a language model is, to whoever explains: it completes messages, and may tell probabilities.

Three things can be asked, and a model says in ``can`` which of them it knows:

* ``"chat"``: a text in answer to messages;
* ``"token_logprobs"``: with it, the log-probabilities of the likeliest tokens at each place that it wrote;
* ``"prompt_logprobs"``: log-probabilities at places of the *prompt*, by which a whole text is simulated in one pass. Hosted models
  give none; a model that runs here, or behind a server of one's own, does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

CHAT, TOKEN_LOGPROBS, PROMPT_LOGPROBS = "chat", "token_logprobs", "prompt_logprobs"

Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": …}``"""


class NoUsableReply(Exception):
    """A reply that did not come, or cannot be used. It is counted by its reason, and the run goes on.

    Args:
        reason: a few words that are the same for all of a kind, such as "not JSON".
        detail: what it was of this one.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Attributes:
        text: all of it.
        tokens: its tokens, where the model tells them.
        top: the likeliest tokens at the place of each, with their log-probabilities; empty where they were not asked for.
        cut: whether it ended because it was as long as was allowed.
        prompt_tokens, completion_tokens: what it cost, where the model tells; 0 else.
    """

    text: str
    tokens: tuple[str, ...] = ()
    top: tuple[Mapping[str, float], ...] = ()
    cut: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0


class LanguageModel(Protocol):
    """What explains, simulates and judges.

    A class of one's own needs nothing of Garçon but :class:`Completion` and :class:`NoUsableReply`.
    """

    @property
    def name(self) -> str:
        """By which its answers are kept: another model has another name."""

    @property
    def can(self) -> frozenset[str]:
        """Of "chat", "token_logprobs" and "prompt_logprobs"."""

    @property
    def at_once(self) -> int:
        """How many questions it may be asked at a time."""

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
        """Go on after messages.

        Args:
            messages: what was said, and how answers look, by earlier ones.
            max_tokens: at most so many.
            temperature: 0 for the likeliest.
            stop: texts at which it ends, which are not in the answer.
            schema: a JSON schema that the answer is to follow; a model that cannot be held to it ignores it.
            top_logprobs: so many of the likeliest tokens at each place.

        Raises:
            NoUsableReply: there is none, for this question.
            GarconError: there will be none for any.
        """

    def score(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Log-probabilities of candidates at places of a prompt.

        The prompt is the pieces, joined; its places are after each piece, where the next one (or, last, nothing) begins. Needs "prompt_logprobs".

        Args:
            pieces: n texts.
            candidates: c texts, each a single token.

        Returns:
            float64 [n, c]; minus infinity where it is not known, as of an unlikely one.

        Raises:
            NoUsableReply: there is no answer, for this question.
        """

    def tokens_of(self, text: str) -> list[str] | None:
        """The tokens of a text, as they stand in its midst; None where the model does not tell."""
