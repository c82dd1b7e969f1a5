"""Sweeps of activation patching beside a loop of forwards, each with a plain hook for its cell, as one writes it by hand.

All in one process on one thread, by its CPU time. The loop is run for every fifteenth cell, drawn evenly, and what it takes counts for
all; the numbers of these cells must be those of the sweep. What the request itself costs is measured against the same forwards,
called without client, messages, sessions and turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import garcon_jupyter as garcon
from benchmarks.harness import Differs, Row, Side, at_most, interleaved, told
from benchmarks.servers import smollm2
from garcon_backend.in_process import ModelHere, open_here
from garcon_jupyter import experiments
from garcon_jupyter.experiments.activation_patching.grid import Grid
from garcon_jupyter.experiments.activation_patching.measures import Measure
from garcon_jupyter.experiments.activation_patching.pairs import Pairs
from garcon_jupyter.experiments.activation_patching.requests import CellRequests

CLEAN = "When John and Mary went to the shops, John gave the bag to"
CORRUPTED = "When John and Mary went to the shops, Mary gave the bag to"
ANSWERS = (" Mary", " John")
EVERY = 15
"""One cell of so many is run in the loop."""

ROUNDS = 5

Cell = tuple[int, int]
"""Layer, and position or head."""


def rows(folder: Path) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here = open_here(smollm2())
        model = garcon.connect(here)
        loop = Loop(model)
        for points, by, cells, target in (
            ("layers.*.resid_pre", "position", 14, 10.0),
            ("layers.*.attn.z", "head", 9, 5.0),
        ):
            yield _sweep(model, loop, points, by, cells, target)
        yield _overhead(model, here)
    finally:
        torch.set_num_threads(threads)


class Loop:
    """Plain transformers with plain hooks: a forward for each cell."""

    def __init__(self, model: garcon.RemoteModel) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32)
        self.ids = [model.encode(text).ids for text in (CLEAN, CORRUPTED)]
        self.answers = [int(model.encode(answer).ids[0, 0]) for answer in ANSWERS]
        self.ends = [self.metric(ids) for ids in self.ids]

    def metric(self, ids: Tensor) -> float:
        with torch.no_grad():
            first, second = self.model(ids, use_cache=False).logits[0, -1, self.answers].tolist()
        return float(first - second)

    def shares(self, by: str, cells: Sequence[Cell]) -> list[float]:
        """The share of the clean metric that each cell brings back."""
        modules = [self.place(by, layer)[0] for layer in range(len(self.model.model.layers))]
        clean: dict[Any, Tensor] = {}
        hooks = [each.register_forward_pre_hook(_keep(clean)) for each in modules]
        high, low = self.metric(self.ids[0]), None
        for hook in hooks:
            hook.remove()
        low, found = self.metric(self.ids[1]), []
        for layer, number in cells:
            module, index = self.place(by, layer)
            hook = module.register_forward_pre_hook(_patched(clean[module], index(number)))
            found.append((self.metric(self.ids[1]) - low) / (high - low))
            hook.remove()
        return found

    def place(self, by: str, layer: int) -> tuple[Any, Callable[[int], Any]]:
        """The module whose input is patched, and where in it a cell is."""
        block = self.model.model.layers[layer]
        if by == "position":
            return block, lambda position: (slice(None), position)
        width = self.model.config.head_dim
        return block.self_attn.o_proj, lambda head: (..., slice(head * width, (head + 1) * width))


def _keep(kept: dict[Any, Tensor]) -> Callable[..., None]:
    def hook(module: Any, args: tuple[Tensor, ...]) -> None:
        kept[module] = args[0].clone()

    return hook


def _patched(clean: Tensor, index: Any) -> Callable[..., Any]:
    def hook(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        value = args[0].clone()
        value[index] = clean[index]
        return (value, *args[1:])

    return hook


def _sweep(
    model: garcon.RemoteModel, loop: Loop, points: str, by: str, cells: int, target: float
) -> Row:
    every = [(layer, number) for layer in range(30) for number in range(cells)]
    drawn = every[EVERY // 2 :: EVERY]

    def swept(_: None) -> list[float]:
        found = experiments.patch(
            model, CLEAN, CORRUPTED, points, ("layer", by), ANSWERS, progress=False
        )
        return [float(found.values[cell]) for cell in drawn]

    def agree(results: Any) -> None:
        apart = max(abs(a - b) for a, b in zip(*results.values(), strict=True))
        if apart > 1e-4:
            raise Differs(f"a cell of {points} is off by {apart:.1e} of the metric's range")

    sides = {"sweep": _by_cpu(swept), "loop": _by_cpu(lambda _: loop.shares(by, drawn))}
    times = interleaved(sides, lambda: None, 3, agree, warm=1)
    mine, of_all = times["sweep"].median, times["loop"].median * len(every) / len(drawn)
    return Row(
        f"patching: {len(every)} cells of `{points}` by layer and {by}, 14 tokens, CPU time of one thread",
        f"{told(mine)}; {of_all / mine:.1f} × as quick as a loop of forwards with plain hooks, {told(of_all)}",
        f"≥ {target:g} × as quick",
        of_all / mine >= target,
        target * mine / of_all,
    )


def _by_cpu(work: Callable[[Any], Any]) -> Side:
    def side(value: Any) -> tuple[float, Any]:
        start = time.process_time()
        result = work(value)
        return time.process_time() - start, result

    return side


def _overhead(model: garcon.RemoteModel, here: ModelHere) -> Row:
    """What the request costs over the same forwards."""
    points, by = "layers.20-29.resid_pre", ("layer", "position")
    executor = here._serving._context.lockstep.executor
    pairs = Pairs.of(model, CLEAN, CORRUPTED)
    grid = Grid.of(model, points, by, pairs.lengths[0], None)
    measure = Measure.of(model, pairs, ANSWERS, None)
    sweep = CellRequests(model, pairs, grid, True, [[(0, True)]], measure)
    _, request = sweep._request(
        [0], [one for one in sweep.cells() if not sweep._changes_nothing(one)]
    )

    def bare(_: None) -> None:
        executor.prepare(executor.handler(request))()

    def asked(_: None) -> None:
        experiments.patch(model, CLEAN, CORRUPTED, points, by, ANSWERS, progress=False)

    sides = {"request": _by_cpu(asked), "bare": _by_cpu(bare)}
    times = interleaved(sides, lambda: None, ROUNDS, warm=1)
    over = [a - b for a, b in zip(times["request"].seconds, times["bare"].seconds, strict=True)]
    allowed = times["bare"].median * 0.1 + 0.02
    return at_most(
        "patching: what a request costs over the same forwards without one, over a tenth of these and 20 ms",
        median(over) / allowed,
        1.0,
        f"{told(max(median(over), 0.0))} over {told(times['bare'].median)}",
    )
