"""Top 10 of every MLP neuron of SmolLM2 while data streams past, over the bare forward on the same batches.

    python benchmarks/atlas.py [--batches 12] [--rows 8] [--length 256] [--cpu] [--beside]

One process, the model's own modules as the server runs them; bare and recorded forwards take turns on the same
fresh batches, A B A B, so that both see the same machine. The first batches fill empty slots and cost more: they
are shown apart, since a run over millions of tokens forgets them.

``--beside`` does the same in two ways that one would take without recorders, each in a process of its own: one
forward per batch by nnsight, and storing all activations first. What they find is compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from benchmarks.harness import close, machine
from benchmarks.peers import Worker, python_of_peers
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
from garcon_jupyter.recorders import Examples, TopK
from garcon_jupyter.wire import requests as wire

POINTS = "layers.*.mlp.post_activation"
TARGET = 0.85


def served(path: Path) -> Executor:
    """A Llama as one rank holds it."""
    attention.register()
    mesh = Mesh.solo()
    model = loading.load(path, mesh, None)
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


def compared(
    executor: Executor, batches: Sequence[Tensor], cpu: bool
) -> tuple[list[float], list[float], list[Examples]]:
    """Seconds of each batch, bare and recorded, and what the recorders hold at the end."""
    chosen = ProbePoint(executor.bound.catalog, POINTS).probes(TopK(10))
    probes = tuple(probe.spec for probe in chosen)
    bare, recorded = [], []
    for step, ids in enumerate(batches):
        documents = torch.full(ids.shape, step)
        batch = wire.Batch(ids, None, documents, torch.arange(ids.numel()).view(ids.shape), step)
        for mine in (False, True) if step % 2 else (True, False):  # who goes first alternates
            took = seconds(executor, batch, probes if mine else (), cpu)
            (recorded if mine else bare).append(took)
        print(
            f"batch {step:2}: bare {bare[-1]:.2f} s, recorded {recorded[-1]:.2f} s, "
            f"ratio {bare[-1] / recorded[-1]:.3f}",
            flush=True,
        )
    contents = executor.contexts.export("bench", [(spec.point, None) for spec in probes])
    return bare, recorded, [values["topk"] for values, _ in contents.values()]


def beside(path: Path, batches: Sequence[Tensor], states: Sequence[Examples]) -> dict[str, float]:
    """Seconds of all batches in the two other ways, which must find the same."""
    wanted = torch.stack([state.values.T for state in states])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "nnsight": (Worker("nnsight_topk", python_of_peers()), (), ()),
            "stored first": (Worker("stored_topk"), (folder,), (len(batches),)),
        }
        for name, (worker, more, of) in ways.items():
            with worker:
                worker.do("load", str(path), *more)
                took = [
                    worker.do("batch", ids.numpy(), step)[0] for step, ids in enumerate(batches)
                ]
                last, values = worker.do("result", *of)
                close(values, wanted, name)
                found[name] = sum(took) + last
        stored = sum(file.stat().st_size for file in Path(folder).iterdir())
        print(f"stored: {stored / 1e6:,.0f} MB; kept by recorders: {_bytes(states) / 1e6:.1f} MB")
    return found


def _bytes(states: Sequence[Examples]) -> int:
    return sum(state.nbytes for state in states)


def main() -> None:
    """Print the ratio, and where asked for what the other ways take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--model", type=Path, help="another Llama than SmolLM2")
    parser.add_argument("--beside", action="store_true", help="also nnsight, and storing first")
    parser.add_argument(
        "--cpu", action="store_true", help="count processor time: on a busy machine"
    )
    given = parser.parse_args()
    print(machine())
    path = given.model or snapshots.resolve("smollm2").path
    executor = served(path)
    draw = torch.Generator().manual_seed(0)
    shape = (given.batches, given.rows, given.length)
    batches = torch.randint(0, executor.bound.catalog.sizes["V"], shape, generator=draw)
    bare, recorded, states = compared(executor, list(batches), given.cpu)
    assert all(state.tokens_seen == batches.numel() for state in states)
    late = slice(given.batches // 2, None)
    ratios = [b / r for b, r in zip(bare, recorded, strict=True)]
    print(
        f"tokens/s of top-10 of {sum(len(s.values) for s in states):,} neurons over the bare forward: "
        f"{statistics.median(ratios[late]):.3f} (from {min(ratios[late]):.3f} to "
        f"{max(ratios[late]):.3f}), target {TARGET}; first batches "
        f"{statistics.median(ratios[:2]):.3f}; memory {_bytes(states) / 1e6:.1f} MB = "
        f"16 B × units × 10"
    )
    if given.beside:
        del executor
        for name, took in beside(path, list(batches), states).items():
            print(f"{name}: {took / sum(recorded):.2f} times as long as with recorders")


if __name__ == "__main__":
    main()
