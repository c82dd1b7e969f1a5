"""Fleets: weights exchanged in a living server beside a stop and a launch, and one request to several beside one after another."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import garcon_jupyter as garcon
from benchmarks import harness
from benchmarks.harness import Differs, Row
from benchmarks.servers import smollm2

TEXT = "The capital of France is"

TARGETS = {"exchange": 0.25, "map": 0.75}
"""What part of the other side's time it may take."""


def rows(folder: Path) -> Iterator[Row]:
    one, other = smollm2(), _later(folder)
    yield _exchange(one, other)
    yield _map({"one": one, "other": other, "again": one})


def _later(folder: Path) -> Path:
    """SmolLM2 with other numbers, as a later step of its training would be."""
    other = folder / "later"
    shutil.copytree(smollm2(), other)
    file = other / "model.safetensors"
    tensors = {name: tensor * 1.01 for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    return other


def _exchange(one: Path, other: Path, rounds: int = 3) -> Row:
    """Both sides begin where the first checkpoint answers, and end with the first answer of the other."""
    fleet = garcon.fleet({"one": one, "other": other}, "bench-turn", alive=1, progress=_unheard)

    def exchanged(number: int) -> tuple[float, torch.Tensor]:
        fleet["one"].forward(TEXT, logits="last")
        began = time.perf_counter()
        answer = fleet["other"].forward(TEXT, logits="last")
        return time.perf_counter() - began, answer

    def launched(number: int) -> tuple[float, torch.Tensor]:
        first = garcon.launch(one, name="bench-turn-alone", progress=_unheard)
        former = garcon.connect(first.name)
        former.forward(TEXT, logits="last")
        began = time.perf_counter()
        former.shutdown(force=True)
        garcon.launch(other, name="bench-turn-alone", progress=_unheard)
        model = garcon.connect("bench-turn-alone")
        answer = model.forward(TEXT, logits="last")
        took = time.perf_counter() - began
        model.shutdown(force=True)
        return took, answer

    numbers = itertools.count()
    sides = {"exchange": exchanged, "launch": launched}
    try:
        times = harness.interleaved(sides, lambda: next(numbers), rounds, _equal, warm=1)
    finally:
        fleet.stop(force=True)
    ratio = times["exchange"].median / times["launch"].median
    return harness.at_most(
        "a fleet in turn: the first answer of another checkpoint of SmolLM2",
        ratio,
        TARGETS["exchange"],
        f"{times['exchange']}; a stop and a launch {times['launch']}: {1 / ratio:.1f} times quicker",
    )


def _map(paths: dict[str, Path], rounds: int = 7) -> Row:
    """One request to each of three members, at once and one after another."""
    fleet = garcon.fleet(paths, "bench-alive", progress=_unheard)
    models = [fleet[label] for label in fleet]

    def ask(model: garcon.RemoteModel, ids: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = model.forward(ids, logits="last")
        return answer

    def together(ids: torch.Tensor) -> list[torch.Tensor]:
        return [*fleet.map(lambda model: ask(model, ids), on_error="raise").values()]  # type: ignore[list-item]

    def one_by_one(ids: torch.Tensor) -> list[torch.Tensor]:
        return [ask(model, ids) for model in models]

    sides = {"at once": harness.local(together), "one by one": harness.local(one_by_one)}
    try:
        times = harness.interleaved(sides, lambda: torch.randint(1000, (1, 64)), rounds, _equal)
    finally:
        fleet.stop(force=True)
    ratio = times["at once"].median / times["one by one"].median
    return harness.at_most(
        f"map of one request over {len(models)} members, 64 tokens of SmolLM2",
        ratio,
        TARGETS["map"],
        f"{times['at once']}; one after another {times['one by one']}",
    )


def _equal(results: Mapping[str, Any]) -> None:
    mine, theirs = results.values()
    if not all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True)):
        raise Differs("the two sides do not answer alike")


def _unheard(line: str) -> None:
    pass
