"""Texts and tokens that a request has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from garcon_jupyter.errors import BadTokens
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.plain_data import LikelyToken, TextTokens

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.tokens import Tokens

TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]

Ids = Annotated[list[TokenId], Field(min_length=1)]

Prompt = str | Ids
"""A text, or the ids of its tokens."""

Prompts = (
    str
    | Ids
    | Annotated[list[str], Field(min_length=1)]
    | Annotated[list[Ids], Field(min_length=1)]
)
"""One prompt, or several."""


def read(at: Door, given: Prompts) -> Tokens:
    """The tokens of prompts; the shorter ones padded.

    Raises:
        BadTokens: they cannot be read.
        BadRequest: there are more than the limits allow.
    """
    texts = [given] if isinstance(given, str) else [each for each in given if isinstance(each, str)]
    if texts:
        at.limits.check("prompts", len(texts), f"There are {len(texts):,} prompts")
        tokens = at.model.encode(texts)
    else:
        rows = [each for each in given if isinstance(each, list)]
        rows = rows or [[each for each in given if isinstance(each, int)]]
        longest = max(map(len, rows))
        at.limits.check("prompts", len(rows), f"There are {len(rows):,} prompts")
        at.limits.check("prompt_tokens", longest, f"A prompt has {longest:,} tokens")
        tokens = padded(rows)
    longest = tokens.shape[1]
    at.limits.check("prompt_tokens", longest, f"A prompt has {longest:,} tokens")
    return tokens


def padded(rows: Sequence[Sequence[int]]) -> Tokens:
    """Rows of ids, the shorter ones filled up on the right; each has the numbers that it has alone."""
    import torch

    from garcon_jupyter.client.tokens import Tokens

    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask = torch.arange(longest)[None] < torch.tensor([len(row) for row in rows])[:, None]
    return Tokens(ids, mask)


def read_one(at: Door, given: Prompt) -> Tokens:
    """The tokens of one prompt.

    Raises:
        BadTokens, BadRequest: as :func:`read`.
    """
    tokens = read(at, given)
    if not tokens.shape[1]:
        raise BadTokens("The prompt has no tokens.", "Give a text of at least one.")
    return tokens


def told(at: Door, tokens: Tokens) -> list[TextTokens]:
    """The tokens of each prompt, without padding."""
    strings = at.model.token_strings(tokens)
    rows = zip(tokens.tolist(), strings, tokens.mask.tolist(), strict=True)
    return [
        TextTokens(
            ids=[token for token, real in zip(ids, mask, strict=True) if real],
            strings=[text for text, real in zip(texts, mask, strict=True) if real],
        )
        for ids, texts, mask in rows
    ]


def likely(at: Door, best: Tensor, chances: Tensor) -> list[list[LikelyToken]]:
    """Tokens that may come next, of several places.

    Args:
        best: ids [place, k].
        chances: their probabilities.
    """
    distinct = sorted({int(token) for token in best.flatten()})
    texts = at.model.token_strings([distinct], alone=True)[0] if distinct else []
    words = dict(zip(distinct, texts, strict=True))
    return [
        [
            LikelyToken(id=token, string=words[token], probability=chance)
            for token, chance in zip(row, of_row, strict=True)
        ]
        for row, of_row in zip(best.tolist(), chances.tolist(), strict=True)
    ]


def single_ids(at: Door, given: Sequence[str | int], after: Tokens) -> list[int]:
    """Tokens of an answer, each a text of one token or an id.

    Raises:
        BadRequest: a text is several tokens; says which.
    """
    from garcon_jupyter.experiments.target_tokens import one_token_each

    return one_token_each(at.model, given, after=after)
