"""The tokens that a picture is asked to follow, given as text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

_TOLD: set[str] = set()
"""Answers that were hinted at: once is enough."""


def one_token_each(rmodel: Client, answers: Sequence[Any], after: Tokens) -> list[int]:
    """Answers, each a token id or the text of one token, as ids.

    A model that goes on with a new word says it with the space before it. An answer without its space is another
    token, or several: a hint says so where the one with its space is a single token, unless the text itself ends with
    a space, after which a word begins without.

    Raises:
        BadRequest: there is no such token, or an answer is several tokens; says which, and whether a space before it makes one of them.
    """
    spaced = rmodel.token_strings(after)[0][-1].endswith((" ", "\n"))
    ids, bare = [], []
    for answer in answers:
        if not isinstance(answer, str):
            ids.append(_in_vocabulary(rmodel, int(answer)))
            continue
        pieces = _pieces(rmodel, answer)
        with_space = _pieces(rmodel, f" {answer}") if answer[:1].isalnum() else None  # a word
        wants_space = with_space is not None and len(with_space) == 1 and not spaced
        if len(pieces) != 1:
            raise _several(rmodel, answer, pieces, wants_space)
        if wants_space and with_space != pieces:
            bare.append(answer)
        ids.append(pieces[0])
    if untold := [answer for answer in bare if answer not in _TOLD]:
        _hint(untold)
    return ids


def _in_vocabulary(rmodel: Client, token: int) -> int:
    """An id, if there is such a token.

    Raises:
        BadRequest: there is none.
    """
    vocabulary = rmodel.catalog.size("V")
    if token < 0 or (vocabulary is not None and token >= vocabulary):
        end = f" to {vocabulary - 1}" if vocabulary is not None else ""
        raise BadRequest(f"There is no token {token}.", f"The vocabulary has 0{end}.")
    return token


def _pieces(rmodel: Client, text: str) -> list[int]:
    return rmodel.encode(text, special=False).tolist()[0] if text else []


def _several(rmodel: Client, answer: str, pieces: list[int], wants_space: bool) -> BadRequest:
    words = ", ".join(map(repr, rmodel.token_strings([pieces])[0])) if pieces else "none"
    remedy = (
        f"{' ' + answer!r}, with its space, is one: a model says a new word so."
        if wants_space
        else "An answer is one; give the first of them, or a metric of your own."
    )
    return BadRequest(f"{answer!r} is {len(pieces)} tokens: {words}.", remedy)


def _hint(bare: Sequence[str]) -> None:
    _TOLD.update(bare)
    given = ", ".join(map(repr, bare))
    meant = ", ".join(repr(f" {answer}") for answer in bare)
    print(
        f"[garcon] {given}: without a space these are other tokens than {meant}, with which a model goes on after a "
        "text. Give the latter if you mean the word.",
        file=sys.stderr,
    )
