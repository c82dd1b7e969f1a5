"""QK and OV of one head: what it looks for, and what it makes of what it finds.

head = head_circuits(rmodel, 18, 6)
head.ov.singular_values()
head.copying()                   # 1: it raises what it reads; −1: it lowers it
head.written(" Mary")            # the tokens whose logits it raises when it looks at this one
head.looked_for(" Mary")         # the tokens that this one looks for

By Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import decoder
from garcon_jupyter.experiments.connectivity.ends import token_directions, unembedding
from garcon_jupyter.experiments.connectivity.factored_matrix import FactoredMatrix
from garcon_jupyter.experiments.connectivity.heads import heads_of, layers_of_heads, limits

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

_AT_ONCE = 8192
"""Tokens at a time."""


@dataclass(frozen=True, eq=False)
class HeadCircuits:
    """The two circuits of a head, its norm folded in.

    A token stands here for a stream that holds its embedding and nothing else, at length √D, as the norm before the head would
    leave it. Deeper in the model streams hold more, and this is the part that their tokens would play.

    Attributes:
        layer, head: which it is.
        key_value_head: whose keys and values it reads; with others, where heads share them.
        qk: ``W_Qᵀ·W_K`` [D, D]: ``x_q · qk · x_k`` is the score of a query at a key, before it is divided by √d.
        ov: ``W_O·W_V`` [D, D]: what is added to the stream for each unit of attention to a stream x is ``ov @ x``.
        limits: what weights do not say of it.
    """

    layer: int
    head: int
    key_value_head: int
    qk: FactoredMatrix
    ov: FactoredMatrix
    limits: tuple[str, ...]
    _rmodel: Client = field(repr=False)

    def written(self, token: str | int, k: int = 10) -> list[tuple[str, float]]:
        """The k tokens whose logits the head raises most when it looks at a token, each with by how much.

        It is the head's direct way: OV, the final norm's gain, the unembedding, up to what the final norm divides by. The mean over all
        tokens is taken away, which softmax does not see.

        Raises:
            BadRequest: the text is several tokens.
        """
        written = self.ov @ self._one(token)
        return self._strongest(_rows(unembedding(self._rmodel)), written, k)

    def looked_for(self, token: str | int, k: int = 10) -> list[tuple[str, float]]:
        """The k tokens at which the score of a token's query is highest, each with the score (before it is divided by √d).

        Raises:
            BadRequest: the text is several tokens.
        """
        wanted = self.qk.T @ self._one(token)
        return self._strongest(_rows(token_directions(self._rmodel)), wanted, k)

    def copying(self) -> float:
        """How far the head raises the very tokens that it reads: Σλ / Σ|λ| over the eigenvalues of ``W_U·OV·W_E`` [V, V].

        1 where each is positive, as of a head that copies, −1 where each is negative; near 0 for a head that does neither. The
        eigenvalues are those of the d × d product in another order, so that no V × V matrix is made.
        """
        import torch

        middle = torch.zeros(self.ov.rank, self.ov.rank)
        unembed, tokens = unembedding(self._rmodel), token_directions(self._rmodel)
        for out, into in zip(_rows(unembed), _rows(tokens), strict=True):
            middle += (self.ov.right @ into.T) @ (out @ self.ov.left)
        found = torch.linalg.eigvals(middle)
        return float(found.real.sum() / found.abs().sum())

    def _one(self, token: str | int) -> Tensor:
        """The direction [D] of one token."""
        return token_directions(self._rmodel, [_number(self._rmodel, token)])[0]

    def _strongest(
        self, rows: Iterator[Tensor], direction: Tensor, k: int
    ) -> list[tuple[str, float]]:
        import torch

        scores = torch.cat([part @ direction for part in rows])
        best = scores.topk(min(k, len(scores)))
        words = decoder(self._rmodel, best.indices.tolist())
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(words[number], value) for number, value in pairs]


def head_circuits(rmodel: Client, layer: int, head: int) -> HeadCircuits:
    """QK and OV of a head, from its weights, as factors of rank d (Elhage et al. 2021).

    Raises:
        BadRequest: there is no such layer or head.
        PointUnavailable: the heads of this layer cannot be read from weights; says why.

    Examples:
        >>> circuits = experiments.head_circuits(rmodel, 16, 0)
        >>> circuits.ov
        <576 × 576 of rank 64>
        >>> circuits.limits
        ('rotary positions are left out: queries and keys are those of equal positions',)
    """
    heads = rmodel.catalog.sizes.get("H", 0)
    layers, left_out = layers_of_heads(rmodel)
    if layer not in layers:
        raise BadRequest(
            f"Layer {layer} has no heads that can be read from weights{_reasons(left_out)}.",
            f"Those that have: {', '.join(map(str, layers))}.",
        )
    if not 0 <= head < heads:
        raise BadRequest(f"Layer {layer} has no head {head}.", f"It has heads 0 to {heads - 1}.")
    found = heads_of(rmodel, layer)
    shared = head // found.group
    return HeadCircuits(
        layer,
        head,
        shared,
        FactoredMatrix(found.queries[head].T, found.keys[shared]),
        FactoredMatrix(found.outputs[head], found.values[shared]),
        tuple(limits(rmodel.catalog, [layer])),
        rmodel,
    )


def _number(rmodel: Client, token: str | int) -> int:
    """The id of a token, given as such or as its text."""
    if not isinstance(token, str):
        size = rmodel.catalog.sizes["V"]
        if not 0 <= token < size:
            raise BadRequest(f"There is no token {token}.", f"There are 0 to {size - 1}.")
        return token
    pieces = rmodel.encode(token, special=False).tolist()[0] if token else []
    if len(pieces) != 1:
        words = ", ".join(map(repr, rmodel.token_strings([pieces])[0])) if pieces else "none"
        raise BadRequest(f"{token!r} is {len(pieces)} tokens: {words}.", "Give one of them.")
    return pieces[0]


def _reasons(left_out: list[str]) -> str:
    return f" ({'; '.join(left_out)})" if left_out else ""


def _rows(matrix: Tensor) -> Iterator[Tensor]:
    yield from matrix.split(_AT_ONCE)
