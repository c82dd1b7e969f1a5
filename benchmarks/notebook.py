"""What a person waits for: coming back to a server, and getting to a picture."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import garcon_jupyter as garcon
from benchmarks.harness import Row, Times, interleaved, told
from benchmarks.peers import Worker
from benchmarks.servers import save, served, smollm2

TEXT = "When Mary and John went to the store, John gave a drink to"
POINT = "layers.5.attn.pattern"


def rows(folder: Path) -> Iterator[Row]:
    with served(smollm2(), "bench-notebook") as model:
        yield _reconnect(model)
        yield _beside_a_long_job(model)


def _reconnect(model: Any) -> Row:
    """A notebook that was restarted: connect, run, look; beside loading the model again."""

    def look(number: int) -> tuple[float, Any]:
        start = time.perf_counter()
        again = garcon.connect(model.server.name, session=f"again-{number}")
        probe = again.probe_points[POINT].probe(save)
        tokens = again.encode(f"{TEXT} {number}")
        again.forward(tokens, probes=[probe], logits="none")
        pattern = again.recordings()[POINT].value
        view = again.show(POINT)
        drawn = (
            view.widget._repr_mimebundle_(),
            view.html,
        )  # what a cell sends: the live one and the still
        took = time.perf_counter() - start
        again.close()
        assert torch.allclose(pattern.sum(-1), torch.ones(()), atol=1e-4) and all(drawn)
        return took, None

    def load_anew(number: int) -> tuple[float, Any]:
        with Worker("bare") as bare:
            return bare.do("load", str(smollm2()))

    numbers = iter(range(1000))
    times = interleaved(
        {"garcon": look, "load": load_anew}, lambda: next(numbers), rounds=5, warm=1
    )
    took = times["garcon"].median
    return Row(
        "reconnect → forward → recording → figure, on a warm server",
        f"{times['garcon']}; loading the model anew takes {told(times['load'].median)}",
        "< 1 s",
        took < 1,
        took,
    )


def _beside_a_long_job(model: Any) -> Row:
    """Connect, and get the answer to a first request, while another client's loop keeps the model busy."""
    other = garcon.connect(model.server.name)
    going, lengths = threading.Event(), []
    going.set()

    def loop() -> None:
        while going.is_set():
            start = time.perf_counter()
            other.forward(torch.randint(3, 40000, (8, 64)), probes=[], logits="none")
            lengths.append(time.perf_counter() - start)

    thread = threading.Thread(target=loop)
    thread.start()
    connects, answers = [], []
    try:
        while not lengths:
            time.sleep(0.01)
        for _ in range(5):
            start = time.perf_counter()
            mine = garcon.connect(model.server.name)
            connects.append(time.perf_counter() - start)
            mine.forward([[5, 6, 7]], probes=[], logits="last")
            answers.append(time.perf_counter() - start - connects[-1])
            mine.close()
    finally:
        going.clear()
        thread.join()
        other.close()
    return Row(
        "connect, and a first request, while another client's requests keep the model busy",
        f"connected after {Times(tuple(connects))}, answered after {Times(tuple(answers))}; "
        f"each request of the other takes {told(Times(tuple(lengths)).median)}",
    )
