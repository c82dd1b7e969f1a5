"""Text to tokens and back, by the tokenizer that the server has."""

from __future__ import annotations

from typing import Any

from garcon_jupyter.client import encoding
from garcon_jupyter.client.connected import Connected
from garcon_jupyter.client.tokens import Tokens, as_tokens
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire import tokenizer_messages as ask


class TokenizerClient(Connected):
    """What a connection does with text."""

    def encode(
        self,
        text: Any,
        chat: bool = False,
        padding: str = "right",
        special: bool | None = None,
        continue_final: bool = False,
        header: bool | None = None,
    ) -> Tokens:
        """Text to tokens.

        Args:
            text: a text, a list of texts, or, with `chat`, a list of messages ``{"role", "content"}``
                (or several such lists), written out by the model's chat template.
            chat: `text` is messages.
            padding: the side on which shorter texts of a list are filled up, "right" or "left"; the mask
                says where, and each text gets the numbers that it has alone.
            special: whether the tokenizer adds its special tokens, such as a beginning-of-sequence token.
                None is its own habit for texts, and no for chats, whose template writes them.
            continue_final: leave a chat's last message open, so that the model goes on with its words.
            header: whether a chat ends with the header of an answer, which the model then writes. None is yes,
                unless the last message is the assistant's.

        Returns:
            Tokens, [b, p].
        """
        if padding not in ("right", "left"):
            raise BadRequest(f"There is no padding side {padding!r}.", "Use right or left.")
        if continue_final and header:
            raise BadRequest(
                "A message that goes on has no header after it.",
                "Leave out header or continue_final.",
            )
        if (continue_final or header is not None) and not chat:
            raise BadRequest("continue_final and header are of chats.", "Give chat=True too.")
        question = ask.Encode(
            texts=() if chat else encoding.texts_of(text),
            chats=encoding.chats_of(text) if chat else (),
            special=None if special is None else bool(special),
            left=padding == "left",
            continued=bool(continue_final),
            header=None if header is None else bool(header),
        )
        encoded = self._ask_tokenizer(question)
        return Tokens(encoded.ids, encoded.mask, encoded.strings)

    def decode(self, ids: Any) -> str | list[str]:
        """Token ids to text: [p] or a list of integers to one text, [b, p] to a list of them."""
        rows, alone = encoding.rows_of(ids, self.catalog.sizes.get("V", 1 << 31))
        texts: list[str] = self._ask_tokenizer(ask.Decode(rows))
        return texts[0] if alone else texts

    def token_strings(self, tokens: Any, alone: bool = False) -> list[list[str]]:
        """The text of each single token: b lists of p strings. Joined, those of a row are its text.

        Args:
            alone: the rows are no texts but tokens of any kind, each as it is in the midst of a text.
        """
        read = self._tokens(tokens)
        if read.strings and not alone:
            return read.strings
        mask = read.mask.tolist() if read.padded else None
        strings: list[list[str]] = self._ask_tokenizer(ask.Strings(read.tolist(), mask, alone))
        return strings

    def _ask_tokenizer(self, question: Any) -> Any:
        content, buffers = transport.pack(question)
        reply = self._channel.ask(protocol.TOKENIZE, content, buffers)
        return transport.unpack(reply, reply["buffers"])

    def _tokens(self, tokens: Any) -> Tokens:
        if isinstance(tokens, str) or (
            isinstance(tokens, (list, tuple)) and tokens and isinstance(tokens[0], str)
        ):
            return self.encode(tokens)
        return as_tokens(tokens)
