"""Clean passes whose recordings are nobody else's business.

Functions that are sent by name stand here and not beside the pictures, so that a server need not import
what draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadRequest, PointUnavailable

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.probes import Probe

_NUMBERS = itertools.count()


@contextmanager
def contexts(rmodel: Client, what: str) -> Iterator[str]:
    """A name for probes, whose recordings are cleared afterwards.

    A snapshot that was taken inside keeps what it has.
    """
    name = f"{what} {next(_NUMBERS)}"
    try:
        yield name
    finally:
        rmodel.clear_recordings(name=name)


def stream(rmodel: Client, data: Any, probes: list[Probe], **plan: Any) -> None:
    """Stream data past probes, as :meth:`garcon_jupyter.RemoteModel.run` does, which stands above this room.

    Raises:
        BadRequest: this client has no runs.
    """
    run = getattr(rmodel, "run", None)
    if run is None:
        raise BadRequest(
            f"A {type(rmodel).__name__} cannot stream data.", "Use garcon.connect(name)."
        )
    run(data, probes, **plan)


def keep(save_ctx: Any, tensor: Any) -> None:
    """A probe that saves what it sees."""
    save_ctx.tensor = tensor


def keep_flat(save_ctx: Any, tensor: Any) -> None:
    """A probe that saves the first text as [token, unit], heads side by side."""
    save_ctx.values = tensor[0].float().flatten(1).cpu()


def keep_stream(save_ctx: Any, tensor: Any) -> None:
    """A probe that keeps the first text's residual stream, [p, D], for a later probe at its point."""
    save_ctx.stream = tensor[0]


def keep_prediction(save_ctx: Any, tensor: Any) -> None:
    """A probe for the logits that keeps the first text's log-probabilities, and the likeliest tokens."""
    save_ctx.logs = tensor[0].float().log_softmax(-1)
    save_ctx.best = save_ctx.logs.argmax(-1)


def need(rmodel: Client, picture: str, *templates: str) -> None:
    """Say so where a model lacks points that a picture is made of.

    Args:
        picture: what it is called, at the beginning of a sentence.

    Raises:
        PointUnavailable: names the first point that is missing, and what the model has instead.
    """
    for template in templates:
        if (why := rmodel.catalog.refused.get(template)) is not None:
            example = "" if rmodel.catalog.mapped else f", such as {rmodel.catalog.a_module()}"
            raise PointUnavailable(
                f"{picture} is made of {template}, which this model has not: {why}.",
                f"rmodel.show(point, text) draws any point that the model has{example}.",
            )


def one_text(rmodel: Client, text: Any, least: int = 1) -> Tokens:
    """The tokens of a single text, without padding.

    Raises:
        BadRequest: there are several texts, or fewer than `least` tokens.
    """
    tokens = rmodel._tokens(text)
    if tokens.shape[0] != 1:
        raise BadRequest(
            f"This picture is of one text, and there are {tokens.shape[0]}.", "Give one of them."
        )
    if tokens.shape[1] < least:
        raise BadRequest(f"The text has {tokens.shape[1]} tokens.", f"Give at least {least}.")
    return tokens


def decoder(rmodel: Client, ids: Any) -> dict[int, str]:
    """The text of each id that occurs, asked for at once."""
    distinct = sorted({int(number) for number in ids})
    strings = rmodel.token_strings([distinct], alone=True)[0] if distinct else []
    return dict(zip(distinct, strings, strict=True))


def whole_pieces(rmodel: Client, tokens: Tokens) -> list[str]:
    """The tokens' strings, with characters that are cut over several tokens made whole.

    A byte-level tokenizer may cut an emoji into tokens of which none is a character. The first of them is
    given the character and the others a sign that it goes on.
    """
    return [string or "·" for string in rmodel.token_strings(tokens)[0]]
