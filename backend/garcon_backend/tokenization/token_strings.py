"""The text of single tokens.

What a token stands for may depend on its neighbours: the first word of a text has no space before it, a character
may be cut over several tokens, and some tokenizers join words or take spaces away when they decode. The tokenizer's
own ``decode`` knows all that, so it alone is asked. The rule is that strings of a text, joined, are the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from garcon_jupyter.model_files.multimodal import text_config
from garcon_jupyter.wire.token_parts import BROKEN, escaped, shared


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
        r"""The text of each token as it is in the midst of a text, whatever stands beside it here.

        Part of a character is ``\ufffd``.
        """
        return [self._in_the_midst(token) for token in row]

    def with_halves(self, row: list[int]) -> list[str]:
        """As :meth:`alone`, but part of a character is its bytes (:func:`garcon_jupyter.wire.token_parts.escaped`), so that
        the texts of tokens that stand beside each other can be put together without the tokenizer."""
        return [
            self._with_bytes(token, text) for token, text in zip(row, self.alone(row), strict=True)
        ]

    def _with_bytes(self, token: int, text: str) -> str:
        if BROKEN not in text:
            return text
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if found := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
            data = bytes.fromhex(found[1])
        elif all(char in _BYTES for char in piece):
            data = bytes(_BYTES[char] for char in piece)
        else:
            return text
        return escaped(data) if data.decode(errors="replace") == text else text

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
        return shared(row, whole, guesses, self._decode)

    def _decode(self, row: list[int]) -> str:
        text: str = self._tokenizer.decode(row)
        return text

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


def _byte_alphabet() -> dict[str, int]:
    """The letter for each byte in byte-level vocabularies (Radford et al. 2019): itself where it can be printed."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    letters = {chr(byte): byte for byte in printed}
    return letters | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def special_ids(tokenizer: Any | None, config: Any) -> list[int]:
    """The ids of tokens that are no text of anybody's: where texts begin, end, are filled up, or change hands."""
    found: set[Any] = set()
    if tokenizer is not None:
        found |= set(getattr(tokenizer, "all_special_ids", ()))
        added = getattr(tokenizer, "added_tokens_decoder", {})
        found |= {id for id, token in added.items() if getattr(token, "special", False)}
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        for part in (config, text_config(config)):
            ids = getattr(part, name, None)
            found |= set(ids) if isinstance(ids, (list, tuple)) else {ids}
    return sorted(id for id in found if isinstance(id, int) and id >= 0)
