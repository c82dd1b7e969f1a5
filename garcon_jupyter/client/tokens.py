"""Tokens: what ``encode`` gives and the model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadTokens

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.wire import requests as wire


@dataclass(frozen=True, eq=False)
class Tokens:
    """A batch of texts as token ids.

    Attributes:
        ids: int64 [b, p].
        mask: bool [b, p], False at padding.
        strings: the text of each token, b lists of p strings; empty where it is not known.
    """

    ids: Tensor
    mask: Tensor
    strings: list[list[str]] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, ...]:
        """[b, p]."""
        return tuple(self.ids.shape)

    @property
    def padded(self) -> bool:
        """Whether some place is padding.

        This, and the masks below, are numpy's work: torch would wake its threads, which on cores that slept
        takes longer than to read a million of such small values.
        """
        return not self.mask.numpy(force=True).all()

    @property
    def lengths(self) -> list[int]:
        """Number of real tokens of each row."""
        return self.mask.sum(1).tolist()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Any) -> Any:
        """Index the ids."""
        return self.ids[index]

    def __dlpack__(self, **options: Any) -> Any:
        """The ids, where torch or numpy are asked to make an array of the tokens: ``torch.tensor(tokens)``."""
        return self.ids.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.ids.__dlpack_device__()

    def tolist(self) -> list[list[int]]:
        """The ids as lists, padding included."""
        return self.ids.tolist()

    def __repr__(self) -> str:
        rows = [
            " ".join(f"{text!r}" for text, real in zip(row, mask, strict=True) if real)
            for row, mask in zip(self.strings, self.mask.tolist(), strict=False)
        ]
        shown = "; ".join(rows) if rows else str(self.ids.tolist())
        return f"Tokens{list(self.shape)}({shown if len(shown) < 200 else shown[:199] + '…'})"


@dataclass(frozen=True, eq=False)
class Generated(Tokens):
    """Prompts and what a model went on with, r texts: of each prompt one, or several samples side by side.

    The prompt's padding is on the left; where a text ended before the others, the rest of its row is padding.

    Attributes:
        scores: where asked for by ``output_scores=True``: of each step what the next tokens were chosen by,
            [step, rows read, V]. Of beams, all are read.
        logits: by ``output_logits=True``: the model's own logits, before any of it was changed.
        sequences_scores: with the scores of beams, that of each text, [r].
        beam_indices: and of each new token the row of `scores` that it is from, −1 after the end, [r, new].
    """

    scores: Tensor | None = None
    logits: Tensor | None = None
    sequences_scores: Tensor | None = None
    beam_indices: Tensor | None = None

    @property
    def sequences(self) -> Tensor:
        """The ids, by the name that transformers has for them."""
        return self.ids

    __repr__ = Tokens.__repr__


def generated(answer: wire.GeneratedTokens) -> Generated:
    """What a server answers to a generation, as tokens."""
    return Generated(
        answer.ids,
        answer.mask,
        scores=answer.scores,
        logits=answer.logits,
        sequences_scores=answer.sequences_scores,
        beam_indices=answer.beam_indices,
    )


def as_tokens(tokens: Any) -> Tokens:
    """Tokens from what a user may give: Tokens, a tensor or array [b, p] or [p], lists of integers, or what a
    tokenizer of transformers gives.

    Raises:
        BadTokens: empty, ragged, not integers, of another number of dimensions.
    """
    import torch

    if isinstance(tokens, Tokens):
        return _whole(tokens)
    if isinstance(tokens, Mapping) and "input_ids" in tokens:
        found = as_tokens(tokens["input_ids"])
        mask = tokens.get("attention_mask")
        return found if mask is None else _whole(Tokens(found.ids, as_tokens(mask).ids.bool()))
    ids = tokens if isinstance(tokens, torch.Tensor) else _tensor(tokens)
    if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
        raise BadTokens(
            f"Tokens are integers; these are {str(ids.dtype).removeprefix('torch.')}.", _REMEDY
        )
    if ids.dim() == 1:
        ids = ids[None]
    if ids.dim() != 2 or not ids.numel():
        raise BadTokens(
            f"Tokens of shape {list(ids.shape)} are no batch.", "Give at least one token, [b, p]."
        )
    ids = ids.detach().cpu().long()
    return Tokens(ids, torch.from_numpy(np.ones(ids.shape, dtype=bool)))


def _whole(tokens: Tokens) -> Tokens:
    """Tokens that somebody made by hand may not fit together."""
    shapes = [tuple(getattr(part, "shape", ())) for part in (tokens.ids, tokens.mask)]
    if len(shapes[0]) != 2 or shapes[0] != shapes[1]:
        raise BadTokens(
            f"Tokens have ids of shape {list(shapes[0])} and a mask of {list(shapes[1])}.",
            "Both are tensors [b, p].",
        )
    return tokens


_REMEDY = "rmodel.encode(text) makes tokens."


def _tensor(tokens: Any) -> Tensor:
    import torch

    if isinstance(tokens, (str, bytes, bytearray, Mapping)):
        raise _none(tokens, "")
    if isinstance(tokens, Sequence):
        if not tokens:
            raise BadTokens("There are no tokens.", "Give at least one token, [b, p].")
        if isinstance(tokens[0], Mapping):
            raise BadTokens(
                "These are messages, not tokens.",
                "rmodel.encode(messages, chat=True) makes tokens.",
            )
        rows = [row for row in tokens if isinstance(row, Sequence) or getattr(row, "ndim", None)]
        lengths = {len(row) for row in rows}
        if len(lengths) > 1:
            raise BadTokens(
                f"The rows are of unequal lengths: {sorted(lengths)}.",
                "rmodel.encode(list of texts) pads them and makes the mask.",
            )
        if rows and all(isinstance(row, torch.Tensor) for row in tokens):
            return torch.stack(list(tokens))
    try:
        return torch.as_tensor(tokens)
    except Exception as error:  # objects may raise anything when they are read
        raise _none(tokens, f": {error}") from error


def _none(tokens: Any, why: str) -> BadTokens:
    return BadTokens(f"A {type(tokens).__name__} cannot be read as tokens{why}.", _REMEDY)
