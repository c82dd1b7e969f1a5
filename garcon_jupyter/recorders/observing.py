"""What recorders are shown: the values of a point as observations of its units, each with its place in the data.

A *unit* is one of the dimensions after batch and position, laid flat. A *place* is a document and an offset in it, as
one integer. Padding is not observed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.sparse_values import SparseValues

_CACHED = 128
"""Tokens of all units of a layer that a processor's cache holds, with what is computed of them."""

OFFSET_BITS = 32
"""A *place* is one integer: ``document << 32 | offset of the token in its document``."""


@dataclass(frozen=True)
class Seen:
    """What a recorder is shown of one batch, without its padding.

    Attributes:
        values: [n, units], off the graph; memory of the model, to be left as it is. A sparse tensor where `sparse` is there.
        places: int64 [n], document and offset of each token as one integer.
        tokens: int64 [n], the token ids.
        rows: int64 [n], the row of the batch that each token stands in; windows do not cross rows.
        start: number of the first unit, where this is one shard of the point's units.
        firsts: bool [n], whether a token is the first that the model reads in its row; None where nobody said.
        special: the ids of the model's special tokens; None where nobody said.
        context: all tokens and values, where some were left out; they stand in the windows of others.
        index: and where in it each of these is, int64 [n].
        sparse: the values that are not 0, where few of them are; recorders that do not say ``SPARSE`` never see it.
    """

    values: Tensor
    places: Tensor
    tokens: Tensor
    rows: Tensor
    start: int = 0
    firsts: Tensor | None = None
    special: Tensor | None = None
    context: Seen | None = None
    index: Tensor | None = None
    sparse: SparseValues | None = None

    @property
    def documents(self) -> Tensor:
        """Number of each token's document, int64 [n]."""
        return self.places >> OFFSET_BITS

    @property
    def offsets(self) -> Tensor:
        """Place of each token in its document, int64 [n]."""
        return offsets_of(self.places)

    def without(self, *which: str | int) -> Seen:
        """These observations but for some tokens: "first" of each row, "special" ones, or those of some ids.

        Raises:
            BadProbe: it was not said which these are.
        """
        left = torch.ones_like(self.tokens, dtype=torch.bool)
        for word in which:
            left &= ~self._are(word)
        if bool(left.all()):
            return self
        index = left.nonzero().flatten()
        whole = self.context or self
        few = None if self.sparse is None else self.sparse.of_tokens(index)
        return Seen(
            self.values[index] if few is None else few.tensor,
            self.places[index],
            self.tokens[index],
            self.rows[index],
            self.start,
            None if self.firsts is None else self.firsts[index],
            self.special,
            whole,
            index if self.index is None else self.index[index],
            few,
        )

    def at(self, token: Tensor, unit: Tensor) -> Tensor:
        """The values of tokens and units beside each other, of the shape that both make together."""
        if self.sparse is not None:
            return self.sparse.at(token, unit)
        return self.values[token, unit]

    @cached_property
    def _windows(self) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
        return {}

    def windows(self, before: int, width: int) -> tuple[Tensor, Tensor]:
        """Of each token, [n, width]: which of those around it are of its row and document, bool; and the tokens there, int32, −1 for others.

        Args:
            before: how many of the window stand before it.
            width: of the window.
        """
        if (before, width) not in self._windows:
            near = self._near(
                torch.arange(len(self.tokens), device=self.tokens.device), before, width
            )
            inside = (near >= 0) & (near < len(self.tokens))
            near = near.clamp(0, len(self.tokens) - 1)
            inside &= self.rows[near] == self.rows[:, None]
            inside &= self.documents[near] == self.documents[:, None]
            self._windows[before, width] = inside, torch.where(inside, self.tokens[near], -1).int()
        return self._windows[before, width]

    def around(self, token: Tensor, unit: Tensor, before: int, width: int) -> Tensor:
        """The values of units at the tokens around others, [c, width]; what stands beyond the ends is any number."""
        if self.sparse is not None:
            return self.sparse.around(token, unit, before, width)
        near = self._near(token, before, width).clamp(0, len(self.tokens) - 1)
        return self.values[near, unit[:, None]]

    @staticmethod
    def _near(token: Tensor, before: int, width: int) -> Tensor:
        return token[:, None] + torch.arange(width, device=token.device) - before

    def _are(self, word: str | int) -> Tensor:
        """Which tokens a word means, bool [n]."""
        if isinstance(word, int):
            return self.tokens == word
        found = self.firsts if word == "first" else self.special
        if found is None:
            raise BadProbe(
                f"Nobody said which tokens are {word}.",
                "Without a server, give alone(tokens, mask, special=[…]).",
            )
        return found if word == "first" else torch.isin(self.tokens, found.to(self.tokens.device))

    def pieces(self) -> Iterable[Tensor]:
        """The values of so many tokens at a time that a processor computes in its cache, which is several times
        as fast as over all of them. An accelerator has them all at once, but for those of which few are not 0."""
        return pieces(self.values) if self.sparse is None else self.sparse.pieces(_CACHED)


def pieces(values: Tensor) -> tuple[Tensor, ...]:
    """Values [n, units] as :meth:`Seen.pieces` cuts them."""
    size = _CACHED if values.device.type == "cpu" else max(1, len(values))
    pieces: tuple[Tensor, ...] = values.split(size)
    return pieces


def places_of(documents: Tensor, offsets: Tensor) -> Tensor:
    """Documents and offsets as one integer each, which sorts by document, then by offset."""
    return (documents.long() << OFFSET_BITS) | offsets.long()


def offsets_of(places: Tensor) -> Tensor:
    """The offsets of places."""
    return places & ((1 << OFFSET_BITS) - 1)


def seen(value: Tensor, here: Any) -> Seen:
    """The values of a point as observations of its units.

    Args:
        value: [b, p, …] or, of an expert, [n, …].
        here: where the probe runs, as in ``save_ctx.here``.

    Raises:
        BadProbe: the point has no value for each token.
    """
    table = _tokens(here)
    if here.token_index is not None:
        index = here.token_index.to(value.device)[: len(value)]
        if table["mask"] is not None:
            real = table["mask"].flatten().to(value.device)[index]
            value, index = value[real], index[real]
        return _chosen(value.flatten(1), table, index, None, _first_unit(value, here, 1))
    b, p = table["tokens"].shape
    if value.dim() < 3 or value.shape[:2] != (b, p):
        raise BadProbe(
            f"{here.point} is {list(value.shape)}, not one value for each token and unit.",
            "Record points of shape [b, p, …]; a probe of your own can reduce others.",
        )
    mask = table.pop("mask")
    index = None if mask is None else mask.flatten().nonzero().flatten()
    if value.layout is torch.sparse_coo:
        few = SparseValues.of(value)
        few = few if index is None else few.of_tokens(index)
        start = _first_unit(value, here, 2)
        return replace(_chosen(few.tensor, table, index, (b, p), start), sparse=few)
    flat = value.detach().flatten(2).flatten(0, 1)
    return _chosen(
        flat if index is None else flat[index], table, index, (b, p), _first_unit(value, here, 2)
    )


def _tokens(here: Any) -> dict[str, Any]:
    """Of each token of the rows that this rank sees: id, mask, document and offset, [b, p]."""
    rows = getattr(here, "rows", None) or slice(None)
    tokens = here.tokens[rows]
    width = tokens.shape[1]

    def mine(table: Tensor | None) -> Tensor | None:
        return None if table is None else torch.as_tensor(table)[rows][:, -width:].to(tokens.device)

    documents, offsets = mine(here.document), mine(getattr(here, "offset", None))
    if documents is None:  # outside of a run: a row is a document
        first = rows.start or 0
        documents = torch.arange(first, first + len(tokens), device=tokens.device)
        documents = documents[:, None].expand(tokens.shape)
    if offsets is None:
        offsets = mine(here.positions)
        assert offsets is not None
        offsets = offsets.expand(tokens.shape)
    positions = mine(here.positions)
    return {
        "tokens": tokens,
        "mask": mine(here.mask),
        "documents": documents,
        "offsets": offsets,
        "firsts": None if positions is None else (positions == 0).expand(tokens.shape),
        "special": getattr(here, "special", None),
    }


def _chosen(
    values: Tensor, table: dict[str, Any], index: Tensor | None, shape: Any, start: int
) -> Seen:
    tokens = table["tokens"]
    b, p = tokens.shape
    rows = torch.arange(b, device=tokens.device)[:, None].expand(b, p)
    places = places_of(table["documents"], table["offsets"])

    def of_tokens(column: Tensor) -> Tensor:
        column = column.reshape(-1).to(values.device)
        return column if index is None else column[index]

    firsts = table["firsts"]
    return Seen(
        values,
        of_tokens(places),
        of_tokens(tokens),
        of_tokens(rows),
        start,
        None if firsts is None else of_tokens(firsts),
        table["special"],
    )


def _first_unit(value: Tensor, here: Any, leading: int) -> int:
    """Number of the first unit of this shard: shards are cut along the first dimension of the units."""
    shard = getattr(here, "shard", None)
    if shard is None or shard.dim is None:
        return 0
    behind = value.shape[shard.dim :][1:]
    size = 1
    for length in behind:
        size *= length
    return int(shard.start) * size


def alone(
    tokens: Any, mask: Any = None, point: str = "values", special: Any = None
) -> SimpleNamespace:
    """A ``here`` for recorders that are used without a server: each row is a document.

    Args:
        special: ids of special tokens, for recorders that leave them out.
    """
    ids = torch.as_tensor(tokens)
    positions = (torch.ones_like(ids) if mask is None else mask.long()).cumsum(1) - 1
    return SimpleNamespace(
        point=point,
        tokens=ids,
        mask=mask,
        positions=positions.clamp(min=0),
        special=None if special is None else torch.as_tensor(special),
        document=None,
        offset=None,
        token_index=None,
        rows=slice(None),
        shard=None,
    )
