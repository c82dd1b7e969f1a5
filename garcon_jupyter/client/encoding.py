"""What ``encode`` and ``decode`` may be given, and what is said of anything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadRequest, BadTokens

_TEXTS = "Give a text or a list of texts."

_MESSAGES = 'Messages are [{"role": "user", "content": "…"}, …], or a list of several such lists.'

_OTHER_CONTENTS = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
"""What a message may say in place of its content."""


def texts_of(given: Any) -> tuple[str, ...]:
    """The texts to encode.

    Raises:
        BadRequest: it is no text and no texts; says what it is.
    """
    if isinstance(given, str):
        return (given,)
    texts = _items(given, _TEXTS)
    for text in texts:
        if isinstance(text, str):
            continue
        if _is_message(text):
            raise BadRequest("encode was given messages.", "Give chat=True for a conversation.")
        if isinstance(text, (list, tuple)):
            raise BadRequest("encode was given lists in a list.", _TEXTS)
        if isinstance(text, int) and not isinstance(text, bool):
            raise BadRequest(
                "encode was given numbers, not texts.",
                "Token ids are read as they are: rmodel.forward([464, 3139]).",
            )
        raise BadRequest(f"encode was given {_a(text)} among the texts.", _TEXTS)
    if not texts:
        raise BadRequest("encode was given no text.", _TEXTS)
    return texts


def chats_of(given: Any) -> tuple[list[dict[str, Any]], ...]:
    """The conversations to encode, each a list of messages.

    Raises:
        BadRequest: it is none; says what a message lacks.
    """
    if isinstance(given, Mapping):
        given = [given]
    found = _items(given, _MESSAGES)
    if not found:
        raise BadRequest("encode was given no messages.", _MESSAGES)
    chats = [found] if isinstance(found[0], Mapping) else [_items(one, _MESSAGES) for one in found]
    return tuple([_message(message) for message in chat] for chat in map(_not_empty, chats))


def _not_empty(chat: tuple[Any, ...]) -> tuple[Any, ...]:
    if not chat:
        raise BadRequest("A conversation has no messages.", _MESSAGES)
    return chat


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise BadRequest(f"{_a(message).capitalize()} is no message: {message!r:.60}.", _MESSAGES)
    if not isinstance(message.get("role"), str):
        raise BadRequest(f"A message has no role: {dict(message)!r:.80}.", _MESSAGES)
    content = message.get("content")
    if content is None and any(message.get(name) for name in _OTHER_CONTENTS):
        return dict(message)
    if not isinstance(content, (str, list, tuple)):
        lacks = "has no content" if content is None else f"has {_a(content)} for its content"
        raise BadRequest(f"A message {lacks}: {dict(message)!r:.80}.", _MESSAGES)
    return dict(message)


def rows_of(given: Any, vocabulary: int = 1 << 31) -> tuple[list[list[int]], bool]:
    """Rows of token ids to decode, without padding; and whether it is one row by itself.

    Args:
        vocabulary: how many tokens there are, where that is known.

    Raises:
        BadTokens: these are no ids.
    """
    if isinstance(given, Tokens):
        both = zip(given.tolist(), given.mask.tolist(), strict=True)
        return [[id for id, real in zip(*row, strict=True) if real] for row in both], False
    values = _plain(given)
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, (int, Iterable)):
        raise _no_ids(given)
    values = [values] if isinstance(values, int) else [_plain(value) for value in values]
    alone = bool(values) and not isinstance(values[0], (list, tuple, range))
    rows = [values] if alone else values
    for row in rows:
        if not isinstance(row, (list, tuple, range)):
            raise _no_ids(row)
        for id in row:
            if not isinstance(id, int) or isinstance(id, bool):
                raise _no_ids(id)
            if not 0 <= id < vocabulary:
                raise BadTokens(
                    f"{id} is no token.", f"Ids are numbers from 0 to {vocabulary - 1:,}."
                )
    return [list(row) for row in rows], alone


def _plain(value: Any) -> Any:
    """Tensors and arrays as lists and numbers."""
    return value.tolist() if hasattr(value, "tolist") else value


def _no_ids(given: Any) -> BadTokens:
    return BadTokens(
        f"decode was given {_a(given)}: {given!r:.60}.",
        "Give token ids: a list of integers, or a list of such lists.",
    )


def _items(given: Any, wanted: str) -> tuple[Any, ...]:
    if isinstance(given, (str, bytes, bytearray, Mapping)) or not isinstance(given, Iterable):
        hint = " Decode it: data.decode()." if isinstance(given, (bytes, bytearray)) else ""
        raise BadRequest(f"encode was given {_a(given)}: {given!r:.60}.", wanted + hint)
    return tuple(given)


def _is_message(thing: Any) -> bool:
    return isinstance(thing, Mapping) or (
        isinstance(thing, (list, tuple)) and bool(thing) and isinstance(thing[0], Mapping)
    )


def _a(thing: Any) -> str:
    """What kind of thing it is, for a sentence."""
    if thing is None:
        return "None"
    kind = {"str": "text"}.get(type(thing).__name__, type(thing).__name__)
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
