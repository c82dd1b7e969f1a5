"""What it costs an answer that its recordings are backed up before it is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Row, Side, at_most, close, interleaved, local
from benchmarks.servers import divisible, every_layer, served, smollm2, tiny

ALLOWED = 1.05

OFF = """
from garcon_backend.save_contexts.backups import Backups
if not hasattr(Backups, "kept"):
    Backups.kept = Backups.keep
Backups.keep = lambda self, number, request, hold: self._touched.clear()
"""

ON = """
from garcon_backend.save_contexts.backups import Backups
Backups.keep = getattr(Backups, "kept", Backups.keep)
"""


def rows(folder: Path) -> Iterator[Row]:
    small, large = torch.Size((1, 8)), torch.Size((4, 64))
    with served(tiny(folder), "bench-tiny") as model:
        yield _row(model, "4 reads, tiny Llama, 1×8", small, 263, 300)
        yield _row(model, "4 reads, tiny Llama, 32×64", torch.Size((32, 64)), 263, 100)
    with served(smollm2(), "bench-smollm2") as model:
        yield _row(model, "30 reads, SmolLM2, 1×8", small, 49152, 100)
        yield _row(model, "30 reads, SmolLM2, 4×64 (47 MB)", large, 49152, 60)
    with served(divisible(folder), "bench-tp2", tp=2) as model:
        yield _row(model, "30 reads, tp=2, 1×8", small, 263, 100)


def _row(model: Any, what: str, shape: torch.Size, vocabulary: int, rounds: int) -> Row:
    """The same request on the same server, with backups and without."""
    probes = every_layer(model)

    def side(code: str) -> Side:
        forward = local(lambda ids: model.forward(ids, probes=probes, logits="last"))

        def run(ids: torch.Tensor) -> tuple[float, Any]:
            model.run_on_ranks(code)
            return forward(ids)

        return run

    def agree(results: Mapping[str, Any]) -> None:
        close(results["with"], results["without"], "logits")

    times = interleaved(
        {"without": side(OFF), "with": side(ON)},
        lambda: torch.randint(3, vocabulary, shape),
        rounds=rounds,
        agree=agree,
        warm=10,
    )
    ratio = times["with"].median / times["without"].median
    return at_most(
        f"an answer with its recordings backed up, over one without: {what}",
        ratio,
        ALLOWED,
        f"{ratio:.3f}: {times['with']} over {times['without']}",
    )
