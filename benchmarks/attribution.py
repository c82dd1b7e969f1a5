"""Attribution by gradients, beside patching every cell: CPU time of one process with one thread, model and client in it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import garcon_jupyter as garcon
from benchmarks.harness import Differs, Row, Side, interleaved
from benchmarks.servers import smollm2
from garcon_backend.in_process import open_here
from garcon_jupyter import experiments

NAMES = ("Mary", "Tom", "Anna", "James", "Kate", "Paul", "Sarah", "David")

POINTS = "layers.*.attn.z"

CHEAPER = 15.0
"""So many times as cheap as patching every head attribution shall be."""

Pair = tuple[str, str, tuple[str, str]]
"""A clean text, a corrupted one, and the answers."""


def rows(folder: Path) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = garcon.connect(open_here(smollm2(), name="bench-attribution"))
    try:

        def swept(pair: Pair) -> Any:
            clean, corrupted, answers = pair
            by = ("layer", "head")
            return experiments.patch(model, clean, corrupted, POINTS, by, answers=answers).values

        def attributed(pair: Pair) -> Any:
            clean, corrupted, answers = pair
            return experiments.attribute(model, clean, corrupted, POINTS, answers=answers).values

        def bare(pair: Pair) -> Any:
            both = torch.cat([model.encode(text).ids for text in pair[:2]])
            return model.backward(both, lambda logits: logits[:, -1].sum(), probes=_one(model))

        pairs = _pairs()
        times = interleaved(
            {"sweep": cpu(swept), "attribution": cpu(attributed), "bare": cpu(bare)},
            lambda: next(pairs),
            rounds=3,
            agree=_agree,
            warm=1,
        )
    finally:
        torch.set_num_threads(threads)
        model.close()
    ratio = times["sweep"].median / times["attribution"].median
    yield Row(
        "attribution of the 270 heads of SmolLM2 by gradients, 14 tokens, beside patching each (CPU time)",
        f"{ratio:.0f} × cheaper: {times['attribution']} for {times['sweep']}",
        f"≥ {CHEAPER:g} × cheaper",
        ratio >= CHEAPER,
        CHEAPER / ratio,
    )
    over = times["attribution"].median / times["bare"].median
    yield Row(
        "the same, over a bare backward of both texts (CPU time)",
        f"{over:.2f}: {times['attribution']} over {times['bare']}",
    )


def cpu(work: Callable[[Pair], Any]) -> Side:
    """A side that runs in this process: the CPU time of one call."""

    def side(pair: Pair) -> tuple[float, Any]:
        start = time.process_time()
        found = work(pair)
        return time.process_time() - start, found

    return side


def _one(model: Any) -> list[Any]:
    """A probe that has the gradient go through all layers."""
    point = model.probe_points["layers.0.attn.z"]
    return [point.probe(lambda save_ctx, tensor: None, grad=True, read_only=True)]


def _pairs() -> Iterator[Pair]:
    """Two people and a bag, with others each time."""
    for one, other in itertools.permutations(NAMES, 2):
        begin, end = f"When {one} and {other} went to the shops,", "gave the bag to"
        yield (
            f"{begin} {one} {end}",
            f"{begin} {other} {end}",
            (f" {other}", f" {one}"),
        )


def _agree(results: Mapping[str, Any]) -> None:
    both = torch.stack([results["sweep"].flatten(), results["attribution"].flatten()])
    if (pearson := float(torch.corrcoef(both.double())[0, 1])) < 0.7:
        raise Differs(f"attribution and patching correlate by {pearson:.2f} only")
