"""State on the server: the ten largest values of every neuron of SmolLM2 while data streams past.

Five ways take turns on the same batches of 8 × 256 tokens: a run without probes, a run with recorders, transformers'
own forward, one forward per batch by nnsight whose ten largest are merged with those before, and storing all values
first. A run says itself how long its batches took. The first rounds, which fill empty slots, do not count: a run over
millions of tokens forgets them. At the end all ways must have found the same values.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from benchmarks.harness import Row, Side, Times, close, interleaved
from benchmarks.peers import Worker, python_of_peers
from benchmarks.servers import served, smollm2
from garcon_jupyter.atlas import making
from garcon_jupyter.recorders import TopK

POINTS = "layers.*.mlp.post_activation"
ROWS, LENGTH, K = 8, 256, 10
VOCABULARY = 49152
ROUNDS, WARM, SECONDS = 15, 3, 280.0
TARGET = 0.85
WHAT = f"top {K} of the 46,080 neurons of SmolLM2, batches of {ROWS}×{LENGTH} tokens"


def rows(folder: Path) -> Iterator[Row]:
    path = smollm2()
    with served(path, "bench-atlas") as model:
        yield from _speed(model, path)
        yield from _sizes(model)
        yield _memory(model)


def streamed(model: Any, probes: Sequence[Any]) -> Side:
    """A side that runs a batch past probes, which go on from what they recorded before."""
    numbers = itertools.count(0, ROWS)

    def side(ids: Tensor) -> tuple[float, None]:
        run = model.run(
            ids,
            probes,
            batch_tokens=ids.numel(),
            first_document=next(numbers),
            fresh=False,
            show=False,
        )
        return run.status.seconds, None

    return side


def _speed(model: Any, path: Path) -> Iterator[Row]:
    probes = model.probe_points[POINTS].probes(TopK(K))
    with ExitStack() as stack:
        stored = stack.enter_context(tempfile.TemporaryDirectory())
        workers = {
            "plain": stack.enter_context(Worker("stored_topk")),
            "nnsight": stack.enter_context(Worker("nnsight_topk", python_of_peers())),
            "storing": stack.enter_context(Worker("stored_topk")),
        }
        for name, worker in workers.items():
            worker.do("load", str(path), *([] if name == "nnsight" else [stored]))
        sides = {
            "bare": streamed(model, []),
            "recorders": streamed(model, probes),
            "plain": workers["plain"].side("forward"),
            "nnsight": workers["nnsight"].side("batch", K),
            "storing": workers["storing"].side("batch"),
        }
        times = interleaved(
            sides,
            lambda: torch.randint(3, VOCABULARY, (ROWS, LENGTH)),
            ROUNDS,
            warm=WARM,
            seconds=SECONDS,
        )
        found = torch.stack([entry.topk.values.T for entry in model.recordings().values()])
        close(workers["nnsight"].do("result")[1], found, "nnsight")
        read_back, (values, size) = workers["storing"].do("result", K)
        close(values, found, "stored values")
    rounds = len(times["storing"].seconds) + WARM
    each = Times(tuple(took + read_back / rounds for took in times["storing"].seconds))
    yield _over_bare(times)
    yield Row(
        f"{WHAT}: over transformers' own forward in a process of its own",
        f"{_ratio(times['plain'], times['recorders']):.3f} of its tokens/s: {_rate(times['plain'])}",
    )
    for name, took, more in (
        ("one forward per batch by nnsight", times["nnsight"], ""),
        ("storing all values first", each, f"; {size / 1e9:.1f} GB stored of {rounds} batches"),
    ):
        yield Row(
            f"{WHAT}: beside {name}",
            f"{_ratio(took, times['recorders']):.2f} times its tokens/s: {_rate(took)}{more}",
        )


def _over_bare(times: dict[str, Times]) -> Row:
    bare, recorders = times["bare"], times["recorders"]
    ratio = _ratio(bare, recorders)
    pairs = Times(tuple(a / b for a, b in zip(bare.seconds, recorders.seconds, strict=True)))
    low, high = pairs.spread
    return Row(
        f"{WHAT}: tokens/s over the bare run",
        f"{ratio:.3f} (rounds {low:.3f} – {high:.3f}): {_rate(recorders)} over {_rate(bare)}",
        f"≥ {TARGET:g}",
        ratio >= TARGET,
        TARGET / ratio,
    )


def _ratio(theirs: Times, mine: Times) -> float:
    """Tokens per second of the second over those of the first."""
    return theirs.median / mine.median


def _rate(times: Times) -> str:
    tokens = ROWS * LENGTH
    low, high = times.spread
    return f"{tokens / times.median:.0f} tokens/s ({tokens / high:.0f} – {tokens / low:.0f})"


def _sizes(model: Any) -> Iterator[Row]:
    """What the recorders of :func:`_speed` have left."""
    states = [entry.topk for entry in model.recordings().values()]
    units, tokens = sum(len(state.values) for state in states), states[0].tokens_seen
    held, formula = sum(state.nbytes for state in states), TopK(K).memory(units)
    yield Row(
        f"{WHAT}: bytes kept on the server, and fetched",
        f"{held / 1e6:.2f} MB; by formula 16 × {units:,} × {K} = {formula / 1e6:.2f} MB; the values of "
        f"these {tokens:,} tokens are {4 * units * tokens / 1e9:.1f} GB",
        "the formula",
        held == formula,
        held / formula,
    )


def _memory(model: Any) -> Row:
    """An atlas of all neurons, correlations too, after one batch of few tokens."""
    process = psutil.Process(model.facts["ranks"][0]["pid"])
    model.clear_recordings()
    before = process.memory_info().rss
    names = [address.name for address in model.probe_points[POINTS].addresses]
    wanted = making.Wanted(20, 10, 5, 4, True, False, False, None, ())
    making_one = making.Making(model, names, "", wanted)
    model.run(
        torch.randint(3, VOCABULARY, (4, 64)), making_one.probes(), batch_tokens=256, show=False
    )
    grown = process.memory_info().rss - before
    recordings = model.recordings()
    held = sum(
        getattr(recordings[name, making.NAME], kept).nbytes
        for name in names
        for kept in recordings[name, making.NAME].keys()  # noqa: SIM118 - not a dictionary
    )
    formula = making.memory(46_080, 1536, points=30)
    return Row(
        "recorders of an atlas of all 46,080 neurons of SmolLM2, correlations too: memory",
        f"{held / 1e9:.3f} GB; by formula {formula / 1e9:.3f} GB; the process grew by {grown / 1e9:.3f} GB",
        "the formula",
        held == formula,
        held / formula,
    )
