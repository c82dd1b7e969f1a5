"""A Jacobian lens beside the bare backwards: CPU time of one process with one thread, model and client in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import garcon_jupyter as garcon
from benchmarks.attribution import cpu
from benchmarks.harness import Differs, Row, interleaved
from benchmarks.servers import smollm2
from garcon_backend.in_process import open_here
from garcon_jupyter import experiments

MOST = 1.1
"""So many times the bare backwards a text may cost."""

LENGTH, SKIP, COPIES = 8, 1, 8


def rows(folder: Path, rounds: int = 2) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = open_here(smollm2(), name="bench-lenses")
    model, plain = garcon.connect(here), _plain()
    drawn = torch.Generator().manual_seed(3)
    try:

        def fitted(text: Any) -> Any:
            lens = experiments.fit_jacobian_lens(
                model, text, skip=SKIP, tokens=COPIES * LENGTH, progress=False
            )
            return torch.stack([*lens.jacobians.values()])

        def bare(text: Any) -> Any:
            return bare_backwards(plain, text)

        times = interleaved(
            {"lens": cpu(fitted), "bare": cpu(bare)},
            lambda: torch.randint(100, 40_000, (1, LENGTH), generator=drawn),
            rounds=rounds,
            agree=_agree,
            warm=0,
        )
    finally:
        torch.set_num_threads(threads)
        model.close()
    ratio = times["lens"].median / times["bare"].median
    yield Row(
        f"a Jacobian lens of all layers of SmolLM2, a text of {LENGTH} tokens, over one forward and the bare backwards (CPU time)",
        f"{ratio:.2f}: {times['lens']} over {times['bare']}",
        f"≤ {MOST:g}",
        ratio <= MOST,
        ratio / MOST,
    )


def bare_backwards(plain: Any, text: Tensor) -> Tensor:
    """One forward of copies, and a backward for each batch of dimensions; the matrices of all layers but the last."""
    layers, caught = plain.model.layers, list[Tensor]()

    def begin(module: Any, args: Any, out: Tensor) -> Tensor:
        caught.append(out.requires_grad_())
        return out

    hooks = [layers[0].register_forward_hook(begin)]
    hooks += [
        layer.register_forward_hook(lambda _, __, out: caught.append(out)) for layer in layers[1:]
    ]
    try:
        plain(text.expand(COPIES, -1), use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    *sources, target = caught
    width, counted = target.shape[-1], slice(SKIP, LENGTH - 1)
    found = torch.empty(len(sources), width, width)
    for start in range(0, width, COPIES):
        seed = torch.zeros_like(target)
        for copy in range(COPIES):
            seed[copy, counted, start + copy] = 1
        gradients = torch.autograd.grad(target, sources, seed, retain_graph=start + COPIES < width)
        for number, gradient in enumerate(gradients):
            found[number, start : start + COPIES] = gradient[:, counted].mean(1)
    return found


def _plain() -> Any:
    from transformers import AutoModelForCausalLM

    plain: Any = AutoModelForCausalLM.from_pretrained(smollm2(), dtype=torch.float32)
    return plain.eval().requires_grad_(False)


def _agree(results: Mapping[str, Any]) -> None:
    apart = (results["lens"] - results["bare"]).abs().max() / results["bare"].abs().max()
    if apart > 1e-4:
        raise Differs(f"the lens and the bare backwards differ by {float(apart):.2g}")
