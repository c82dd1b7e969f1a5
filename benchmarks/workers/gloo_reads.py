"""Bare torch over ranks: as many products and meetings as a tensor-parallel pass, with and without reads.

What a read must cost is seen here: each rank but the first sends its part of the neurons, the first receives them,
puts them together and copies the whole. Nothing else is done, and nobody is asked.
"""

from __future__ import annotations

import socket
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from loop import serve

held: dict[str, Any] = {}


class Layers:
    """The products of a Llama's layers, cut over the ranks as Megatron cuts them."""

    def __init__(self, world: int, layers: int, hidden: int, neurons: int) -> None:
        def product(n: int, m: int) -> torch.nn.Linear:
            return torch.nn.Linear(n, m, bias=False)

        self.layers = [
            (
                product(hidden, hidden // world),
                product(hidden // world, hidden),
                product(hidden, neurons // world),
                product(hidden, neurons // world),
                product(neurons // world, hidden),
            )
            for _ in range(layers)
        ]
        self.saved: dict[int, torch.Tensor] = {}

    def run(self, x: torch.Tensor, reads: bool) -> torch.Tensor:
        """One pass; with `reads`, the first rank copies the neurons of every layer."""
        for number, (into, out, gate, up, down) in enumerate(self.layers):
            attended = out(into(x))
            dist.all_reduce(attended)
            x = x + attended
            neurons = torch.nn.functional.silu(gate(x)) * up(x)
            if reads:
                self._read(number, neurons)
            added = down(neurons)
            dist.all_reduce(added)
            x = x + added
        return x

    def _read(self, number: int, mine: torch.Tensor) -> None:
        if dist.get_rank():
            dist.send(mine, 0)
            return
        parts = [mine, *(torch.empty_like(mine) for _ in range(1, dist.get_world_size()))]
        for work in [dist.irecv(part, rank) for rank, part in enumerate(parts) if rank]:
            work.wait()
        self.saved[number] = torch.cat(parts, -1).clone()


def join(rank: int, port: int, world: int, *sizes: int) -> Layers:
    """Become a rank."""
    where = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
    torch.set_grad_enabled(False)
    torch.set_num_threads(max(1, torch.get_num_threads() // world))
    torch.manual_seed(rank)
    return Layers(world, *sizes)


def follow(rank: int, *where: int) -> None:
    """A rank that does what the first says, until there is nothing more."""
    layers = join(rank, *where)
    order = torch.zeros(4, dtype=torch.long)
    while True:
        dist.broadcast(order, 0)
        *shape, reads = order.tolist()
        if not shape[0]:
            return
        layers.run(torch.zeros(shape), bool(reads))


def load(world: int, *sizes: int) -> None:
    """Start the ranks: their number, and that of layers, of the residual stream, and of neurons."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    others = mp.get_context("spawn")
    for rank in range(1, world):
        others.Process(target=follow, args=(rank, port, world, *sizes), daemon=True).start()
    held["layers"] = join(0, port, world, *sizes)


def forward(shape: Any, reads: bool) -> None:
    """One pass of zeros [b, p, residual stream]."""
    dist.broadcast(torch.tensor([*shape, int(reads)]), 0)
    held["layers"].run(torch.zeros(tuple(shape)), reads)


def end() -> None:
    """Let the other ranks go."""
    dist.broadcast(torch.zeros(4, dtype=torch.long), 0)


if __name__ == "__main__":
    serve({"load": load, "forward": forward, "end": end})
