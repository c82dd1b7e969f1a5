"""The text of single tokens.

What a token stands for may depend on its neighbours: the first word of a text has no space before it, a character
may be cut over several tokens, and some tokenizers join words or take spaces away when they decode. The tokenizer's
own ``decode`` knows all that, so it alone is asked. The rule is that strings of a text, joined, are the text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

BROKEN = "\ufffd"
"""What decoders put for bytes that are no character."""


class TokenStrings:
    """Texts of tokens, in a text and by themselves.

    Args:
        tokenizer: a transformers tokenizer; None where there is nothing to ask.
    """

    def __init__(self, tokenizer: Any | None) -> None:
        self._tokenizer: Any = tokenizer
        self._known: dict[int, str] = {}
        self._anchor: tuple[int, str] | None = None
        self._anchored = False

    def alone(self, row: list[int]) -> list[str]:
        """The text of each token as it is in the midst of a text, whatever stands beside it here.

        Part of a character is ``\\ufffd``.
        """
        return [self._in_the_midst(token) for token in row]

    def in_text(self, row: list[int], mask: Sequence[bool] | None = None) -> list[str]:
        """The texts of the tokens of one text; joined, they are what the tokenizer decodes it to.

        A character that is cut over several tokens is the text of the first of them, and the others have none.

        Args:
            mask: False at padding, which is no part of the text.
        """
        if mask is not None and not all(mask):
            text = iter(self.in_text([id for id, real in zip(row, mask, strict=True) if real]))
            padding = self.alone(row)
            return [next(text) if real else padding[n] for n, real in enumerate(mask)]
        if not row:
            return []
        whole = self._decode(row)
        guesses = [self._decode(row[:1]), *map(self._in_the_midst, row[1:])]
        if "".join(guesses) == whole:
            return guesses
        return _shared(row, whole, guesses, self._decode)

    def _decode(self, row: list[int]) -> str:
        return self._tokenizer.decode(row)

    def _in_the_midst(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._after_another(token)
        return self._known[token]

    def _after_another(self, token: int) -> str:
        """What a token adds to a text."""
        anchor = self._find_anchor()
        if anchor is not None:
            before, text = anchor
            both = self._decode([before, token])
            if both.startswith(text):
                return both[len(text) :]
        return self._decode([token])

    def _find_anchor(self) -> tuple[int, str] | None:
        """A token to put before others, and its text: a letter, which decoders leave as it is."""
        if not self._anchored:
            self._anchored = True
            for letter in "aexAE01":
                ids = self._tokenizer(letter, add_special_tokens=False)["input_ids"]
                if ids and (text := self._decode(ids[-1:])) and text.endswith(letter):
                    self._anchor = (ids[-1], text)
                    break
        return self._anchor


Decode = Callable[[list[int]], str]


def _shared(row: list[int], whole: str, guesses: list[str], decode: Decode) -> list[str]:
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
    number: int, row: list[int], whole: str, sure: tuple[int, int] | None, decode: Decode
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


def special_ids(tokenizer: Any | None, config: Any) -> list[int]:
    """The ids of tokens that are no text of anybody's: where texts begin, end, are filled up, or change hands."""
    found: set[Any] = set()
    if tokenizer is not None:
        found |= set(getattr(tokenizer, "all_special_ids", ()))
        added = getattr(tokenizer, "added_tokens_decoder", {})
        found |= {id for id, token in added.items() if getattr(token, "special", False)}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = getattr(config, name, None)
        found |= set(ids) if isinstance(ids, (list, tuple)) else {ids}
    return sorted(id for id in found if isinstance(id, int) and id >= 0)
