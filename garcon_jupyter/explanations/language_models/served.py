"""A model that Garçon serves, as a language model: all log-probabilities of a prompt, by one forward, and no network.

It may be any model, on a server of its own, or the model itself that is being explained. A connection of its own
(``garcon.connect(name, session="simulator")``) keeps what the notebook's has attached and read apart from this.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadRequest, BadTokens
from garcon_jupyter.explanations.language_models.protocol import (
    CHAT,
    PROMPT_LOGPROBS,
    TOKEN_LOGPROBS,
    Completion,
    Message,
    NoUsableReply,
)

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


class ServedModel:
    """A served model as a language model.

    Args:
        rmodel: a connection to it. Its attached probes are not run.
        name: by which answers are kept; by default the last part of its path, with some digits of a digest of all of it.
        chat: whether messages are written by the model's chat template; None for whether it has one.
    """

    can = frozenset({CHAT, TOKEN_LOGPROBS, PROMPT_LOGPROBS})
    at_once = 1

    def __init__(self, rmodel: Client, name: str | None = None, chat: bool | None = None) -> None:
        self._rmodel = rmodel
        self.name = name or _name_of(str(rmodel.facts["path"]))
        self._chat = chat

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
        """Generate after the messages; a schema is not enforced."""
        rmodel, prompt = self._rmodel, self._prompt(messages)
        length = prompt.shape[1]
        options: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            options = {"do_sample": True, "temperature": temperature}
        try:
            made = rmodel.generate(
                prompt, max_tokens, probes=[], output_logits=bool(top_logprobs), **options
            )
        except BadTokens as error:
            raise NoUsableReply("prompt too long", str(error)) from None
        ids = made.ids[0, length:][made.mask[0, length:]].tolist()
        ids = ids[:-1] if 0 < len(ids) < max_tokens else ids  # the token by which it ended
        strings = rmodel.token_strings([ids])[0] if ids else []
        top = self._top(made, len(ids), top_logprobs) if top_logprobs else ()
        text = str(rmodel.decode(ids)) if ids else ""
        ends = [at for at in (text.find(word) for word in stop) if at >= 0]
        text = text[: min(ends)] if ends else text
        cut = len(ids) >= max_tokens and not ends
        return Completion(text, tuple(strings), top, cut, length, len(ids))

    def score(self, pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Log-probabilities after each piece; one forward, of which only these numbers travel.

        Pieces are tokenized each by itself, and put one after the other: so it is known at which token each ends.
        """
        wanted = [self._one(candidate) for candidate in candidates]
        rows = [self._ids(piece, n == 0) for n, piece in enumerate(pieces)]
        if empty := [n for n, row in enumerate(rows) if not row]:
            raise NoUsableReply("empty piece", f"piece {empty[0]} has no token")
        ends = np.cumsum([len(row) for row in rows]) - 1
        places, prompt = [int(end) for end in ends], list(itertools.chain.from_iterable(rows))

        def at_places(logits: Any) -> Any:
            return logits[0, places].double().log_softmax(-1)[:, wanted].cpu()

        try:
            found = self._rmodel.forward([prompt], probes=[], logits=at_places)
        except BadTokens as error:
            raise NoUsableReply("prompt too long", str(error)) from None
        return np.asarray(found.numpy(), np.float64)

    def tokens_of(self, text: str) -> list[str]:
        """The tokens of a text in the midst of another, by the server's tokenizer."""
        ids = self._ids(text, first=False)
        return self._rmodel.token_strings([ids])[0] if ids else []

    def _ids(self, text: str, first: bool) -> list[int]:
        """Ids of a text; at the beginning with the special tokens that the tokenizer itself puts there, if any."""
        if not text:
            return []
        tokens = self._rmodel.encode(text, special=None if first else False)
        ids: list[int] = tokens.tolist()[0]
        return ids

    def _one(self, candidate: str) -> int:
        ids = self._ids(candidate, first=False)
        if len(ids) != 1:
            raise BadRequest(
                f"{self.name} has {candidate!r} as {len(ids)} tokens.",
                "Give candidates that are one token each: top=9 for levels.",
            )
        return ids[0]

    def _prompt(self, messages: Sequence[Message]) -> Any:
        if self._chat is None:
            try:
                made = self._rmodel.encode([dict(one) for one in messages], chat=True)
            except BadRequest:
                self._chat = False
            else:
                self._chat = True
                return made
        if self._chat:
            return self._rmodel.encode([dict(one) for one in messages], chat=True)
        return self._rmodel.encode("\n\n".join(one["content"] for one in messages) + "\n\n")

    def _top(self, made: Any, count: int, top_logprobs: int) -> tuple[dict[str, float], ...]:
        """The likeliest tokens at each place that was written."""
        found = []
        for step in range(count):
            logs = made.logits[step][0].double().log_softmax(-1)
            best = logs.topk(top_logprobs)
            strings = self._rmodel.token_strings([best.indices.tolist()], alone=True)[0]
            found.append(dict(zip(strings, best.values.tolist(), strict=True)))
        return tuple(found)


def _name_of(path: str) -> str:
    """What a model is called: files of one name in two places are two models, and the place is nobody else's business."""
    return f"{PurePath(path).name}~{sha256(path.encode()).hexdigest()[:6]}"
