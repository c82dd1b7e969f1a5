"""Text to tokens and back, by the model's own tokenizer, on rank 0.

Runs on the control thread: encoding a prompt never waits for somebody's long request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from garcon_backend.tokenization.token_strings import TokenStrings
from garcon_jupyter.errors import BadRequest, BadTokens
from garcon_jupyter.wire.tokenizer_messages import Decode, Encode, Encoded, Strings


def beyond_the_model(tokenizer: Any | None, vocabulary: int) -> list[str]:
    """What to tell of a tokenizer that has tokens which its model cannot read; nothing where it has none.

    Tokens that only the model has are nothing to tell of: embeddings are often filled up to a round number.

    Args:
        vocabulary: tokens of the model; 0 where that is not known.
    """
    if tokenizer is None or not vocabulary:
        return []
    try:
        numbers = tokenizer.get_vocab()
    except NotImplementedError:
        return []
    beyond = [token for token, number in numbers.items() if number >= vocabulary]
    if not beyond:
        return []
    beyond.sort(key=numbers.__getitem__)
    named = ", ".join(map(repr, beyond[:3])) + (", …" if len(beyond) > 3 else "")
    return [
        f"the tokenizer has {len(beyond)} tokens that the model, with {vocabulary:,}, cannot read: {named}"
    ]


@dataclass
class Tokenizing:
    """Answers questions about tokens.

    Attributes:
        tokenizer: a transformers tokenizer; None where the model came without one.
    """

    tokenizer: Any | None
    _strings: TokenStrings = field(init=False)

    def __post_init__(self) -> None:
        self._strings = TokenStrings(self.tokenizer)

    def answer(self, question: Any) -> Any:
        """The answer to a question of :mod:`garcon_jupyter.wire.tokenizer_messages`."""
        if self.tokenizer is None:
            raise BadRequest("This model has no tokenizer.", "Give token ids, a list of integers.")
        if isinstance(question, Encode):
            return self._encode(question)
        if isinstance(question, Decode):
            return [self._checked(self._decoded, row) for row in question.rows]
        if isinstance(question, Strings):
            if question.halves:
                return [self._checked(self._strings.with_halves, row) for row in question.rows]
            if question.alone:
                return [self._checked(self._strings.alone, row) for row in question.rows]
            masks = question.mask or [[True] * len(row) for row in question.rows]
            return [
                self._checked(self._strings.in_text, row, mask)
                for row, mask in zip(question.rows, masks, strict=True)
            ]
        raise BadRequest(f"{type(question).__name__} is no question about tokens.")

    def _decoded(self, row: list[int]) -> str:
        tokenizer: Any = self.tokenizer
        text: str = tokenizer.decode(row)
        return text

    def _checked(self, function: Any, row: list[int], *more: Any) -> Any:
        try:
            return function(row, *more)
        except OverflowError as error:
            raise BadTokens(f"A token of {row!r:.100} is no token: {error}.", "") from error

    def _encode(self, question: Encode) -> Encoded:
        texts = [self._chat(m, question) for m in question.chats] or question.texts
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
        return Encoded(ids, mask, self.answer(Strings(ids.tolist(), mask.tolist())))

    def _chat(self, messages: list[dict[str, Any]], question: Encode) -> str:
        """A conversation as the chat template writes it.

        Raises:
            BadRequest: the model has no template, or the template refuses these messages.
        """
        tokenizer: Any = self.tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise BadRequest(
                "This model has no chat template.", "Encode a text, without chat=True."
            )
        header = question.header
        if header is None:
            header = not question.continued and messages[-1].get("role") != "assistant"
        try:
            text: str = tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=header,
                continue_final_message=question.continued,
            )
            return text
        except Exception as error:  # a template is a program of the model's, and may raise anything
            raise BadRequest(
                f"The model's chat template does not take these messages: {error}.",
                "Its roles, their order and their contents are the model's own.",
            ) from error

    def _padding(self) -> int:
        tokenizer = self.tokenizer
        assert tokenizer is not None
        for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
            if isinstance(token, int):
                return token
        return 0
