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


class View:
    """Takes a value out of a tensor and puts it back. The base class is the whole tensor."""

    def extract(self, tensor: Tensor, run: Frame) -> Tensor:
        """The point's value, of the shape that the table says, as a view of `tensor` where that is possible."""
        return tensor

    def insert(self, tensor: Tensor, value: Tensor, run: Frame) -> Tensor:
        """A tensor like `tensor` in which `value` has the place of what :meth:`extract` showed."""
        return value


@dataclass(frozen=True)
class Heads(View):
    """[b, p, H·d] as [b, p, H, d]."""

    def extract(self, tensor: Tensor, run: Frame) -> Tensor:
        heads: Tensor = tensor.unflatten(-1, (-1, run.sizes["d"]))
        return heads

    def insert(self, tensor: Tensor, value: Tensor, run: Frame) -> Tensor:
        return value.flatten(-2)


@dataclass(frozen=True)
class Part(View):
    """One of several equal parts laid side by side on the last axis, optionally as heads."""

    index: int
    count: int
    heads: bool = False

    def extract(self, tensor: Tensor, run: Frame) -> Tensor:
        part = tensor.chunk(self.count, -1)[self.index]
        return part.unflatten(-1, (-1, run.sizes["d"])) if self.heads else part

    def insert(self, tensor: Tensor, value: Tensor, run: Frame) -> Tensor:
        parts = list(tensor.chunk(self.count, -1))
        parts[self.index] = value.flatten(-2) if self.heads else value
        return torch.cat(parts, -1)


@dataclass(frozen=True)
class Interleaved(View):
    """[b, p, H·count·d] with the parts of one head side by side, as [b, p, H, d]."""

    index: int
    count: int

    def extract(self, tensor: Tensor, run: Frame) -> Tensor:
        parts: Tensor = tensor.unflatten(-1, (-1, self.count, run.sizes["d"]))
        return parts[..., self.index, :]

    def insert(self, tensor: Tensor, value: Tensor, run: Frame) -> Tensor:
        heads = list(tensor.unflatten(-1, (-1, self.count, run.sizes["d"])).unbind(-2))
        heads[self.index] = value
        return torch.stack(heads, -2).flatten(-3)


@dataclass(frozen=True)
class Stretch(View):
    """Queries (0), keys (1) or values (2) where they lie one after the other, as [b, p, heads, d].

    There are H query heads and K of the others; all of them are here, never a shard.
    """

    index: int

    def extract(self, tensor: Tensor, run: Frame) -> Tensor:
        stretch = self._stretches(tensor, run)[self.index]
        heads: Tensor = stretch.unflatten(-1, (-1, run.sizes["d"]))
        return heads

    def insert(self, tensor: Tensor, value: Tensor, run: Frame) -> Tensor:
        stretches = self._stretches(tensor, run)
        stretches[self.index] = value.flatten(-2)
        return torch.cat(stretches, -1)

    @staticmethod
    def _stretches(tensor: Tensor, run: Frame) -> list[Tensor]:
        heads, key_heads, width = (run.sizes[letter] for letter in "HKd")
        return list(tensor.split([heads * width, key_heads * width, key_heads * width], -1))


@dataclass(frozen=True)
class HeadsFirst(View):
    """[b, H, p, d] as [b, p, H, d]."""

    def extract(self, tensor: Tensor, run: Frame) -> Tensor:
        return tensor.transpose(1, 2)

    def insert(self, tensor: Tensor, value: Tensor, run: Frame) -> Tensor:
        return value.transpose(1, 2)


@dataclass(frozen=True)
class FlatTokens(View):
    """[b·p, …] as [b, p, …]: what routers of experts work on."""

    def extract(self, tensor: Tensor, run: Frame) -> Tensor:
        rows: Tensor = tensor.unflatten(0, run.batch)
        return rows

    def insert(self, tensor: Tensor, value: Tensor, run: Frame) -> Tensor:
        return value.flatten(0, 1)
