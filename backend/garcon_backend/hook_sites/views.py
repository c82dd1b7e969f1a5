"""The value of a point inside the tensor of a module.

A module seldom holds a point alone: GPT-2's ``c_attn`` puts out queries, keys and values side by
side, GPT-NeoX interleaves them by head, every projection puts out all heads flat. A view takes the
point's value out of the module's tensor and puts a changed one back; both are differentiable, and
both work on a tensor-parallel shard, whose head count is whatever it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Frame(Protocol):
    """What views need to know of the running forward."""

    batch: tuple[int, int]
    """Batch size and number of positions."""
    sizes: dict[str, int]
    """Size of each letter of the table, for the whole model."""


class PointView:
    """Takes a value out of a tensor and puts it back. The base class is the whole tensor."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        """The point's value, of the shape that the table says, as a view of `tensor` where that is possible."""
        return tensor

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        """A tensor like `tensor` in which `value` has the place of what :meth:`extract` showed."""
        return value


@dataclass(frozen=True)
class Heads(PointView):
    """[b, p, H·d] as [b, p, H, d]."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return torch.unflatten(tensor, -1, (-1, the_pass.sizes["d"]))

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return value.flatten(-2)


@dataclass(frozen=True)
class FusedPart(PointView):
    """One of several equal parts laid side by side on the last axis, optionally as heads."""

    index: int
    count: int
    heads: bool = False

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        part = tensor.chunk(self.count, -1)[self.index]
        return torch.unflatten(part, -1, (-1, the_pass.sizes["d"])) if self.heads else part

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        parts = list(tensor.chunk(self.count, -1))
        parts[self.index] = value.flatten(-2) if self.heads else value
        return torch.cat(parts, -1)


@dataclass(frozen=True)
class Interleaved(PointView):
    """[b, p, H·count·d] with the parts of one head side by side, as [b, p, H, d]."""

    index: int
    count: int

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return self._by_part(tensor, the_pass)[..., self.index, :]

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        parts = list(self._by_part(tensor, the_pass).unbind(-2))
        parts[self.index] = value
        return torch.stack(parts, -2).flatten(-3)

    def _by_part(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return torch.unflatten(tensor, -1, (-1, self.count, the_pass.sizes["d"]))


@dataclass(frozen=True)
class Stretch(PointView):
    """Queries (0), keys (1) or values (2) where they lie one after the other, as [b, p, heads, d].

    There are H query heads and K of the others; all of them are here, never a shard.
    """

    index: int

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        stretch = self._stretches(tensor, the_pass)[self.index]
        return torch.unflatten(stretch, -1, (-1, the_pass.sizes["d"]))

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        stretches = self._stretches(tensor, the_pass)
        stretches[self.index] = value.flatten(-2)
        return torch.cat(stretches, -1)

    @staticmethod
    def _stretches(tensor: Tensor, the_pass: Frame) -> list[Tensor]:
        heads, key_heads, width = (the_pass.sizes[letter] for letter in "HKd")
        return list(tensor.split([heads * width, key_heads * width, key_heads * width], -1))


@dataclass(frozen=True)
class HeadsFirst(PointView):
    """[b, H, p, d] as [b, p, H, d]."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return tensor.transpose(1, 2)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return value.transpose(1, 2)


@dataclass(frozen=True)
class FlatTokens(PointView):
    """[b·p, …] as [b, p, …]: what routers of experts work on, and OPT's MLPs."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return torch.unflatten(tensor, 0, the_pass.batch)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return value.flatten(0, 1)


@dataclass(frozen=True)
class FlatHeads(PointView):
    """[b·p·R, r] as [b, p, R·r]: what a norm works on that each head has by itself."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return tensor.reshape(*the_pass.batch, -1)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return value.reshape(tensor.shape)
