"""Reading a real model: thirty points beside plain hooks, and every point beside TransformerLens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Row, at_most, close, interleaved, local, told
from benchmarks.peers import Worker, python_of_peers
from benchmarks.servers import every_layer, recorded, save, served, smollm2

VOCABULARY = 49152


def rows(folder: Path) -> Iterator[Row]:
    path = smollm2()
    with served(path, "bench-smollm2") as model:
        yield from _neurons(model, path)
        yield from _every_point(model, path)


def _neurons(model: Any, path: Path) -> Iterator[Row]:
    probes = every_layer(model)
    with Worker("bare") as bare:
        bare.do("load", str(path))

        def agree(results: Mapping[str, Any]) -> None:
            close(results["garcon"], results["hooks"], "logits")

        times = interleaved(
            {
                "hooks": bare.side("reads"),
                "garcon": local(
                    lambda ids: model.forward(ids, probes=probes, logits=lambda all: all[:, -1])
                ),
            },
            lambda: torch.randint(3, VOCABULARY, (4, 64)),
            rounds=60,
            agree=agree,
        )
        for mine, theirs in zip(recorded(model), bare.do("read_back")[1], strict=True):
            close(mine, theirs, "reads")
    ratio = times["garcon"].median / times["hooks"].median
    yield at_most(
        "30 `post_activation` reads, SmolLM2, batch 4×64, over raw hooks in process",
        ratio,
        1.03,
        f"{ratio:.3f}: {times['garcon']} over {times['hooks']}",
    )


def _every_point(model: Any, path: Path) -> Iterator[Row]:
    probes = [
        probe
        for name in model.probe_points
        if ".head_out" not in name
        for probe in model.probe_points[name].probes(save, read_only=True)
    ]
    model.clear_recordings()
    with Worker("lens_cache", python_of_peers()) as lens:
        lens.do("load", str(path))

        def agree(results: Mapping[str, Any]) -> None:
            close(results["garcon"], results["lens"][0], "logits of TransformerLens", 1e-3)

        times = interleaved(
            {
                "lens": lens.side("cache"),
                "garcon": local(
                    lambda ids: model.forward(ids, probes=probes, logits=lambda all: all[:, -1])
                ),
            },
            lambda: torch.randint(3, VOCABULARY, (1, 32)),
            rounds=5,
            agree=agree,
            warm=1,
        )
        _, (_, tensors, size) = lens.do("cache", torch.randint(3, VOCABULARY, (1, 32)).numpy())
    saved = model.recordings(fetch=False)
    mine = sum(entry.handle("value").nbytes or 0 for entry in saved.values())
    model.clear_recordings()
    yield Row(
        "every point of every layer, SmolLM2, 1×32, beside `run_with_cache`",
        f"{times['garcon'].median / times['lens'].median:.2f}: {len(saved)} points, "
        f"{mine / 1e6:.0f} MB in {told(times['garcon'].median)}; TransformerLens {tensors} tensors, "
        f"{size / 1e6:.0f} MB in {told(times['lens'].median)}",
    )
