"""Massive activations: tokens whose vector is many times as long as that of the median token (Sun et al. 2024).

A few tokens, mostly the first of a text, can hold nearly all variance of a residual stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import decoder

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

MASSIVE = 5.0
"""A token is massive whose norm is more than so many times the median norm."""

Treatment = Literal["exclude", "include"]

MOST_NAMED = 100
"""Massive tokens that are named one by one, the longest vectors first."""


def border(norms: Tensor) -> float:
    """The norm above which a token is massive: 5 times the median (the lower of the two in the middle)."""
    return MASSIVE * float(norms.median())


def named(
    rmodel: Client, norms: Tensor, documents: Tensor, offsets: Tensor, tokens: Tensor
) -> dict[str, Any]:
    """What is told of massive tokens.

    Args:
        norms: [n] of all tokens; so too documents, offsets and token ids.

    Returns:
        ``massive``, a list of text, position, token, norm; ``massive tokens``, how many; ``median norm``.
    """
    massive = (norms > border(norms)).nonzero().flatten()
    order = massive[norms[massive].argsort(descending=True, stable=True)][:MOST_NAMED]
    words = decoder(rmodel, tokens[order].tolist())
    told = [
        {
            "text": int(documents[at]),
            "position": int(offsets[at]),
            "token": words[int(tokens[at])],
            "norm": float(norms[at]),
        }
        for at in order.tolist()
    ]
    return {
        "massive": told,
        "massive tokens": len(massive),
        "median norm": float(norms.median()),
        "tokens": len(norms),
    }


def check_treatment(massive: str) -> None:
    """Refuse another word than those that there are.

    Raises:
        BadRequest: names them.
    """
    if massive not in get_args(Treatment):
        raise BadRequest(
            f"massive={massive!r} is no way.",
            f"Give {' or '.join(map(repr, get_args(Treatment)))}.",
        )
