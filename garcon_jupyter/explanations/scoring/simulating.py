"""What a language model, told an explanation, says that the unit does: a level for each token of a text.

Three ways, of which a model may know some:

* **all at once** (``"all-at-once"``): one prompt has the whole text, and in place of each level a word that says nothing. The model's
  probabilities *at these places of the prompt* are read, and the level is the expected value of them (Bills et al. 2023).
* **token by token** (``"token-by-token"``): one question for each token, whose answer is one token with probabilities.
* **as JSON** (``"json"``): the levels are written, one for each token. Any model can be asked this; replies may have any form.

A reply that did not come, or is not what was asked for, is an error with a reason: it is counted, and what it was asked about is left out of
the score. It never becomes zeros, which would be a simulation, and a good one of most texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.explanations import prompts
from garcon_jupyter.explanations.language_models.protocol import (
    CHAT,
    PROMPT_LOGPROBS,
    TOKEN_LOGPROBS,
    LanguageModel,
    NoUsableReply,
)
from garcon_jupyter.explanations.language_models.tokens_alone import check_levels
from garcon_jupyter.explanations.records.excerpts import TOP, Excerpt

NEEDED = {
    "all-at-once": frozenset({PROMPT_LOGPROBS}),
    "token-by-token": frozenset({CHAT, TOKEN_LOGPROBS}),
    "json": frozenset({CHAT}),
}
"""The ways, the best first, and what a model must be able to do for each."""

LEAST = 1e-9
"""Probability that all levels together must have, for an expected value to be made of them."""


@dataclass(frozen=True)
class Simulation:
    """What a simulator says of a text.

    Attributes:
        expected: a level for each token, from 0 to `top`.
        top: the highest level.
        probabilities: of each level at each token, [token][level], where the simulator tells them.
        mass: the probability that was on levels, on average, before they were made to add up to 1; None where it is not known. A low one says
            that the model did not understand the format.
    """

    expected: tuple[float, ...]
    top: int = TOP
    probabilities: tuple[tuple[float, ...], ...] = ()
    mass: float | None = None


@dataclass(frozen=True)
class Simulator:
    """A language model that simulates in one of the ways.

    Attributes:
        model: that is asked.
        method: "all-at-once", "token-by-token" or "json".
        top: the highest level.
    """

    model: LanguageModel
    method: str
    top: int = TOP

    @property
    def prompt(self) -> str:
        """The version of its prompt."""
        return prompts.VERSIONS[self.method]

    def simulate(self, explanation: str, tokens: Sequence[str]) -> Simulation:
        """Levels of a text.

        Args:
            explanation: what the unit is said to fire for.
            tokens: of the text.

        Raises:
            NoUsableReply: there is none; says why.
        """
        return _METHODS[self.method](self.model, explanation, tokens, self.top)

    def asked(self, explanation: str, excerpt: Excerpt) -> tuple[str, int, int]:
        """(prompt, requests, tokens of the answers) of a simulation, to tell what it costs."""
        tokens = excerpt.tokens
        if self.method == "all-at-once":
            return "".join(prompts.all_at_once(explanation, tokens, self.top)), 1, 1
        if self.method == "json":
            return _text(prompts.as_json(explanation, tokens, self.top)), 1, 12 * len(tokens)
        texts = [
            _text(prompts.token_by_token(explanation, tokens, at, self.top))
            for at in range(len(tokens))
        ]
        return "".join(texts), len(tokens), len(tokens)


def simulator(model: LanguageModel, method: str = "auto", top: int = TOP) -> Simulator:
    """A simulator of a model.

    Args:
        model: that is asked.
        method: "all-at-once", "token-by-token" or "json"; "auto" for the first of all at once and JSON that it can.
        top: the highest level. 9 for a model whose tokenizer has "10" as two tokens.

    Raises:
        BadRequest: the model cannot do that, or has a level as several tokens.
    """
    if method == "auto":
        method = "all-at-once" if PROMPT_LOGPROBS in model.can else "json"
    if method not in NEEDED:
        raise BadRequest(f"There is no way to simulate {method!r}.", f"Use {', '.join(NEEDED)}.")
    if lacks := NEEDED[method] - model.can:
        able = [name for name, needed in NEEDED.items() if needed <= model.can]
        raise BadRequest(
            f"{model.name} cannot simulate {method}: it gives no {' and no '.join(sorted(lacks))}.",
            f"Use {' or '.join(able)}." if able else "Use another model.",
        )
    if not 1 <= top <= TOP:
        raise BadRequest(f"top={top} is no highest level.", f"Give 1 to {TOP}.")
    if method == "all-at-once":
        check_levels(model, _candidates(top), "\t")
    elif method == "token-by-token":
        # A digit is a token wherever tokens are told at all; what matters is whether two digits are one.
        check_levels(model, _candidates(top)[10:], "")
    return Simulator(model, method, top)


def _candidates(top: int) -> list[str]:
    return [str(level) for level in range(top + 1)]


# -- the ways --------------------------------------------------------------------------------------


def _all_at_once(
    model: LanguageModel, explanation: str, tokens: Sequence[str], top: int
) -> Simulation:
    pieces = prompts.all_at_once(explanation, tokens, top)
    logs = np.asarray(model.score(pieces, _candidates(top)), np.float64)
    if logs.shape != (len(tokens), top + 1):
        raise NoUsableReply(
            "another number of log-probabilities", f"{logs.shape} for {len(tokens)} tokens"
        )
    return _expected(logs, top)


def _expected(logs: np.ndarray, top: int) -> Simulation:
    """Expected levels from log-probabilities [token, level]: ``Σ l · p(l) / Σ p(l)``."""
    if np.isnan(logs).any() or (logs > 1e-6).any():
        raise NoUsableReply("what is no log-probability", f"{logs.max():g}")
    chances = np.exp(logs)
    mass = chances.sum(1)
    if (mass < LEAST).any():
        at = int(np.argmin(mass))
        raise NoUsableReply("no level is likely", f"at token {at + 1} of {len(logs)}")
    chances /= mass[:, None]
    expected = chances @ np.arange(top + 1)
    return Simulation(
        tuple(expected.tolist()),
        top,
        tuple(tuple(round(p, 6) for p in row) for row in chances.tolist()),
        float(mass.mean()),
    )


def _token_by_token(
    model: LanguageModel, explanation: str, tokens: Sequence[str], top: int
) -> Simulation:
    known = {text: level for level, text in enumerate(_candidates(top))}
    rows = []
    for at in range(len(tokens)):
        messages = prompts.token_by_token(explanation, tokens, at, top)
        said = model.complete(messages, max_tokens=1, top_logprobs=20)
        if not said.top:
            raise NoUsableReply("no log-probabilities in the reply", f"{said.text!r:.40}")
        row = np.full(top + 1, -np.inf)
        for token, log in said.top[0].items():
            level = known.get(token.strip())
            if level is not None:  # " 3" and "3" are two ways to the same level
                row[level] = np.logaddexp(row[level], log)
        rows.append(row)
    return _expected(np.stack(rows) if rows else np.zeros((0, top + 1)), top)


def _as_json(model: LanguageModel, explanation: str, tokens: Sequence[str], top: int) -> Simulation:
    said = model.complete(
        prompts.as_json(explanation, tokens, top),
        max_tokens=64 + 40 * len(tokens),
        schema=prompts.levels_schema(top),
    )
    if said.cut:
        raise NoUsableReply("reply cut short", f"after {len(said.text)} characters")
    return Simulation(tuple(read_levels(said.text, tokens, top)), top)


def read_levels(text: str, tokens: Sequence[str], top: int) -> list[float]:
    """The levels of a reply to :func:`garcon_jupyter.explanations.prompts.as_json`.

    Args:
        text: the reply.
        tokens: of the text that was asked about.
        top: the highest level.

    Raises:
        NoUsableReply: it is not what was asked for: no JSON, too few or too many tokens, other tokens, or a level that is none.
    """
    rows = read_json(text, "levels", list)
    if len(rows) != len(tokens):
        raise NoUsableReply(
            "another number of tokens in the reply", f"{len(rows)} for {len(tokens)}"
        )
    found = []
    for number, (row, token) in enumerate(zip(rows, tokens, strict=True), 1):
        if not isinstance(row, dict) or "level" not in row:
            raise NoUsableReply("no level in the reply", f"of token {number}")
        if "token" in row and str(row["token"]).strip() != prompts.written(token).strip():
            raise NoUsableReply(
                "other tokens in the reply", f"{row['token']!r} is not {prompts.written(token)!r}"
            )
        found.append(_level(row["level"], top, number))
    return found


def _level(value: Any, top: int, number: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NoUsableReply("a level that is no number", f"{value!r:.40} of token {number}")
    if not math.isfinite(value) or not 0 <= value <= top:
        raise NoUsableReply("a level out of range", f"{value} of token {number}")
    return float(value)


def read_json(text: str, name: str, kind: type) -> Any:
    """What a reply has under a name; a fence of Markdown around the JSON does not count.

    Raises:
        NoUsableReply: it is no JSON, or has no such thing.
    """
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", text, flags=re.S)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except ValueError as error:
        raise NoUsableReply("not JSON", str(error)) from None
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise NoUsableReply("JSON of another form", f"no {name!r} in it")
    return value


_METHODS: dict[str, Callable[[LanguageModel, str, Sequence[str], int], Simulation]] = {
    "all-at-once": _all_at_once,
    "token-by-token": _token_by_token,
    "json": _as_json,
}


def _text(messages: Sequence[Any]) -> str:
    return "\n".join(one["content"] for one in messages)
