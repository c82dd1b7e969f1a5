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
        continued: a chat's last message is left open, for the model to go on with.
        header: whether the header of an answer ends a chat; None for where its last message is no answer.
    """

    texts: tuple[str, ...] = ()
    chats: tuple[list[dict[str, Any]], ...] = ()
    special: bool | None = None
    left: bool = False
    continued: bool = False
    header: bool | None = None


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
    """Rows of token ids to the text of each single token.

    Attributes:
        mask: of each row, False at padding, which is no part of the text; None where nothing is padded.
        alone: the rows are no texts: each token as it is in the midst of one, whatever stands beside it.
        halves: as `alone`, with the bytes of characters that are cut (:mod:`garcon_jupyter.wire.token_parts`).
    """

    rows: list[list[int]]
    mask: list[list[bool]] | None = None
    alone: bool = False
    halves: bool = False
