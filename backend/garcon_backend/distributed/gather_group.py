"""All ranks that hold a piece of the same value: the shards of a stage, in every replica.

A value of a pass is cut twice: along one of its dimensions over the tensor-parallel ranks, and by rows
of the batch over the data-parallel replicas. A gather group puts it together on its one leader (gather), and hands it
out again (scatter). Probes never learn that there were replicas.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from garcon_backend.distributed.collectives import Layout, Ranks

_BY_ROWS = 0


class GatherGroup:
    """The ranks of one stage, over all replicas, during one pass.

    Every method is collective over the group.

    Args:
        tp: the tensor-parallel group of this rank.
        replicas: the ranks of the same shard over all replicas.
        rows: rows of the whole batch. Each replica reads equally many; the last ones may be copies that
            only fill up, and which nobody is shown.
    """

    def __init__(self, tp: Ranks, replicas: Ranks, rows: int) -> None:
        self.tp, self.replicas, self.rows = tp, replicas, rows
        self.local = -(-rows // replicas.size)
        self.leads = tp.leads and replicas.leads

    def scatter_rows(self, batch: Tensor) -> Tensor:
        """Scatter: the rows of a batch, which every rank has, that this replica reads; of each there may be several copies, one after the other."""
        if self.replicas.size == 1:
            return batch
        start = self.replicas.rank * self.local
        index = torch.arange(start, start + self.local, device=batch.device)
        copies = batch.unflatten(0, (self.rows, -1))
        rows: Tensor = copies[index.clamp(max=self.rows - 1)].flatten(0, 1)
        return rows

    def all_gather_rows(self, mine: Tensor) -> Tensor:
        """All-gather: what each replica has of its rows, put together on every rank, off the graph.

        Args:
            mine: alike on all ranks of this replica.
        """
        if self.replicas.size == 1:
            return mine
        joined = self.replicas.all_gather(mine.movedim(0, -1), len(mine) * self.replicas.size)
        return joined.movedim(-1, 0)[: self._shown(len(mine))]

    def gather(
        self, x: Tensor, layout: Layout, grad: bool = False, ragged: bool = False
    ) -> Tensor | None:
        """The whole value on the leader, None elsewhere; as :meth:`Ranks.gather`.

        Args:
            ragged: replicas hold unequal numbers of rows, none of which fills up.
        """
        whole = self.tp.gather(x, layout, grad)
        if whole is None or self.replicas.size == 1:
            return whole
        if ragged:
            return self._gather_ragged(whole)
        joined = self.replicas.gather(whole, Layout(_BY_ROWS, self.replicas.size))
        return None if joined is None else joined[: self._shown(len(whole))]

    def scatter(
        self,
        whole: Tensor | None,
        like: Tensor,
        layout: Layout,
        grad: bool = False,
        ragged: bool = False,
    ) -> Tensor:
        """This rank's piece of a value that the leader holds whole; as :meth:`Ranks.scatter`."""
        if self.replicas.size > 1 and self.tp.leads:
            shape = list(like.shape)
            if layout.chunks > 1:
                shape[layout.dim] *= layout.chunks
            part = torch.empty(shape, dtype=like.dtype, device=like.device)
            if ragged:
                whole = self._scatter_ragged(whole, part)
            else:
                by_rows = Layout(_BY_ROWS, self.replicas.size)
                whole = self.replicas.scatter(self._filled(whole, len(part), grad), part, by_rows)
        return self.tp.scatter(whole, like, layout, grad)

    def broadcast_integers(self, words: Sequence[int]) -> list[int]:
        """Broadcast: the leader's few integers, on every rank of the group."""
        told = (
            self.replicas.broadcast_integers(words)
            if self.tp.leads
            else [int(word) for word in words]
        )
        return self.tp.broadcast_integers(told)

    def _shown(self, local: int) -> int:
        """How many entries of the first dimension the whole batch has.

        Tokens may be laid flat over rows and positions; then each row has several.
        """
        per_row, rest = divmod(local, self.local)
        return self.rows * per_row if not rest else local * self.replicas.size

    def _filled(self, whole: Tensor | None, local: int, grad: bool) -> Tensor | None:
        if whole is None:
            return None
        lacking = local * self.replicas.size - len(whole)
        if lacking == 0:
            return whole
        filler = torch.zeros_like(whole[:1]) if grad else whole[-1:]
        return torch.cat([whole, filler.expand(lacking, *whole.shape[1:])])

    def _gather_ragged(self, part: Tensor) -> Tensor | None:
        sizes = self._sizes(len(part))
        replicas = self.replicas
        if not replicas.leads:
            if len(part):
                dist.send(part.contiguous(), replicas.members[0], group=replicas.group)
            return None
        pieces = [part]
        for source, size in list(zip(replicas.members, sizes, strict=True))[1:]:
            piece = part.new_empty((size, *part.shape[1:]))
            if size:
                dist.recv(piece, source, group=replicas.group)
            pieces.append(piece)
        return torch.cat(pieces)

    def _scatter_ragged(self, whole: Tensor | None, part: Tensor) -> Tensor:
        sizes = self._sizes(len(part))
        replicas = self.replicas
        if not replicas.leads:
            if len(part):
                dist.recv(part, replicas.members[0], group=replicas.group)
            return part
        assert whole is not None
        pieces = whole.split(sizes)
        for target, piece in list(zip(replicas.members, pieces, strict=True))[1:]:
            if len(piece):
                dist.send(piece.contiguous(), target, group=replicas.group)
        mine: Tensor = pieces[0].contiguous()
        return mine

    def _sizes(self, mine: int) -> list[int]:
        sizes = torch.zeros(self.replicas.size, dtype=torch.long, device=self.replicas.device)
        sizes[self.replicas.rank] = mine
        return self.replicas.sum(sizes).tolist()
