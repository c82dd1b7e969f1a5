"""Probes on a sharded model, beside the same sharded model without probes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.fetching import large
from benchmarks.harness import Row, Times, at_most, close, interleaved, local, told
from benchmarks.peers import Worker
from benchmarks.servers import divisible, every_layer, recorded, served, smollm2

FIRST = "layers.0.attn.q_proj"


def rows(folder: Path) -> Iterator[Row]:
    # SmolLM2's nine heads, three key/value heads and 1,536 neurons divide by three, not by two.
    real, divided = smollm2(), divisible(folder)
    layouts: tuple[tuple[Path, dict[str, int]], ...] = (
        (divided, {"tp": 2}),
        (real, {"tp": 3}),
        (real, {"pp": 2}),
    )
    for path, degrees in layouts:
        word = ", ".join(f"{key}={size}" for key, size in degrees.items())
        with served(path, f"bench-{word.replace('=', '')}", **degrees) as model:
            yield _forward(model, word)
            if "tp" in degrees:
                yield _bound(model, degrees["tp"], word)
            yield _backward(model, word)
            yield _fetch(model, word)


def _fresh() -> Any:
    return torch.randint(3, 263, (2, 64))


def _forward(model: Any, word: str) -> Row:
    probes = every_layer(model)
    times = interleaved(
        {
            "without": local(lambda ids: model.forward(ids, probes=[], logits="last")),
            "with": local(lambda ids: model.forward(ids, probes=probes, logits="last")),
        },
        _fresh,
        rounds=9,
        agree=lambda results: close(results["with"], results["without"], "logits"),
    )
    assert len(recorded(model)) == len(probes)
    return _row(f"forward with 30 reads, {word}, over the same without", times)


def _bound(model: Any, ranks: int, word: str) -> Row:
    """What the reads must cost: ranks that do nothing but a pass's products and meetings, by torch alone."""
    sizes = model.catalog.sizes
    with Worker("gloo_reads") as bare:
        bare.do("load", ranks, model.catalog.n_layers, sizes["D"], sizes["M"])
        times = interleaved(
            {
                name: lambda shape, reads=reads: bare.do("forward", shape, reads)  # type: ignore[misc]
                for name, reads in (("without", False), ("with", True))
            },
            lambda: (2, 64, sizes["D"]),
            rounds=15,
        )
        bare.do("end")
    ratio = times["with"].median / times["without"].median
    each = (times["with"].median - times["without"].median) / model.catalog.n_layers
    return Row(
        f"… the bound, {word}: as many products, meetings and reads by torch and gloo alone",
        f"{ratio:.3f}: {times['with']} over {times['without']}; {told(each)} for each read",
    )


def _backward(model: Any, word: str) -> Row:
    """The gradient of a parameter of the first layer is asked for: without, a pass that nobody probes has no
    backward at all."""
    probes = every_layer(model)

    def loss(logits: Any) -> Any:
        return logits[:, -1].logsumexp(-1).mean()

    def gradient(probes: Any, ids: Any) -> Any:
        return model.backward(ids, loss, probes=probes, parameters=[FIRST])[1][FIRST]

    times = interleaved(
        {
            "without": local(partial(gradient, [])),
            "with": local(partial(gradient, probes)),
        },
        _fresh,
        rounds=6,
        agree=lambda results: close(results["with"], results["without"], "gradient"),
        warm=1,
    )
    return _row(f"forward and backward with 30 reads, {word}, over the same without", times)


def _fetch(model: Any, word: str) -> Row:
    """What the last layer's rank recorded, which goes straight from there."""
    point = f"layers.{model.catalog.n_layers - 1}.resid_post"
    what = f"fetch 256 MiB from the last layer's rank, {word}, over one copy of it in memory"
    model.clear_recordings()
    with Worker("bare") as bare:
        return large(model, bare, what, 256 << 20, point)


def _row(what: str, times: dict[str, Times]) -> Row:
    ratio = times["with"].median / times["without"].median
    return at_most(what, ratio, 1.10, f"{ratio:.3f}: {times['with']} over {times['without']}")
