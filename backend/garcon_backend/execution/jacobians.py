"""Rows of a Jacobian: one forward of copies of a text, and a backward for each batch of rows, through the same graph.

Each copy is asked for the gradient of another dimension of the target. The graph begins at the earliest source: of what comes before it
nothing is kept, and no backward goes there. Replicas share out the rows, and say nothing to each other meanwhile; over stages the
gradient crosses each boundary as in any backward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from garcon_backend.distributed.collectives import Layout
from garcon_backend.distributed.gather_group import GatherGroup
from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.passes import Passes
from garcon_backend.execution.patching.patched_pass import OwnPass
from garcon_backend.models.sharding import backward_again
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import Point
from garcon_jupyter.points import Address
from garcon_jupyter.wire import requests as wire


class DifferentiablePass(OwnPass):
    """A pass that keeps the target, and what gradients arrive at the sources.

    Args:
        sources: in the order of the layers.

    Attributes:
        value: of the target, on the graph; None where another stage has it.
        gradients: of the last backward, by source, of those that this stage has.
    """

    def __init__(self, rank: Rank, rows: int, target: Address, sources: Sequence[Address]) -> None:
        super().__init__(rank, rows, [*sources, target])
        self._target, self._sources = target.name, {address.name for address in sources}
        self._first = sources[0].name
        self._root: Tensor | None = None
        self.value: Tensor | None = None
        self.gradients: dict[str, Tensor] = {}

    def _at(self, point: Point, x: Tensor) -> Tensor | None:
        name, new = point.address.name, None
        if name == self._first:
            self._root = x.detach().requires_grad_()
            x = new = self._root.clone()  # which the model may change in place
        if name in self._sources:
            x.register_hook(lambda gradient: self._keep(name, gradient))
        if name == self._target:
            self.value = x
        return new

    def _keep(self, name: str, gradient: Tensor) -> None:
        self.gradients[name] = gradient.detach()

    def forget(self) -> None:
        """Let go of the gradients of the last backward."""
        self.gradients.clear()
        if self._root is not None:
            self._root.grad = None


class JacobianRows:
    """The rows that one request asks for.

    Args:
        inputs: the text.
        target, sources: the points, as the request names them.
    """

    def __init__(
        self,
        passes: Passes,
        request: wire.Jacobian,
        inputs: Inputs,
        target: Address,
        sources: Sequence[Address],
    ) -> None:
        self._passes, self._rank, self._request = passes, passes.rank, request
        self._inputs, self._target, self._sources = inputs, target, sources
        mesh = self._rank.mesh
        start, stop = request.dims
        self._each = -(-(stop - start) // mesh.degrees.dp)
        self._start = start + mesh.replica * self._each
        self._copies = min(request.rows, self._each)

    def run(self) -> Tensor | None:
        """All of them, float32 [source, row, D], on the rank that answers."""
        mine = torch.cat(list(self._batches()), 1)[:, : self._each]
        mesh = self._rank.mesh
        every = GatherGroup(mesh.tp, mesh.replicas, self._each * mesh.degrees.dp)
        joined = every.gather(mine.movedim(1, 0).contiguous(), Layout())
        start, stop = self._request.dims
        whole = None if joined is None else joined[: stop - start].movedim(0, 1).contiguous()
        return self._of_all_stages(whole)

    def _batches(self) -> Iterator[Tensor]:
        """This replica's rows, a batch after the other, [source, row, D]; zeros for sources of another stage."""
        ids = self._inputs.ids.expand(self._copies, -1)
        positions = self._inputs.positions.expand(self._copies, -1)
        probed = DifferentiablePass(self._rank, self._copies, self._target, self._sources)
        starts = range(0, self._each, self._copies)
        with self._passes.installed(probed):
            with torch.enable_grad():
                output = self._passes.read(probed, Inputs(ids, None, positions), keep=1)
            del output
            probed.check_visited()
            for number, start in enumerate(starts):
                if number:
                    self._passes.agree_to_go_on(probed)
                yield self._backward(probed, self._start + start, number == len(starts) - 1)

    def _backward(self, probed: DifferentiablePass, dim: int, last: bool) -> Tensor:
        """The rows of as many dimensions as there are copies, from this one on."""
        self._rank.interrupts.phase = "backward"
        begin, end = self._request.positions
        seed = None
        if probed.value is not None:
            seed = torch.zeros_like(probed.value)
            for copy in range(self._copies):  # what is counted too much is cut off at the end
                seed[copy, begin:end, min(dim + copy, seed.shape[-1] - 1)] = 1
        backward_again(self._rank.model, probed.value, seed, last)
        width = self._rank.bound.catalog.sizes["D"]
        rows = torch.zeros(len(self._sources), self._copies, width, device=self._rank.mesh.device)
        for number, address in enumerate(self._sources):
            if (gradient := probed.gradients.get(address.name)) is not None:
                rows[number] = gradient[:, begin:end].float().mean(1)
        probed.forget()
        return rows

    def _of_all_stages(self, rows: Tensor | None) -> Tensor | None:
        """The rows of the sources of every stage, on the leader of the last one."""
        mesh = self._rank.mesh
        if rows is None or mesh.degrees.pp == 1:
            return rows
        joined: Tensor = mesh.pipeline.sum(rows)
        return joined if mesh.last_stage else None
