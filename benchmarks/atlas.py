"""Top 10 of every MLP neuron of SmolLM2 while data streams past, over the bare forward on the same batches.

    python benchmarks/atlas.py [--batches 12] [--rows 8] [--length 256]

One process, the model's own modules as the server runs them; bare and recorded forwards take turns on the same
fresh batches, A B A B, so that both see the same machine. The first batches fill empty slots and cost more: they
are shown apart, since a run over millions of tokens forgets them.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from garcon_backend.engine.mesh import Mesh
from garcon_backend.executor import Executor
from garcon_backend.interrupts import Interrupts
from garcon_backend.models import loading, sharding
from garcon_backend.models.families import FAMILIES
from garcon_backend.models.family import bind
from garcon_backend.output import Output
from garcon_backend.probing import attention
from garcon_jupyter import snapshots
from garcon_jupyter.probes import ProbePoint
from garcon_jupyter.recorders import TopK
from garcon_jupyter.wire import requests as wire

POINTS = "layers.*.mlp.post_activation"
TARGET = 0.85


def served() -> Executor:
    """SmolLM2 as one rank holds it."""
    attention.register()
    mesh = Mesh.solo()
    model = loading.load(snapshots.resolve("smollm2").path, mesh, None)
    bound = bind(model, FAMILIES["llama"], model.config)
    layouts = sharding.layouts(model, mesh)
    return Executor(mesh, model, bound, layouts, Interrupts(True), Output())


def seconds(
    executor: Executor, batch: wire.Batch, probes: tuple[wire.ProbeSpec, ...], cpu: bool
) -> float:
    """One forward, as a run asks for it."""
    request = wire.Forward("bench", batch=batch, logits="none")
    ready = [executor._probe(spec) for spec in probes]
    inputs = executor.passes.batch(batch)
    clock = time.process_time if cpu else time.perf_counter
    began = clock()
    executor.passes.forward(request, inputs, ready, None)
    return clock() - began


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument(
        "--cpu", action="store_true", help="count processor time: on a busy machine"
    )
    given = parser.parse_args()
    executor = served()
    chosen = ProbePoint(executor.bound.catalog, POINTS).probes(TopK(10))
    probes = tuple(probe.spec for probe in chosen)
    draw = torch.Generator().manual_seed(0)
    vocabulary = executor.bound.catalog.sizes["V"]
    shape = (given.rows, given.length)
    ratios = []
    for step in range(given.batches):
        ids = torch.randint(0, vocabulary, shape, generator=draw)
        documents = torch.full(shape, step)
        offsets = torch.arange(ids.numel()).view(shape)
        batch = wire.Batch(ids, None, documents, offsets, step)
        # Who goes first alternates too.
        if step % 2:
            recorded = seconds(executor, batch, probes, given.cpu)
            bare = seconds(executor, batch, (), given.cpu)
        else:
            bare = seconds(executor, batch, (), given.cpu)
            recorded = seconds(executor, batch, probes, given.cpu)
        ratios.append(bare / recorded)
        print(
            f"batch {step:2}: bare {bare:.2f} s, recorded {recorded:.2f} s, ratio {ratios[-1]:.3f}"
        )
    contents = executor.contexts.export("bench", [(spec.point, None) for spec in probes])
    states = [values["topk"] for values, _ in contents.values()]
    assert len(states) == 30 and all(s.tokens_seen == given.batches * ids.numel() for s in states)
    late = ratios[given.batches // 2 :]
    print(
        f"tokens/s of top-10 of {sum(len(s.values) for s in states):,} neurons over the bare forward: "
        f"{statistics.median(late):.3f} (from {min(late):.3f} to {max(late):.3f}), target {TARGET}; "
        f"first batches {statistics.median(ratios[:2]):.3f}; "
        f"memory {sum(s.nbytes for s in states) / 1e6:.1f} MB = 16 B x units x 10"
    )


if __name__ == "__main__":
    main()
