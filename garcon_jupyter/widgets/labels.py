"""Token strings made visible.

A token may be a newline, a lone space, half a character, or a mark that turns the writing direction
of all that follows. A label shows each as something one can see and point at, and is always valid
Unicode that stays on its own line in its own direction.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from garcon_jupyter.errors import BadRequest

_VISIBLE = {"\n": "⏎", "\r": "␍", "\t": "⇥", "\v": "␋", "\f": "␌", "\u00a0": "⍽"}
_JOINERS = "\u200c\u200d"
"""Zero-width (non-)joiners: part of emoji and of Persian or Indic words, so kept inside a word."""


def label(token: str) -> str:
    """`token` as it is shown: ``" the"`` is ``"·the"``, a newline ``"⏎"``, nothing ``"∅"``."""
    if not token:
        return "∅"
    body = token.strip(" ")
    before = len(token) - len(token.lstrip(" ")) if body else len(token)
    after = len(token) - len(token.rstrip(" ")) if body else 0
    alone = all(unicodedata.category(char) in ("Cf", "Mn", "Me") for char in body)
    return "·" * before + "".join(_shown(char, alone) for char in body) + "·" * after


def written(token: str) -> str:
    """`token` as it stands in a running text: spaces and line breaks remain, the rest as a label.

    A line break is shown before it breaks the line; no token is without something to point at.
    """
    if not token:
        return "∅"
    alone = all(unicodedata.category(char) in ("Cf", "Mn", "Me") for char in token)
    parts = [
        "⏎\n" if char == "\n" else char if char == " " else _shown(char, alone) for char in token
    ]
    return "".join(parts)


def token_labels(
    tokens: Sequence[str] | Sequence[Sequence[str]] | None, rows: int, length: int
) -> list[list[str]]:
    """A label for each of `length` positions in each of `rows` texts.

    Args:
        tokens: one list of strings for each text; a flat list where there is one text; None for
            the positions' numbers.

    Raises:
        BadRequest: the number of texts or of tokens is not the array's.
    """
    if tokens is None:
        return [[str(position) for position in range(length)] for _ in range(rows)]
    if isinstance(tokens, str):
        raise BadRequest("tokens is one string.", "Give a list of token strings for each text.")
    texts = [list(tokens)] if all(isinstance(part, str) for part in tokens) else list(tokens)
    if rows == 0 or length == 0:
        return [[] for _ in range(rows)]
    if len(texts) != rows:
        raise BadRequest(
            f"There are tokens for {len(texts)} texts and the array has {rows}.",
            "Give one list of token strings for each text of the batch.",
        )
    for number, text in enumerate(texts):
        if len(text) != length:
            raise BadRequest(
                f"Text {number} has {len(text)} tokens and the array {length} positions.",
                "Give a string for every position, padding included.",
            )
    return [[label(str(token)) for token in text] for text in texts]


def _shown(char: str, alone: bool) -> str:
    if char in _VISIBLE:
        return _VISIBLE[char]
    if char < " ":
        return chr(0x2400 + ord(char))  # the control pictures: ␀, ␁, …
    kind = unicodedata.category(char)
    if kind == "Cs":
        return "\ufffd"  # half of a surrogate pair, which no message could carry
    if kind in ("Cc", "Zl", "Zp") or (kind == "Cf" and (alone or char not in _JOINERS)):
        return f"⟨{ord(char):X}⟩"
    if kind in ("Mn", "Me") and alone:
        return "◌" + char
    return char
