"""Which positions of a batch belong to which datum.

A batch has B rows of T positions. Mostly a row is a datum, and ids have shape [B]. Where several data are packed into a
row, ids have shape [B, T] and name the datum of each position; a negative id is padding. Whatever a module sees has
its rows and positions somewhere among its leading dimensions: [B, T, …], flattened to [B·T, …], or with heads
between, [B, H, T, …].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadData

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Call:
    """One forward pass of the model.

    Attributes:
        rows: B.
        positions: T; 0 where the model was not given tokens.
        tokens: [B, T], as the model was given them; None where it was given none.
        mask: the attention mask of the same shape, where there was one.
        fresh: whether gradients were empty when it began.
        rows_at: the dimension of the batch, 0 or 1.
    """

    rows: int
    positions: int
    tokens: Tensor | None
    mask: Tensor | None
    fresh: bool
    rows_at: int = 0

    def by_row(self, tensor: Tensor, vectors: int, name: str) -> Tensor:
        """A module's tensor as [B, places, …]: its last `vectors` dimensions stay, those between are flattened.

        Raises:
            BadData: its leading dimensions are not those of the batch.
        """
        shape = tensor.shape[: tensor.dim() - vectors]
        rest = tensor.shape[tensor.dim() - vectors :]
        if self.rows_at == 1 and len(shape) >= 2 and shape[1] == self.rows:
            return tensor.transpose(0, 1).reshape(self.rows, -1, *rest)
        if shape[0] == self.rows and not (self.rows_at == 1 and len(shape) >= 2):
            return tensor.reshape(self.rows, -1, *rest)
        if self.is_flat(tensor):
            if self.rows_at == 1:
                seen = tensor.reshape(self.positions, self.rows, *tensor.shape[1:])
                return seen.transpose(0, 1).reshape(self.rows, -1, *rest)
            return tensor.reshape(self.rows, -1, *rest)
        raise BadData(
            f"{name} has a tensor of shape {[*tensor.shape]}, and the batch has {self.rows} rows of {self.positions} "
            "positions: which datum each number belongs to cannot be told.",
            "A loss is recorded that is a sum over tokens of data, with the batch as the first dimension of every "
            "module (or the second, with batch_dim=1).",
        )

    def is_flat(self, tensor: Tensor) -> bool:
        """Whether rows and positions are one dimension, the first."""
        return tensor.shape[0] == self.rows * self.positions and self.positions > 1

    def by_row_first(self, tensor: Tensor) -> Tensor | None:
        """A tensor with rows as its first dimension, each as a module could be given it alone; None where it has no rows."""
        if tensor.shape[0] == self.rows:
            return tensor
        if tensor.shape[0] == self.rows * self.positions:
            return tensor.reshape(self.rows, self.positions, *tensor.shape[1:])
        return None

    def positions_at(self, shape: Sequence[int], name: str) -> int:
        """Which of several leading dimensions is that of positions.

        Raises:
            BadData: none is, or more than one.
        """
        found = [
            at for at, size in enumerate(shape) if at != self.rows_at and size == self.positions
        ]
        if len(found) != 1:
            raise BadData(
                f"{name} has a tensor of leading dimensions {[*shape]}, in which {self.positions} positions are no "
                "dimension, or more than one.",
                "With several data in a row, use a length that no other dimension has.",
            )
        return found[0]


class DataLayout:
    """The data of one batch.

    Attributes:
        data: ids, in the order of all that is per datum.
        packed: whether positions have ids of their own.
    """

    def __init__(self, data: Sequence[int], of: Tensor | None) -> None:
        self.data, self._of = list(data), of

    @property
    def packed(self) -> bool:
        """Whether positions have ids of their own."""
        return self._of is not None

    def __len__(self) -> int:
        return len(self.data)

    def places(self, tensor: Tensor, call: Call, vectors: int, name: str) -> Tensor:
        """The number of the datum at each place of a module's leading dimensions; -1 where there is none."""
        import torch

        shape = tensor.shape[: tensor.dim() - vectors]
        call.by_row(tensor, vectors, name)  # the leading dimensions are those of the batch
        rows, ones = torch.arange(call.rows), [1] * (len(shape) - 1)
        if call.is_flat(tensor) and (len(shape) == 1 or shape[0] != call.rows):
            of = rows[:, None].expand(-1, call.positions) if self._of is None else self._of
            return (of.T if call.rows_at else of).reshape(-1, *ones).expand(shape)
        if self._of is None or len(shape) == 1:
            at = call.rows_at if len(shape) > 1 else 0
            return rows.view([-1 if n == at else 1 for n in range(len(shape))]).expand(shape)
        at = call.positions_at(shape, name)
        of = self._of if at > call.rows_at else self._of.T
        sizes = [size if n in (at, call.rows_at) else 1 for n, size in enumerate(shape)]
        return of.reshape(sizes).expand(shape)

    def gather(self, tensor: Tensor, call: Call, vectors: int, name: str) -> Tensor:
        """A module's tensor as [data, places, …]; places that a datum does not have are zero."""
        if self._of is None:
            return call.by_row(tensor, vectors, name)
        import torch

        of = self.places(tensor, call, vectors, name).reshape(-1).to(tensor.device)
        flat = tensor.reshape(len(of), *tensor.shape[tensor.dim() - vectors :])
        kept = (of >= 0).nonzero()[:, 0]
        order = kept[of[kept].argsort(stable=True)]
        counts = torch.bincount(of[kept], minlength=len(self))
        start = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        slot = torch.arange(len(order), device=order.device) - start
        found = tensor.new_zeros(len(self), int(counts.max()), *flat.shape[1:])
        found[of[order], slot] = flat[order]
        return found

    def masked(self, tensor: Tensor, call: Call, vectors: int, name: str) -> Tensor:
        """[data, …] of a module's tensor, each with the numbers of all other data set to zero."""
        import torch

        of = self.places(tensor, call, vectors, name).to(tensor.device)
        of = of.reshape(*of.shape, *[1] * vectors)
        return torch.stack([tensor * (of == datum) for datum in range(len(self))])

    def tokens(self, call: Call) -> list[list[int]]:
        """The tokens of each datum, without padding; empty lists where the model was given none."""
        if call.tokens is None:
            return [[] for _ in self.data]
        tokens, mask = call.tokens.cpu(), None if call.mask is None else call.mask.cpu()
        if call.rows_at == 1:
            tokens = tokens.T
        if mask is not None and mask.shape != tokens.shape:
            mask = None
        found = []
        for datum in range(len(self)):
            if self._of is not None:
                found.append(tokens[self._of.cpu() == datum].tolist())
            else:
                row = tokens[datum]
                found.append((row if mask is None else row[mask[datum] != 0]).tolist())
        return found


def layout(ids: Any, call: Call) -> DataLayout:
    """The layout that ids of shape [B] or [B, T] give a batch.

    Raises:
        BadData: they do not match the batch, or name a datum twice.
    """
    import torch

    given = torch.as_tensor(ids).detach().cpu()
    whole = "Give one whole number for each row, or for each position of packed rows (negative: padding)."
    if given.dtype.is_floating_point or given.dtype is torch.bool:
        raise BadData(f"Ids of data are of type {given.dtype}.", whole)
    if given.dim() == 1 and len(given) == call.rows:
        data = given.tolist()
        if len(set(data)) < len(data):
            twice = next(each for each in data if data.count(each) > 1)
            raise BadData(
                f"Datum {twice} is in the batch twice.", "Give each row an id of its own."
            )
        if min(data) < 0:
            raise BadData(f"{min(data)} is no id of a row.", whole)
        return DataLayout(data, None)
    if given.dim() == 2 and tuple(given.shape) == (call.rows, call.positions):
        if not (given >= 0).any():
            raise BadData("No position belongs to a datum: all ids are negative.", whole)
        names, of = given.unique(return_inverse=True)
        below = int((names < 0).sum())
        return DataLayout(names[below:].tolist(), (of - below).clamp(min=-1))
    raise BadData(
        f"Ids of shape {[*given.shape]} do not match a batch of {call.rows} rows of {call.positions} positions.",
        whole,
    )
