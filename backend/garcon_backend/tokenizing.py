"""Text to tokens and back, by the model's own tokenizer, on rank 0.

Runs on the control thread: encoding a prompt never waits for somebody's long request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from garcon_jupyter.errors import BadRequest, BadTokens
from garcon_jupyter.wire.questions import Decode, Encode, Encoded, Strings


@dataclass
class Tokenizing:
    """Answers questions about tokens.

    Attributes:
        tokenizer: a transformers tokenizer; None where the model came without one.
    """

    tokenizer: Any | None

    def answer(self, question: Any) -> Any:
        """The answer to a question of :mod:`garcon_jupyter.wire.questions`."""
        if self.tokenizer is None:
            raise BadRequest("This model has no tokenizer.", "Give token ids, a list of integers.")
        if isinstance(question, Encode):
            return self._encode(question)
        if isinstance(question, Decode):
            return [self._decode(row) for row in question.rows]
        if isinstance(question, Strings):
            return [[self._decode([token]) for token in row] for row in question.rows]
        raise BadRequest(f"{type(question).__name__} is no question about tokens.")

    def _decode(self, row: list[int]) -> str:
        assert self.tokenizer is not None
        try:
            return self.tokenizer.decode(row)
        except OverflowError as error:
            raise BadTokens(f"A token of {row!r:.100} is no token: {error}.", "") from error

    def _encode(self, question: Encode) -> Encoded:
        texts = [self._chat(m) for m in question.chats] if question.chats else question.texts
        # A chat template writes the special tokens itself.
        special = not question.chats if question.special is None else question.special
        tokenizer: Any = self.tokenizer
        rows = [tokenizer(text, add_special_tokens=special)["input_ids"] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if not row:
                raise BadTokens(f"{text!r} has no tokens.", "Give at least one character.")
        if not rows:
            raise BadTokens("There is no text to encode.", "Give at least one.")
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._padding(), dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.bool)
        for number, row in enumerate(rows):
            place = slice(width - len(row), width) if question.left else slice(0, len(row))
            ids[number, place] = torch.tensor(row)
            mask[number, place] = True
        return Encoded(ids, mask, self.answer(Strings(ids.tolist())))

    def _chat(self, messages: list[dict[str, str]]) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise BadRequest(
                "This model has no chat template.", "Encode a text, without chat=True."
            )
        return self.tokenizer.apply_chat_template(  # type: ignore[union-attr]
            messages, tokenize=False, add_generation_prompt=True
        )

    def _padding(self) -> int:
        tokenizer = self.tokenizer
        assert tokenizer is not None
        for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            if isinstance(token, int):
                return token
        return 0
