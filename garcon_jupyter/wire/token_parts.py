"""The parts of a text that its tokens stand for.

A character may be cut over several tokens. Then it is the text of the first of them, and the others have none, so that
the parts, joined, are the text. Where bytes of a character stand alone, as in a vocabulary, they are written as Python
writes undecodable file names (PEP 383): each as a lone surrogate, which :func:`whole` puts together again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

BROKEN = "\ufffd"
"""What decoders put for bytes that are no character."""


def escaped(data: bytes) -> str:
    """Bytes as text; those that are no character as lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def plain(text: str) -> str:
    r"""A text in which bytes that are no character are ``\ufffd``."""
    return _bytes(text).decode("utf-8", "replace")


def whole(parts: Sequence[str]) -> list[str]:
    """Texts of tokens that stand beside each other, with the characters that they make together."""
    if all(part.isascii() or plain(part) == part for part in parts):
        return list(parts)

    def decode(row: list[Any]) -> str:
        return b"".join(row).decode("utf-8", "replace")

    data = [_bytes(part) for part in parts]
    text, guesses = decode(data), [decode([piece]) for piece in data]
    return guesses if "".join(guesses) == text else shared(data, text, guesses, decode)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


Decode = Callable[[list[Any]], str]


def shared(row: list[Any], whole: str, guesses: list[str], decode: Decode) -> list[str]:
    """The parts of a text that its tokens stand for, where some are not what they are in the midst of others.

    A guess that the text goes on with is taken. Bytes of a character are put together until they are one. Elsewhere
    the tokens up to there are decoded: as far as that agrees with the text, it has been read.
    """
    parts = [""] * len(row)
    at = 0
    broken: int | None = None  # the first token of a character that is not whole yet
    sure: tuple[int, int] | None = None  # the last token whose text is certain, and where that ends
    for number, guess in enumerate(guesses):
        if broken is None and BROKEN not in guess and whole.startswith(guess, at):
            parts[number] = guess
            at += len(guess)
            sure = (number, at) if guess else sure
            continue
        if broken is not None or BROKEN in guess:
            first, broken = (number if broken is None else broken), None
            text = decode(row[first : number + 1])
            if text.endswith(BROKEN):
                broken = first
                continue
            if whole.startswith(text, at):
                # Bytes may be no character in the text itself; then a token of its own may follow.
                apart = number > first and BROKEN in text and guess and text.endswith(guess)
                own = guess if apart else ""
                parts[number] = own
                parts[first] = text[: len(text) - len(own)]
                at += len(text)
                continue
        read = _read_up_to(number, row, whole, sure, decode)
        if read > at:
            parts[number] = whole[at:read]
            at = read
    parts[-1 if broken is None else broken] += whole[at:]
    return parts


def _read_up_to(
    number: int, row: list[Any], whole: str, sure: tuple[int, int] | None, decode: Decode
) -> int:
    """How much of a text its tokens up to this one decode to."""
    if sure is not None:
        first, end = sure
        head, text = decode([row[first]]), decode(row[first : number + 1])
        if text.startswith(head):
            return end + _agreed(text[len(head) :], whole[end:])
    return _agreed(decode(row[: number + 1]), whole)


def _agreed(one: str, other: str) -> int:
    """How many characters two texts have in common before they differ."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
