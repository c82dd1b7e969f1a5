"""Row chunks: a forward over more rows than fit at once, in pieces.

What a model computes of a row depends on no other row. So a batch can be read in pieces, and the logits put together:
they are those of the whole, up to rounding. Rows of about one length share a piece, which is as wide as its own rows
and not as the longest of all, so that little of what is computed is padding. A probe sees one piece after the other;
``here.document`` and ``here.offset`` say where in the batch it is, as in a run over data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from garcon_jupyter.wire import requests as wire


@dataclass(frozen=True)
class Piece:
    """Some rows of a batch, without the columns that are padding in all of them.

    Attributes:
        batch: what is read at once, [n, width].
        rows: which rows of the whole these are, [n].
        columns: and which of its columns.
    """

    batch: wire.Batch
    rows: Tensor
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        rows, width = self.batch.ids.shape
        return int(rows), int(width)


def cut(batch: wire.Batch, most: int) -> list[Piece]:
    """A batch in pieces of at most `most` tokens with their padding, but of a row at least."""
    ids = torch.as_tensor(batch.ids)
    mask = torch.ones_like(ids) if batch.mask is None else torch.as_tensor(batch.mask)
    mask = torch.ones_like(ids).bool() if bool(mask.all()) else mask.bool()
    starts = mask.int().argmax(1).tolist()
    stops = (mask.shape[1] - mask.flip(1).int().argmax(1)).tolist()
    pieces: list[Piece] = []
    for rows in _grouped(starts, stops, most):
        columns = slice(min(starts[row] for row in rows), max(stops[row] for row in rows))
        pieces.append(_piece(ids, mask, torch.tensor(rows), columns, len(pieces)))
    return pieces


def _grouped(starts: Sequence[int], stops: Sequence[int], most: int) -> list[list[int]]:
    """Rows that are read together, the short ones first."""
    groups: list[list[int]] = []
    first = last = 0
    for row in sorted(range(len(starts)), key=lambda row: stops[row] - starts[row]):
        wider = min(first, starts[row]), max(last, stops[row])
        if groups and (len(groups[-1]) + 1) * (wider[1] - wider[0]) <= most:
            groups[-1].append(row)
            first, last = wider
        else:
            groups.append([row])
            first, last = starts[row], stops[row]
    return groups


def _piece(ids: Tensor, mask: Tensor, rows: Tensor, columns: slice, number: int) -> Piece:
    width = columns.stop - columns.start
    places = torch.arange(columns.start, columns.stop).expand(len(rows), width)
    batch = wire.Batch(
        ids[rows, columns], mask[rows, columns], rows[:, None].expand(-1, width), places, number
    )
    return Piece(batch, rows, columns)


class Whole:
    """Logits of a batch of this shape, put together from those of its pieces.

    Where a row is padded they are zeros: nothing is computed there.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._shape = shape
        self.logits: Tensor | None = None

    def put(self, piece: Piece, logits: Tensor | None) -> None:
        """The logits of a piece, [n, width, V] or, of the last tokens, [n, V]; None on a rank that has none."""
        if logits is None:
            return
        if self.logits is None:
            sizes = self._shape if logits.dim() == 3 else self._shape[:1]
            self.logits = logits.new_zeros(*sizes, logits.shape[-1])
        if logits.dim() == 3:
            padding = ~torch.as_tensor(piece.batch.mask).to(logits.device)
            self.logits[piece.rows, piece.columns] = logits.masked_fill(padding[..., None], 0)
        else:
            self.logits[piece.rows] = logits
