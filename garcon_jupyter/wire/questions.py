"""Questions about tokens: they are answered at once, while the model may be busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Encode:
    """Text, or chats, to tokens.

    Attributes:
        texts: one row each.
        chats: lists of messages ``{"role": …, "content": …}``, by the model's chat template.
        special: whether the tokenizer adds its special tokens (a beginning-of-sequence token, where the
            model has one); None for its own habit: yes for texts, no for chats, whose template does.
        left: pad on the left instead of on the right.
    """

    texts: tuple[str, ...] = ()
    chats: tuple[list[dict[str, str]], ...] = ()
    special: bool | None = None
    left: bool = False


@dataclass(frozen=True)
class Encoded:
    """Token ids [b, p], their mask [b, p] (False at padding), and the text of each token."""

    ids: Any
    mask: Any
    strings: list[list[str]]


@dataclass(frozen=True)
class Decode:
    """Rows of token ids to texts."""

    rows: list[list[int]]


@dataclass(frozen=True)
class Strings:
    """Rows of token ids to the text of each single token."""

    rows: list[list[int]]
