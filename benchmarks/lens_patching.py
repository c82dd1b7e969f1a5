"""Sweeps of activation patching and attribution beside TransformerLens' own functions for them.

By CPU time of one thread each. TransformerLens runs a forward for each cell, of which it is given every fifteenth; what these take
counts for all. Their numbers must be those of the sweep.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

import garcon_jupyter as garcon
from benchmarks.attribution import cpu
from benchmarks.harness import Differs, Row, Side, interleaved, told
from benchmarks.patching import ANSWERS, CLEAN, CORRUPTED, EVERY
from benchmarks.peers import Worker, python_of_peers
from benchmarks.servers import smollm2
from garcon_backend.in_process import open_here
from garcon_jupyter import experiments

QUICKER = 5.0
"""So many times as quick as TransformerLens sweeps shall be."""


def rows(folder: Path) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = garcon.connect(open_here(smollm2(), name="bench-lens-patching"))
    ids = torch.cat([model.encode(text).ids for text in (CLEAN, CORRUPTED)])
    answers = [int(model.encode(answer).ids[0, 0]) for answer in ANSWERS]
    try:
        with Worker("lens_patching", python_of_peers()) as lens:
            lens.do("load", str(smollm2()))
            for kind, points, by, cells in (
                ("resid_pre", "layers.*.resid_pre", "position", 14),
                ("z", "layers.*.attn.z", "head", 9),
            ):
                every = [(layer, number) for layer in range(30) for number in range(cells)]
                drawn = every[EVERY // 2 :: EVERY]

                def swept(_: Any, points: str = points, by: str = by) -> Any:
                    texts = (CLEAN, CORRUPTED, points, ("layer", by), ANSWERS)
                    return experiments.patch(model, *texts, progress=False).more["metric"]

                theirs = _given(lens, "sweep", ids, answers, kind, drawn)
                yield _sweep(swept, theirs, points, by, every, drawn)
            yield _attribution(model, _given(lens, "attribute", ids, answers))
    finally:
        torch.set_num_threads(threads)
        model.close()


def _given(lens: Worker, job: str, ids: Any, *arguments: Any) -> Side:
    return lambda _: lens.do(job, ids.numpy(), *arguments)


def _sweep(swept: Any, theirs: Side, points: str, by: str, every: Any, drawn: Any) -> Row:
    def agree(results: Mapping[str, Any]) -> None:
        mine = torch.stack([results["sweep"][cell] for cell in drawn])
        apart = float((mine - torch.as_tensor(results["lens"])).abs().max())
        if not apart < 1e-3:
            raise Differs(f"a cell of {points} is off by {apart:.1e}")

    sides = {"sweep": cpu(swept), "lens": theirs}
    times = interleaved(sides, lambda: None, 3, agree, warm=1)
    mine, of_all = times["sweep"].median, times["lens"].median * len(every) / len(drawn)
    return Row(
        f"patching: {len(every)} cells of `{points}` by layer and {by}, 14 tokens, beside TransformerLens 4.3 (CPU time)",
        f"{told(mine)}; {of_all / mine:.1f} × as quick as its own sweep, {told(of_all)}",
        f"≥ {QUICKER:g} × as quick",
        of_all / mine >= QUICKER,
        QUICKER * mine / of_all,
    )


def _attribution(model: Any, theirs: Side) -> Row:
    def attributed(_: Any) -> Any:
        return experiments.attribute(model, CLEAN, CORRUPTED, answers=ANSWERS).values

    times = interleaved({"mine": cpu(attributed), "lens": theirs}, lambda: None, 3, warm=1)
    return Row(
        "attribution of the 270 heads of SmolLM2 by gradients, beside TransformerLens 4.3's of all heads and MLPs (CPU time)",
        f"{times['mine']}, and {times['lens']}",
    )
