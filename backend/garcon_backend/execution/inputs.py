"""What a pass reads: a batch of tokens, checked against the model and on the device of this rank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from garcon_backend.distributed.gather_group import GatherGroup
from garcon_jupyter.errors import BadTokens
from garcon_jupyter.wire import requests as wire


@dataclass
class Inputs:
    """A checked batch on the device of this rank.

    Attributes:
        ids: of its tokens, [b, p].
        mask: which of them are real, [b, p]; None where all are.
        positions: of each among the real ones of its row, [b, p].
    """

    ids: Tensor
    mask: Tensor | None
    positions: Tensor

    @classmethod
    def of(cls, batch: wire.Batch, sizes: Mapping[str, int], device: torch.device) -> Inputs:
        """A batch, checked and moved to the device.

        Args:
            sizes: of the model, by letter; V and P are its vocabulary and the longest text that it reads.

        Raises:
            BadTokens: empty, out of range, or longer than the model reads.
        """
        ids = _tensor(batch.ids)
        if ids.is_floating_point() or ids.dim() != 2 or not ids.numel():
            raise BadTokens(
                f"Tokens of shape {list(ids.shape)} are no batch.",
                "Give at least one token, integers [b, p].",
            )
        _check_vocabulary(ids, sizes.get("V", 1 << 62))
        if ids.shape[1] > sizes.get("P", 1 << 62):
            raise BadTokens(
                f"{ids.shape[1]} tokens are too long: the model reads at most {sizes['P']}.",
                "Cut the text, or run it in pieces.",
            )
        ids = ids.to(device, torch.long)
        mask = None
        if batch.mask is not None and not bool(_tensor(batch.mask).all()):
            mask = _tensor(batch.mask).to(device, torch.bool)
            if mask.shape != ids.shape:
                raise BadTokens(
                    f"The mask of shape {list(mask.shape)} is not that of {list(ids.shape)} tokens.",
                    "It has one place for each token.",
                )
            if not mask.any(1).all():
                raise BadTokens("A row of the batch is all padding.", "Leave it out.")
        return cls(ids, mask, positions_of(torch.ones_like(ids) if mask is None else mask))

    def refuse_pieces(self, pieces: Mapping[int, str]) -> None:
        """Refuse tokens that stand for pieces of something that is no text.

        Args:
            pieces: id of such a token → what it is a piece of.

        Raises:
            BadTokens: there is one, and not in the padding.
        """
        read = self.ids if self.mask is None else self.ids[self.mask]
        for token in pieces.keys() & set(read.unique().tolist() if pieces else ()):
            raise BadTokens(
                f"Token {token} stands for a piece of an {pieces[token]}, and there is none: a served model is given "
                "text alone.",
                "Leave it out, or say in words what is to be seen.",
            )

    def scattered(self, group: GatherGroup) -> Inputs:
        """The rows that this rank's replica reads."""
        mask = None if self.mask is None else group.scatter_rows(self.mask)
        return Inputs(group.scatter_rows(self.ids), mask, group.scatter_rows(self.positions))

    @property
    def last(self) -> Tensor:
        """Index of the last real token of each row."""
        if self.mask is None:
            return torch.full((len(self.ids),), self.ids.shape[1] - 1, device=self.ids.device)
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        return (places * self.mask).argmax(1)


def positions_of(mask: Tensor) -> Tensor:
    """Position of each token among the real ones of its row: padding shifts nothing."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _check_vocabulary(ids: Tensor, size: int) -> None:
    """Raises BadTokens where an id is below 0 or not below `size`.

    One reduction finds both, as a negative number is a large one without a sign. It is numpy's, on one thread: torch's
    takes longer to wake its others, on cores that slept, than to read a million numbers.
    """
    values = ids.to("cpu", torch.long).numpy()
    if int(values.view(np.uint64).max()) < size:
        return
    low = int(values.min())
    raise BadTokens(
        f"Token {low if low < 0 else int(values.max())} is out of range: the vocabulary has {size} tokens.",
        "rmodel.encode(text) makes tokens that fit.",
    )


def _tensor(value: Any) -> torch.Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadTokens(
            f"Tokens of type {type(value).__name__} are none: {error}.", "Give integers [b, p]."
        ) from error
