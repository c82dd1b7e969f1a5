"""Tokens: what ``encode`` gives and the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadTokens

if TYPE_CHECKING:
    from torch import Tensor


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


def as_tokens(tokens: Any) -> Tokens:
    """Tokens from what a user may give: Tokens, a tensor or array [b, p] or [p], lists of integers.

    Raises:
        BadTokens: empty, ragged, not integers, of another number of dimensions.
    """
    import torch

    if isinstance(tokens, Tokens):
        return tokens
    ids = tokens if isinstance(tokens, torch.Tensor) else _tensor(tokens)
    if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool):
        raise BadTokens(
            f"Tokens are integers; these are {str(ids.dtype).removeprefix('torch.')}.",
            "rmodel.encode(text) makes tokens.",
        )
    if ids.dim() == 1:
        ids = ids[None]
    if ids.dim() != 2 or not ids.numel():
        raise BadTokens(
            f"Tokens of shape {list(ids.shape)} are no batch.", "Give at least one token, [b, p]."
        )
    ids = ids.detach().cpu().long()
    return Tokens(ids, torch.from_numpy(np.ones(ids.shape, dtype=bool)))


def _tensor(tokens: Any) -> Tensor:
    import torch

    if isinstance(tokens, Sequence) and not isinstance(tokens, str):
        lengths = {len(row) for row in tokens if isinstance(row, Sequence)}
        if len(lengths) > 1:
            raise BadTokens(
                f"The rows are of unequal lengths: {sorted(lengths)}.",
                "rmodel.encode(list of texts) pads them and makes the mask.",
            )
        if not tokens:
            raise BadTokens("There are no tokens.", "Give at least one token, [b, p].")
    try:
        return torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadTokens(
            f"A {type(tokens).__name__} cannot be read as tokens: {error}.",
            "rmodel.encode(text) makes tokens.",
        ) from error
