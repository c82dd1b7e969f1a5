"""From nothing to the first answer, and where the time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import garcon_jupyter as garcon
from benchmarks.harness import Row, Times, told
from benchmarks.servers import smollm2


def rows(folder: Path) -> Iterator[Row]:
    for ranks in (1, 3):
        yield _launch(ranks)


def _launch(ranks: int, rounds: int = 2) -> Row:
    whole, stages = [], []
    for number in range(rounds):
        name = f"bench-launch-{ranks}-{number}"
        lines: list[tuple[float, str]] = []
        start = time.perf_counter()
        said = lines.append
        server = garcon.launch(
            smollm2(),
            name=name,
            tp=ranks,
            progress=lambda line, said=said: said((time.perf_counter(), line)),  # type: ignore[misc]
        )
        ready = time.perf_counter()
        model = garcon.connect(server.name)
        connected = time.perf_counter()
        model.forward("The capital of France is", logits="last", probes=[])
        answered = time.perf_counter()
        model.shutdown(force=True)
        whole.append(answered - start)
        stages.append((ready - start, connected - ready, answered - connected))
    launched, connected, answered = stages[-1]
    return Row(
        f"launch of SmolLM2 to the first answer, {ranks} rank{'s' if ranks > 1 else ''}",
        f"{Times(tuple(whole))}: {told(launched)} until the server is ready (processes, imports, "
        f"weights), {told(connected)} to connect, {told(answered)} for the first answer",
    )
