"""Documents to batches of tokens: packed into rows of one length, or one document a row.

The order is that of the data, and what is in a row does not depend on the size of batches. Where the batches are can
be told (:class:`Position`) and gone back to, so that a run that was cut short goes on with the very same rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from garcon_backend.runs.sources import Document, DocumentSource
from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.wire.requests import Batch
from garcon_jupyter.wire.runs import Plan

AT_ONCE = 64
"""Documents tokenized at a time."""

LONG = 200_000
"""Characters (or tokens) of documents after which no more are taken at a time: a turn is not to be spent on reading."""

PACKED_LENGTH = 256


@dataclass(frozen=True)
class Piece:
    """Tokens that follow one another in a document.

    Attributes:
        first: offset of the first of them.
        span: the fractions of the data that are before it and up to its end; a part of a document is so much of the
            document's.
    """

    ids: np.ndarray
    document: int
    first: int = 0
    span: tuple[float, float] = (0.0, 0.0)

    def cut(self, at: int) -> tuple[Piece, Piece]:
        """What is before, and what is after."""
        begin, end = self.span
        middle = begin + (end - begin) * min(1.0, at / max(1, len(self.ids)))
        return (
            replace(self, ids=self.ids[:at], span=(begin, middle)),
            Piece(self.ids[at:], self.document, self.first + at, (middle, end)),
        )


@dataclass(frozen=True)
class Position:
    """Between two batches: the next document to read, and what was read and not yet used.

    Attributes:
        read: the fraction of the data that was read, which is ahead of what is in batches.
        fraction: of the data that is in batches.
    """

    document: int = 0
    waiting: tuple[Piece | BadData, ...] = ()
    read: float = 0.0
    fraction: float = 0.0
    tokens: int = 0
    skipped: int = 0
    batches: int = 0


class Batches:
    """The batches of a run.

    Args:
        tokenizer: of the model; None where the model has none and the data is tokens.
        sizes: of the model: V tokens in the vocabulary, P positions.
        position: where to begin.

    Raises:
        BadRequest: the plan makes no sense for this model or data.
    """

    def __init__(
        self,
        source: DocumentSource,
        plan: Plan,
        tokenizer: Any,
        sizes: dict[str, int],
        position: Position = Position(),
    ) -> None:
        self._source, self._tokenizer = source, tokenizer
        self._vocabulary = sizes.get("V", 1 << 62)
        self.packed = (source.texts or source.stream) if plan.packed is None else plan.packed
        longest = sizes.get("P", 1 << 62)
        usual = min(PACKED_LENGTH, longest, max(1, plan.batch_tokens))
        self.length = plan.length or (usual if self.packed else longest)
        self._plan = plan
        self._check(longest)
        self._between = self._token_between()
        self._go_to(position)

    def _check(self, longest: int) -> None:
        plan = self._plan
        if plan.batch_tokens < 1 or self.length < 1:
            raise BadRequest(
                f"batch_tokens={plan.batch_tokens}, length={plan.length} hold nothing.",
                "Give at least 1.",
            )
        if self.length > longest:
            raise BadRequest(
                f"Rows of {self.length} tokens are too long: the model reads at most {longest}.",
                f"Give length={longest} or less.",
            )
        if not 0 <= plan.first_document < 1 << 31:
            raise BadRequest(
                f"first_document={plan.first_document} is no number of a document.",
                f"Give one from 0 to {(1 << 31) - 1:,}.",
            )
        if plan.long not in ("refuse", "cut", "split"):
            raise BadRequest(f"long={plan.long!r} is no way.", "Use refuse, cut or split.")

    def _token_between(self) -> int | None:
        if not self.packed or not self._source.texts or self._plan.between == -1:
            return None
        if self._plan.between is not None:
            return self._plan.between
        return getattr(self._tokenizer, "eos_token_id", None)

    # -- where we are ----------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """Where the next batch begins."""
        return replace(self._position, waiting=tuple(self._waiting))

    def _go_to(self, position: Position) -> None:
        self._position = position
        self._waiting: deque[Piece | BadData] = deque(position.waiting)
        self._documents = self._source.read(position.document)

    def back(self, position: Position) -> None:
        """Go back to where a batch began that was not used."""
        self._go_to(position)

    # -- batches ---------------------------------------------------------------------------------

    def next(self) -> tuple[Batch, int] | None:
        """The next batch and the number of its tokens, without padding; None at the end.

        Raises:
            BadData: a document cannot be read, or is too long; names it. Those before it are still there:
                they come first.
        """
        most = self._plan.most_tokens
        left = None if most is None else most - self._position.tokens
        if left is not None and left <= 0:
            return None
        rows = list(self._packed_rows() if self.packed else self._single_rows())
        rows = rows if left is None else _shortened(rows, left)
        if not rows:
            return None
        tokens = sum(len(piece.ids) for row in rows for piece in row)
        step, before = self._position.batches, self._position.tokens
        self._position = replace(
            self._position,
            tokens=self._position.tokens + tokens,
            batches=step + 1,
            fraction=rows[-1][-1].span[1],
        )
        return _batch(rows, step, before), tokens

    def _packed_rows(self) -> Iterator[list[Piece]]:
        for number in range(max(1, self._plan.batch_tokens // self.length)):
            row: list[Piece] = []
            left = self.length
            while left and (piece := self._head(bool(number or row))):
                self._waiting.popleft()
                if len(piece.ids) > left:
                    piece, rest = piece.cut(left)
                    self._waiting.appendleft(rest)
                row.append(piece)
                left -= len(piece.ids)
            if row:
                yield row

    def _single_rows(self) -> Iterator[list[Piece]]:
        rows = widest = 0
        while piece := self._head(bool(rows)):
            widest = max(widest, len(piece.ids))
            if rows and (rows + 1) * widest > self._plan.batch_tokens:
                return
            self._waiting.popleft()
            rows += 1
            yield [piece]

    def _head(self, begun: bool) -> Piece | None:
        """The piece that is next; None at the end of the data.

        Args:
            begun: the batch holds something: an unreadable document then waits for the next one.
        """
        while not self._waiting:
            read = self._read()
            if not read:
                return None
            spans = list(pairwise([self._position.read, *(end for _, end in read)]))
            self._position = replace(
                self._position, document=self._position.document + len(read), read=read[-1][1]
            )
            self._take([document for document, _ in read], spans)
        head = self._waiting[0]
        if isinstance(head, BadData):
            if begun:
                return None
            raise head
        return head

    def _read(self) -> list[tuple[Document, float]]:
        found: list[tuple[Document, float]] = []
        length = 0
        for document, fraction in self._documents:
            found.append((document, fraction))
            length += 0 if isinstance(document, BadData) else len(document)
            if len(found) == AT_ONCE or length >= LONG:
                break
        return found

    def _take(self, documents: list[Document], spans: list[tuple[float, float]]) -> None:
        first = self._position.document - len(documents)
        texts = [document for document in documents if isinstance(document, str)]
        ids = iter(self._tokenized(texts))
        for number, (document, span) in enumerate(zip(documents, spans, strict=True), first):
            row = next(ids) if isinstance(document, str) else document
            row = row if isinstance(row, BadData) else self._problem(row, number) or row
            if isinstance(row, BadData) and self._plan.skip:
                self._position = replace(self._position, skipped=self._position.skipped + 1)
            elif isinstance(row, BadData):
                self._waiting.append(row)
            elif len(row):
                piece = Piece(row, self._plan.first_document + number, span=span)
                self._waiting.extend(self._pieces(piece))

    def _tokenized(self, texts: list[str]) -> Iterator[np.ndarray]:
        if not texts:
            return
        if self._tokenizer is None:
            raise BadRequest("This model has no tokenizer.", "Give token ids instead of texts.")
        special = True if self._plan.special is None else self._plan.special
        found = self._tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
        for row in found:
            if self._between is not None and row:
                row = [*row, self._between]
            yield np.asarray(row, dtype=np.int64)

    def _problem(self, row: Any, number: int) -> BadData | None:
        name = self._source.name
        if len(row) and not 0 <= row.min() <= row.max() < self._vocabulary:
            return BadData(
                f"Document {number} of {name} has tokens from {row.min()} to {row.max()}; the vocabulary has "
                f"{self._vocabulary}.",
                "rmodel.encode(text) makes tokens that fit.",
            )
        if not self.packed and len(row) > self.length and self._plan.long == "refuse":
            return BadData(
                f"Document {number} of {name} has {len(row)} tokens, more than {self.length}.",
                'long="cut" or "split" shortens it, skip=True leaves it out, packed=True packs it.',
            )
        return None

    def _pieces(self, piece: Piece) -> Iterator[Piece]:
        if self.packed or len(piece.ids) <= self.length:
            yield piece
            return
        while len(piece.ids):
            one, piece = piece.cut(self.length)
            yield one
            if self._plan.long == "cut":
                return


def _shortened(rows: list[list[Piece]], left: int) -> list[list[Piece]]:
    """The rows up to so many tokens."""
    kept: list[list[Piece]] = []
    for row in rows:
        short = []
        for piece in row:
            if left > 0:
                short.append(piece.cut(left)[0])
                left -= len(piece.ids)
        if short:
            kept.append(short)
    return kept


def _batch(rows: list[list[Piece]], step: int, before: int) -> Batch:
    width = max(sum(len(piece.ids) for piece in row) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    documents, offsets = torch.full_like(ids, -1), torch.full_like(ids, -1)
    for number, row in enumerate(rows):
        at = 0
        for piece in row:
            span = slice(at, at + len(piece.ids))
            at = span.stop
            ids[number, span] = torch.from_numpy(np.array(piece.ids))
            mask[number, span] = True
            documents[number, span] = piece.document
            offsets[number, span] = torch.arange(piece.first, piece.first + len(piece.ids))
    return Batch(ids, None if bool(mask.all()) else mask, documents, offsets, step, before)
