"""What a certificate sends to the server: probes that keep, put back, and nudge.

They are sent by name, so this module imports nothing that a server need not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = -1e4
"""A score below is a mask."""


CLIPPED = 0.06
"""Where more of a value than this share is as large as the largest, it is clipped, and what is nearly so stays as it is."""


@dataclass(frozen=True)
class Keep:
    """Saves what it sees of the first rows, and of an expert which tokens it is of.

    Attributes:
        texts: how many rows of the batch to keep.
        columns: of the logits, the tokens of the vocabulary to keep.
    """

    texts: int
    columns: Any = None

    def __call__(self, save_ctx: Any, tensor: Tensor) -> Tensor | None:
        self.save(save_ctx, tensor)
        return None

    def save(self, save_ctx: Any, tensor: Tensor) -> None:
        """Save it."""
        here = save_ctx.here
        if here.token_index is not None:
            mine = here.token_index < self.texts * here.tokens.shape[1]
            save_ctx.tokens, save_ctx.tensor = here.token_index[mine].cpu(), tensor[mine]
        elif here.point == "logits" and self.columns is not None:
            save_ctx.tensor = tensor[: self.texts][..., self.columns.to(tensor.device)]
        else:
            save_ctx.tensor = tensor[: self.texts]


@dataclass(frozen=True)
class PutBack(Keep):
    """Saves what it sees, and puts an equal tensor in its place: an edit that changes nothing."""

    def __call__(self, save_ctx: Any, tensor: Tensor) -> Tensor:
        self.save(save_ctx, tensor)
        return tensor.clone()


@dataclass(frozen=True)
class Enlarged:
    """Multiplies what it sees by a factor."""

    factor: float

    def __call__(self, save_ctx: Any, tensor: Tensor) -> Tensor:
        larger: Tensor = tensor * self.factor
        return larger


@dataclass(frozen=True)
class Added:
    """Adds a tensor to what it sees."""

    change: Any

    def __call__(self, save_ctx: Any, tensor: Tensor) -> Tensor:
        more: Tensor = tensor + self.change.to(tensor.device, tensor.dtype)
        return more


def keep_gradient(save_ctx: Any, gradient: Tensor) -> None:
    """A probe of gradients that saves what it sees."""
    save_ctx.gradient = gradient


@dataclass(frozen=True)
class Nudge(Keep):
    """Moves the value of two rows of its own to either side, along the gradient of a loss, and saves what it then is.

    Attributes:
        rows: for each point, the row that is moved along the gradient, and the one that is moved against it.
        size: how far, relative to the value.
    """

    rows: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)
    size: float = 0.01

    def __call__(self, save_ctx: Any, tensor: Tensor) -> Tensor | None:
        here = save_ctx.here
        gradient = getattr(save_ctx.source, "gradient", None)
        for row, sign in zip(self.rows[here.point], (1, -1), strict=True):
            if row is None:
                continue
            mine = self._mine(here, tensor, row)
            was = tensor[mine].clone()
            if gradient is not None:
                tensor[mine] += sign * self._step(was, gradient)
                moved = (tensor[mine].double() - was.double()).nan_to_num(0.0)  # of what is masked
                change = sign * float((gradient.double() * moved).sum())
                save_ctx.expected = getattr(save_ctx, "expected", 0.0) + change
            elif sign > 0 and here.point.endswith("attn.indices"):  # whose order says nothing
                tensor[mine] = 0
            elif sign > 0:  # indices have none
                tensor[mine] = was.flip(-1) if was.shape[-1] > 1 else 0
        self.save(save_ctx, tensor)
        return None

    def _mine(self, here: Any, tensor: Tensor, row: int) -> Any:
        """What of a tensor belongs to a row of the batch."""
        if here.token_index is None:
            return slice(row, row + 1)
        return (here.token_index // here.tokens.shape[1]) == row

    def _step(self, value: Tensor, gradient: Tensor) -> Tensor:
        """Between the directions of a value's gradient and of itself, for each token another part of its length.

        Along the gradient the loss changes most; along itself a value moves the denominators of norms. What is masked stays.
        """
        import torch

        first = 1 if value.dim() == 2 else 2
        rest = tuple(range(first, value.dim()))
        seen, gradient = value.double(), gradient.double()
        seen = seen.masked_fill(seen < HIDDEN, 0.0)
        size = seen.norm(dim=rest, keepdim=True)
        along = size * gradient / gradient.norm(dim=rest, keepdim=True).clamp(min=1e-300)
        both = along if value.shape[-1] == 1 else along + seen / 2
        parts = 1 - 0.2 * (torch.arange(value.shape[first - 1], device=value.device) * 3 % 5)
        step: Tensor = self.size * parts.view(-1, *[1] * len(rest)) * both
        bound = value.abs().max() if value.numel() else 0.0
        if value.numel() and (value.abs() == bound).double().mean() > CLIPPED:
            step = step.masked_fill(value.abs() + step.abs() >= bound, 0.0)
        return step.to(value.dtype)


def alike(save_ctx: Any, tensor: Tensor) -> Tensor:
    """Gives all tokens the queries or keys of the second, and saves them."""
    new = tensor[:, 1:2].expand_as(tensor).clone()
    save_ctx.tensor = new
    return new


@dataclass(frozen=True)
class TextLosses:
    """A loss of each text: its logits, weighted by random numbers. It is linear in the logits, and no two matter alike.

    Attributes:
        seed: of the numbers.
        together: whether to add the texts' losses up.
    """

    seed: int = 0
    together: bool = False

    def __call__(self, logits: Tensor) -> Tensor:
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        weights = torch.randn(logits.shape[1:], generator=generator).to(logits.device)
        losses = (logits.float() * weights).flatten(1).sum(1, dtype=torch.float64)
        return losses.sum() if self.together else losses
