"""What ranks say to each other: values to the leader and back, and sums that autograd understands.

Two kinds of traffic live here. :class:`Ranks` carries whole values between a group and its *leader*
(its first rank), for probes. The autograd functions below it carry activations inside the model:
Megatron's conjugate pair ``f`` and ``g`` (Shoeybi et al. 2019) for tensor parallelism, and a send
and a receive for the boundary of two pipeline stages.

Gradients follow the *replicated loss* convention: every rank acts as if it held the same loss, and
the gradient of a replicated value is whole, and the same, on every rank. So the backward of a sum
over ranks is the identity, and the backward of a value that every rank used for its own shard is a
sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How a value lies on the ranks of a group.

    The whole value is the concatenation along `dim` of `chunks` equal pieces, each held by `dup`
    neighbouring ranks; ``chunks * dup`` is the size of the group, unless ``chunks == 1`` and the
    value is simply replicated.

    Attributes:
        dim: the dimension that is cut.
        chunks: number of different pieces; 1 where every rank holds the whole.
        dup: how many neighbouring ranks hold the same piece.
        partial: whether the gradients of those copies add up, as those of a key head do when each
            copy serves other query heads. Otherwise all copies carry the same, whole gradient.
    """

    dim: int = -1
    chunks: int = 1
    dup: int = 1
    partial: bool = False


class Ranks:
    """A group of ranks, one of which leads: its first.

    Every method is collective: all ranks of the group call it, in the same order, with values of
    one layout. With one rank, everything is trivial.

    Args:
        group: the process group; None for a process of its own.
        device: where the group's tensors live.
    """

    def __init__(
        self, group: dist.ProcessGroup | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self.group, self.device = group, torch.device(device)
        self.members = [0] if group is None else dist.get_process_group_ranks(group)
        self.size = len(self.members)
        self.rank = 0 if group is None else dist.get_rank(group)

    @property
    def leads(self) -> bool:
        """Whether this rank is the leader."""
        return self.rank == 0

    def gather(self, x: Tensor, layout: Layout, grad: bool = False) -> Tensor | None:
        """The whole value, off the graph, on the leader; None elsewhere.

        Args:
            x: this rank's piece.
            layout: how the value lies on the ranks.
            grad: `x` is a gradient, so copies of a partial layout are added up.

        Returns:
            On one rank, and on the leader of a replicated value, `x` itself without its graph:
            memory of the caller, not a copy.
        """
        x = x.detach()
        adds = grad and layout.partial
        if self.size == 1 or (layout.chunks == 1 and not adds):
            return x if self.leads else None
        step = 1 if adds else layout.dup
        if not self.leads:
            if self.rank % step == 0:
                dist.send(x.contiguous(), self.members[0], group=self.group)
            return None
        pieces = self._collect(x, step)
        if adds:
            copies = [pieces[i : i + layout.dup] for i in range(0, self.size, layout.dup)]
            pieces = [torch.stack(copy).sum(0) for copy in copies]
        return torch.cat(pieces, layout.dim) if layout.chunks > 1 else pieces[0]

    def _collect(self, mine: Tensor, step: int) -> list[Tensor]:
        """The pieces of every `step`-th rank, in order, on the leader."""
        pieces = [mine]
        waiting = []
        for source in self.members[step::step]:
            piece = torch.empty(mine.shape, dtype=mine.dtype, device=mine.device)
            waiting.append(dist.irecv(piece, source, group=self.group))
            pieces.append(piece)
        _finish(waiting)
        return pieces

    def scatter(
        self, whole: Tensor | None, like: Tensor, layout: Layout, grad: bool = False
    ) -> Tensor:
        """This rank's piece of a value that the leader holds whole.

        Args:
            whole: the value, on the leader; ignored elsewhere.
            like: a tensor of the piece's shape, dtype and device.
            layout: how the value is to lie on the ranks.
            grad: `whole` is a gradient; of copies whose gradients add up, the first gets it and the
                others get zeros.

        Raises:
            ValueError: the value does not cut into pieces of the shape of `like`.
        """
        if self.size == 1:
            assert whole is not None
            return whole
        once = grad and layout.partial
        if self.leads:
            assert whole is not None
            return self._send_pieces(whole, like, layout, once)
        piece = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
        if not (once and self.rank % layout.dup):
            dist.recv(piece, self.members[0], group=self.group)
        return piece

    def _send_pieces(self, whole: Tensor, like: Tensor, layout: Layout, once: bool) -> Tensor:
        pieces = [piece.contiguous() for piece in whole.chunk(layout.chunks, layout.dim)]
        if len(pieces) != layout.chunks or any(p.shape != like.shape for p in pieces):
            raise ValueError(
                f"{list(whole.shape)} does not cut into {layout.chunks} pieces of "
                f"{list(like.shape)} along dimension {layout.dim}"
            )
        dup = layout.dup if layout.chunks > 1 or layout.partial else self.size
        waiting = [
            dist.isend(pieces[rank // dup], self.members[rank], group=self.group)
            for rank in range(1, self.size)
            if not (once and rank % dup)
        ]
        _finish(waiting)
        return pieces[0]

    def broadcast_integers(self, words: Sequence[int]) -> list[int]:
        """Broadcast: the leader's few integers, on every rank; all must pass equally many."""
        if self.size == 1:
            return [int(word) for word in words]
        told = torch.tensor([int(word) for word in words], device=self.device)
        dist.broadcast(told, self.members[0], group=self.group)
        return told.tolist()

    def broadcast(self, tensor: Tensor, src: int = 0) -> Tensor:
        """Broadcast: the tensor of the `src`-th rank of the group, on every rank.

        Other ranks pass a tensor of the same shape and dtype, which is not changed.
        """
        if self.size == 1:
            return tensor
        told = tensor.detach().contiguous()
        if self.rank != src:
            told = torch.empty_like(told)
        dist.broadcast(told, self.members[src], group=self.group)
        return told

    def any(self, flag: bool) -> bool:
        """All-reduce by maximum: whether the flag is up on any rank."""
        if self.size == 1:
            return bool(flag)
        vote = torch.tensor([int(flag)], device=self.device)
        dist.all_reduce(vote, dist.ReduceOp.MAX, group=self.group)
        return bool(vote.item())

    def sum(self, tensor: Tensor) -> Tensor:
        """All-reduce by sum: the sum over the ranks, on every rank, off the graph."""
        if self.size == 1:
            return tensor.detach()
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=self.group)
        return total

    def all_gather(self, tensor: Tensor, total: int) -> Tensor:
        """All-gather: the pieces along the last dimension put together, on every rank, off the graph.

        Pieces are cut as ``torch.chunk`` cuts, so the last ones may be shorter or empty.

        Args:
            tensor: this rank's piece, [..., n].
            total: size of the whole last dimension.
        """
        if self.size == 1:
            return tensor.detach()
        width = -(-total // self.size)
        shape = (*tensor.shape[:-1], width)
        mine = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
        mine[..., : tensor.shape[-1]] = tensor.detach()
        pieces = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(pieces, mine, group=self.group)
        return torch.cat(pieces, -1)[..., :total]


def _finish(waiting: list[dist.Work | None]) -> None:
    for work in waiting:
        if work is not None:  # None: this rank has no part in it
            work.wait()


def span(total: int, parts: int, index: int) -> tuple[int, int]:
    """Where the piece of `index` starts and stops when `total` is cut as ``torch.chunk`` cuts."""
    width = -(-total // parts)
    return min(index * width, total), min((index + 1) * width, total)


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        return ranks.sum(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None


class _SharedByRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.ranks.sum(gradient), None


class _AllGatherOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, total: int, ranks: Ranks) -> Tensor:
        ctx.span = span(total, ranks.size, ranks.rank)
        return ranks.all_gather(x, total)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        start, stop = ctx.span
        return gradient[..., start:stop].contiguous(), None, None


class _PieceOfRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.total, ctx.ranks = x.shape[-1], ranks
        start, stop = span(ctx.total, ranks.size, ranks.rank)
        return x[..., start:stop].contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.ranks.all_gather(gradient, ctx.total), None


def sum_over_ranks(x: Tensor, ranks: Ranks) -> Tensor:
    """The sum of every rank's `x`, replicated; its gradient goes back to each term as it is."""
    return x if ranks.size == 1 else _SumOverRanks.apply(x, ranks)


def shared_by_ranks(x: Tensor, ranks: Ranks) -> Tensor:
    """A replicated `x` that each rank goes on to use for its own shard; their gradients add up."""
    return x if ranks.size == 1 else _SharedByRanks.apply(x, ranks)


def all_gather_over_ranks(x: Tensor, total: int, ranks: Ranks) -> Tensor:
    """Pieces of the last dimension put together, replicated; each gets back its own gradient."""
    return x if ranks.size == 1 else _AllGatherOverRanks.apply(x, total, ranks)


def piece_of_rank(x: Tensor, ranks: Ranks) -> Tensor:
    """This rank's piece of the last dimension of a replicated `x`, whose gradient is put together of all pieces'."""
    return x if ranks.size == 1 else _PieceOfRank.apply(x, ranks)


class _SendOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks, ctx.shape, ctx.dtype = ranks, x.shape, x.dtype
        dist.send(x.detach().contiguous(), ranks.members[ranks.rank + 1], group=ranks.group)
        return anchor.detach().clone()

    @staticmethod
    def backward(ctx: Any, token: Tensor) -> Any:
        ranks: Ranks = ctx.ranks
        gradient = torch.empty(ctx.shape, dtype=ctx.dtype, device=token.device)
        dist.recv(gradient, ranks.members[ranks.rank + 1], group=ranks.group)
        return gradient, None, None


class _ReceiveFromBefore(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, like: Tensor, anchor: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
        ctx.ranks = ranks
        x = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        dist.recv(x, ranks.members[ranks.rank - 1], group=ranks.group)
        return x, anchor.detach().clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, token: Tensor) -> Any:
        ranks: Ranks = ctx.ranks
        dist.send(gradient.contiguous(), ranks.members[ranks.rank - 1], group=ranks.group)
        return None, None, None


def send_on(x: Tensor, anchor: Tensor, ranks: Ranks) -> Tensor:
    """Send `x` to the next rank of a pipeline.

    Args:
        x: the value, replicated within its stage.
        anchor: a 0-dimensional tensor that requires grad in grad mode: it keeps the boundary on the
            graph when nothing before it requires a gradient.

    Returns:
        A 0-dimensional token. Whoever runs the backward must run it through the token too, with any
        gradient: that is when the gradient of `x` is received.
    """
    sent: Tensor = _SendOn.apply(x, anchor, ranks)
    return sent


def receive_from_before(like: Tensor, anchor: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Receive a value of the shape, dtype and device of `like` from the rank before in a pipeline.

    Returns:
        The value, and a 0-dimensional token as of :func:`send_on`. The backward must run through
        the token, with a gradient of zero, so that a gradient is sent back even where the loss does
        not depend on the value.
    """
    received: tuple[Tensor, Tensor] = _ReceiveFromBefore.apply(like, anchor, ranks)
    return received
