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

    told = ""
    """What of the tensor it is, in words that go before it."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        """The point's value, of the shape that the table says, as a view of `tensor` where that is possible."""
        return tensor

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        """A tensor like `tensor` in which `value` has the place of what :meth:`extract` showed."""
        return value


@dataclass(frozen=True)
class Heads(PointView):
    """[b, p, H·d] as [b, p, H, d]; `size` is the letter of a head's width."""

    size: str = "d"

    told = "the heads that lie side by side in"

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return torch.unflatten(tensor, -1, (-1, the_pass.sizes[self.size]))

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return value.flatten(-2)


@dataclass(frozen=True)
class FusedPart(PointView):
    """One of several equal parts laid side by side on the last axis, optionally as heads."""

    index: int
    count: int
    heads: bool = False

    @property
    def told(self) -> str:  # type: ignore[override]
        return f"block {self.index + 1} of {self.count} side by side in"

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

    @property
    def told(self) -> str:  # type: ignore[override]
        return f"part {self.index + 1} of {self.count} of each head in"

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return self._by_part(tensor, the_pass)[..., self.index, :]

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        parts = list(self._by_part(tensor, the_pass).unbind(-2))
        parts[self.index] = value
        return torch.stack(parts, -2).flatten(-3)

    def _by_part(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return torch.unflatten(tensor, -1, (-1, self.count, the_pass.sizes["d"]))


@dataclass(frozen=True)
class Grouped(PointView):
    """Queries (0), keys (1) or values (2) of K groups, one after the other, as [b, p, heads, d].

    A group has the queries that share a key, then this key, then its value: [b, p, K·(H/K + 2)·d].
    """

    index: int

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return self._parts(tensor, the_pass)[self.index].flatten(-3, -2)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        parts = self._parts(tensor, the_pass)
        parts[self.index] = value.reshape(parts[self.index].shape)
        return torch.cat(parts, -2).flatten(-3)

    @staticmethod
    def _parts(tensor: Tensor, the_pass: Frame) -> list[Tensor]:
        shared, width = the_pass.sizes["H"] // the_pass.sizes["K"], the_pass.sizes["d"]
        groups = torch.unflatten(tensor, -1, (-1, shared + 2, width))
        return list(groups.split([shared, 1, 1], -2))


@dataclass(frozen=True)
class InBlocks(PointView):
    """One of several parts of heads, where blocks of heads lie one after the other, as [b, p, H, d].

    A block has the first part of its heads, then the second, and so on: [b, p, blocks·count·(H/blocks)·d].
    """

    index: int
    count: int
    blocks: int

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return self._parts(tensor, the_pass)[self.index].flatten(-3, -2)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        parts = self._parts(tensor, the_pass)
        parts[self.index] = value.reshape(parts[self.index].shape)
        return torch.stack(parts, -3).flatten(-4)

    def _parts(self, tensor: Tensor, the_pass: Frame) -> list[Tensor]:
        by_block = (self.blocks, self.count, -1, the_pass.sizes["d"])
        return list(torch.unflatten(tensor, -1, by_block).unbind(-3))


@dataclass(frozen=True)
class Stretch(PointView):
    """Queries (0), keys (1) or values (2) where they lie one after the other, as [b, p, heads, d].

    There are H query heads and K of the others; all of them are here, never a shard.
    """

    index: int

    @property
    def told(self) -> str:  # type: ignore[override]
        return f"{('queries', 'keys', 'values')[self.index]}, one after the other, in"

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
class RotatedPart(PointView):
    """[b, p, r_kv + d_r], what latent attention projects keys and values to first, as its last d_r."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return tensor[..., -the_pass.sizes["d_r"] :]

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return torch.cat([tensor[..., : -the_pass.sizes["d_r"]], value], -1)


@dataclass(frozen=True)
class Expanded(PointView):
    """[b, 1, p, H·(d_n + d_v)], what latent attention makes of its latents, as keys (0) or values (1) [b, p, H, …]."""

    index: int

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return self._parts(tensor, the_pass)[self.index]

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        parts = self._parts(tensor, the_pass)
        parts[self.index] = value
        return torch.cat(parts, -1).flatten(-2).unsqueeze(1)

    @staticmethod
    def _parts(tensor: Tensor, the_pass: Frame) -> list[Tensor]:
        widths = [the_pass.sizes["d_n"], the_pass.sizes["d_v"]]
        return list(torch.unflatten(tensor.squeeze(1), -1, (-1, sum(widths))).split(widths, -1))


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
class PerhapsFlatTokens(FlatTokens):
    """The same where a tensor is flat, [b·p, …], and the whole of it where it is [b, p, …]."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return super().extract(tensor, the_pass) if tensor.dim() == 2 else tensor

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return super().insert(tensor, value, the_pass) if tensor.dim() == 2 else value


@dataclass(frozen=True)
class StreamsFirst(PointView):
    """[A, b, p, D] as [b, p, A, D]: the parallel streams of a model that keeps several."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return tensor.permute(1, 2, 0, 3)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return value.permute(2, 0, 1, 3)


@dataclass(frozen=True)
class FlatHeads(PointView):
    """[b·p·R, r] as [b, p, R·r]: what a norm works on that each head has by itself."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return tensor.reshape(*the_pass.batch, -1)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return value.reshape(tensor.shape)
