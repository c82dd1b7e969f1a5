"""Texts to tokens and back."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from garcon_jupyter.errors import BadRequest, BadTokens
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.plain_data import Plain, PlainAnswer, TextTokens
from garcon_jupyter.operations.prompts import Ids, told


class TokenizeRequest(Plain):
    """Texts to be cut into tokens."""

    texts: list[str] = Field(min_length=1)
    special: bool = Field(
        default=True,
        description="with the tokens that the model's tokenizer adds, such as a beginning",
    )


class TokenizeAnswer(PlainAnswer):
    """The tokens of each text."""

    tokens: list[TextTokens]


@operation("nothing", (BadTokens,), quick=True)
def tokenize(at: Door, asked: TokenizeRequest) -> TokenizeAnswer:
    """Cut texts into tokens, as the model reads them. Answered while the model is busy."""
    at.limits.check("prompts", len(asked.texts), f"There are {len(asked.texts):,} texts")
    return TokenizeAnswer(tokens=told(at, at.model.encode(asked.texts, special=asked.special)))


class DetokenizeRequest(Plain):
    """Ids of tokens."""

    ids: list[Ids] = Field(min_length=1)


class DetokenizeAnswer(PlainAnswer):
    """The text of each list of ids, and of each of its tokens."""

    texts: list[str]
    strings: list[list[str]]


@operation("nothing", (BadTokens,), quick=True)
def detokenize(at: Door, asked: DetokenizeRequest) -> DetokenizeAnswer:
    """Make texts of the ids of tokens. Answered while the model is busy."""
    at.limits.check("prompts", len(asked.ids), f"There are {len(asked.ids):,} texts")
    strings = [at.model.token_strings([row])[0] for row in asked.ids]
    texts = [at.model.decode(row) for row in asked.ids]
    return DetokenizeAnswer(texts=[str(text) for text in texts], strings=strings)


class ChatMessage(Plain):
    """A message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(Plain):
    """A chat, to be laid out as the model was trained to read it."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    answer: bool = Field(default=True, description="end with what begins the model's answer")


class ChatAnswer(PlainAnswer):
    """The chat as tokens; its ids are a prompt for other operations."""

    tokens: TextTokens


@operation("nothing", (BadRequest,), quick=True)
def chat(at: Door, asked: ChatRequest) -> ChatAnswer:
    """Lay a chat out by the model's own template. Answered while the model is busy."""
    messages = [message.model_dump() for message in asked.messages]
    tokens = at.model.encode(messages, chat=True, header=asked.answer)
    return ChatAnswer(tokens=told(at, tokens)[0])
