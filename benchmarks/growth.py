"""How the cost grows with what is asked for: no worse than in proportion."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

import garcon_jupyter as garcon
from benchmarks.harness import Row, Times, told
from benchmarks.servers import divisible, save, served

CLIENT_REQUESTS = 20
LEEWAY = 1.5
"""How much steeper than a straight line a noisy machine may make a curve look."""


def rows(folder: Path) -> Iterator[Row]:
    with served(divisible(folder), "bench-growth") as model:
        yield _curve("points read in one forward", _points(model))
        yield _curve(
            "texts of 64 tokens in a batch", _shapes(model, [(n, 64) for n in (1, 4, 16, 64)], 0)
        )
        yield _curve("tokens in a text", _shapes(model, [(1, n) for n in (16, 64, 256, 1024)], 1))
        yield _curve("clients at once, 20 requests each", _clients(model))
        yield _curve("megabytes of one recording fetched", _recordings(model))


def _curve(what: str, points: Iterator[tuple[int, float]]) -> Row:
    found = list(points)
    (small, fast), (large, slow) = found[0], found[-1]
    growth, linear = slow / fast, large / small
    curve = ", ".join(f"{x}: {told(seconds)}" for x, seconds in found)
    return Row(
        f"growth: {what}",
        f"{curve}; ×{growth:.1f} for ×{linear:.0f}",
        "no worse than linear",
        growth <= LEEWAY * linear,
        growth / (LEEWAY * linear),
        [(str(x), float(x), seconds) for x, seconds in found],
    )


def _median(work: Callable[[], Any], rounds: int = 7) -> float:
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return Times(tuple(seconds)).median


def _points(model: Any) -> Iterator[tuple[int, float]]:
    names = list(model.probe_points)
    probes = [model.probe_points[name].probe(save, read_only=True) for name in names]
    for count in (1, len(probes) // 8, len(probes) // 2, len(probes)):
        chosen = probes[:count]
        yield (
            count,
            _median(
                lambda chosen=chosen: model.forward(  # type: ignore[misc]
                    torch.randint(3, 263, (1, 16)), probes=chosen, logits="none"
                )
            ),
        )
    model.clear_recordings()


def _shapes(model: Any, shapes: list[tuple[int, int]], grows: int) -> Iterator[tuple[int, float]]:
    probe = model.probe_points["layers.3.resid_post"].probe(save, read_only=True)
    for shape in shapes:
        yield (
            shape[grows],
            _median(
                lambda shape=shape: model.forward(  # type: ignore[misc]
                    torch.randint(3, 263, shape), probes=[probe], logits="none"
                ),
                rounds=5,
            ),
        )


def _clients(model: Any) -> Iterator[tuple[int, float]]:
    for count in (1, 2, 4, 8):
        clients = [garcon.connect(model.server.name) for _ in range(count)]

        def work(mine: Any) -> None:
            for _ in range(CLIENT_REQUESTS):
                mine.forward(torch.randint(3, 263, (1, 16)), probes=[], logits="last")

        threads = [threading.Thread(target=work, args=(one,)) for one in clients]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yield count, time.perf_counter() - start
        for one in clients:
            one.close()


def _recordings(model: Any) -> Iterator[tuple[int, float]]:
    room = psutil.virtual_memory().available >> 20
    for megabytes in (size for size in (1, 16, 256, 4096) if 4 * size < room):
        floats = megabytes << 18

        def fill(save_ctx: Any, tensor: Any, floats: int = floats) -> None:
            save_ctx.value = None  # of the size before
            save_ctx.value = tensor.new_full((floats,), 3.0)

        point = model.probe_points["layers.0.resid_pre"]
        model.clear_recordings()
        model.forward([[5, 6]], probes=[point.probe(fill, read_only=True)], logits="none")
        recording = model.recordings()["layers.0.resid_pre"]

        def fetch(recording: Any = recording) -> None:
            value = recording.handle("value").fetch()
            assert value[0] == value[-1] == 3.0

        yield megabytes, _median(fetch, rounds=1 if megabytes > 1000 else 4)
    model.clear_recordings()
