"""Latents streamed to an atlas, beside the bare run; and training a dictionary, beside SAELens's own trainer.

The atlas: a dictionary of 16,384 latents at one layer of SmolLM2, of which 32 are on, random but for that. Three ways take turns on the
same batches of 8 × 256 tokens, on one server: the run without probes, the run with a recorder at the latents that keeps nothing, so that
they are computed and no more, and the run with the recorders of an atlas. The second bounds the third. The first rounds, which fill
empty slots, do not count: a run over millions of tokens forgets them.

Training: CPU time of one thread, model and trainer in it.

SmolLM2, its layer 10, 16 times as many latents as dimensions, of which 32 pass: the same tokens, batch, buffer and learning rate, from the
same model of transformers, which either side leaves at that layer. What is left unexplained is measured on rows that neither saw.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import garcon_jupyter as garcon
from benchmarks.atlas import streamed
from benchmarks.harness import Row, interleaved
from benchmarks.peers import SAELENS, Worker, python_of_peers
from benchmarks.servers import served, smollm2
from garcon_backend.dictionaries import load
from garcon_backend.in_process import open_here
from garcon_jupyter import recorders
from garcon_jupyter.atlas import making
from tests.dictionaries.making import saelens

LEAST = 1.5
"""So many times SAELens's tokens per second."""

LAYER, D, WIDTH, K = 10, 576, 16 * 576, 32
LENGTH, BATCH, STEPS = 256, 2048, 12
RATE, BUFFERED = 2.7e-4, 2 * BATCH
TEXTS = Path(__file__).resolve().parent.parent / "docs"


ATLAS_WIDTH, ATLAS_ROWS, ATLAS_ROUNDS, ATLAS_WARM = 16384, 8, 7, 4
OVER_BARE = 0.8
"""Of the tokens per second of the bare run."""


def rows(folder: Path, rounds: int = 2) -> Iterator[Row]:
    yield from _atlas(folder)
    yield from _trained(folder, rounds)


class Nothing(recorders.Recorder[Any]):
    """Keeps nothing: what a run takes with it is that the latents are computed."""

    name = "nothing"
    SPARSE = True

    def take(self, save_ctx: Any, observed: recorders.Seen) -> None:
        """Look, and forget."""


def _atlas(folder: Path) -> Iterator[Row]:
    path = smollm2()
    tokens = itertools.cycle(_tokens(path).split(ATLAS_ROWS)[:-1])
    files = saelens(folder / "wide", D, ATLAS_WIDTH, f"blocks.{LAYER}.hook_resid_post", "topk", k=K)
    with served(path, "bench-latents") as model:
        sae = model.dictionaries.load(files, name="wide")
        wanted = making.Wanted(20, 10, 5, 4, None, False, False, None, ())
        one = making.Making(model, [sae.latents.name], "", wanted)
        sides = {
            "bare": streamed(model, []),
            "latents": streamed(model, [sae.latents.probe(Nothing(), name="nothing")]),
            "atlas": streamed(model, one.probes()),
        }
        times = interleaved(sides, lambda: next(tokens), ATLAS_ROUNDS, warm=ATLAS_WARM, seconds=400)
        kept = model.recordings()[sae.latents.name, making.NAME]
        states = [getattr(kept, name) for name in kept.keys()]  # noqa: SIM118 - not a dictionary
        held = sum(state.nbytes for state in states)
    rates = {name: ATLAS_ROWS * LENGTH / each.median for name, each in times.items()}
    ratio = rates["atlas"] / rates["bare"]
    what = f"all {ATLAS_WIDTH:,} latents of a top-{K} dictionary at layer {LAYER} of SmolLM2"
    yield Row(
        f"{what}, streamed to an atlas: tokens/s over the bare run",
        f"{ratio:.3f}: {rates['atlas']:.0f} over {rates['bare']:.0f}",
        f"≥ {OVER_BARE:g}",
        ratio >= OVER_BARE,
        OVER_BARE / ratio,
    )
    yield Row(
        f"{what}, streamed to an atlas: tokens/s over a run that computes them and keeps nothing",
        f"{rates['atlas'] / rates['latents']:.3f}: {rates['atlas']:.0f} over {rates['latents']:.0f}, which is "
        f"{rates['latents'] / rates['bare']:.3f} of the bare run",
    )
    formula = making.memory(ATLAS_WIDTH, 0)
    yield Row(
        f"{what}: bytes that the recorders keep",
        f"{held / 1e6:.1f} MB; by formula {formula / 1e6:.1f} MB; the latents of a batch are {4e-6 * ATLAS_ROWS * LENGTH * ATLAS_WIDTH:.0f} MB",
        "the formula",
        held == formula,
        held / formula,
    )


def _trained(folder: Path, rounds: int) -> Iterator[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = smollm2()
    model = garcon.connect(open_here(path, name="bench-dictionaries"))
    tokens = _tokens(path)
    each = -(-STEPS * BATCH // (LENGTH - 1))
    starts, outs = itertools.count(8, each), itertools.count()
    asked = {
        "layer": LAYER, "d_in": D, "width": WIDTH, "k": K, "lr": RATE, "batch": BATCH, "buffered": BUFFERED, "normalize": "none",
    }  # fmt: skip
    left: dict[str, list[float]] = {"ours": [], "SAELens": []}
    try:
        with Worker("saelens_training", python_of_peers(SAELENS, "saelens")) as saelens:

            def ours(given: Tensor) -> tuple[float, Any]:
                out, start = folder / f"ours-{next(outs)}", time.process_time()
                model.train_dictionary(
                    f"layers.{LAYER}.resid_post",
                    given,
                    WIDTH,
                    out=out,
                    k=K,
                    lr=RATE,
                    batch=BATCH,
                    buffer=4 * D * BUFFERED,
                    warm_up=0,
                    measured=0,
                    every=3600,
                    show=False,
                )
                return time.process_time() - start, out

            def theirs(given: Tensor) -> tuple[float, Any]:
                out = str(folder / f"theirs-{next(outs)}")
                return saelens.do("train", given.numpy(), str(path), asked, out)

            held_out = _activations(path, tokens[:8])

            def measure(found: Any) -> None:
                for name, out in found.items():
                    left[name].append(_unexplained(out, held_out))

            def fresh() -> Tensor:
                first = next(starts) % (len(tokens) - each)
                return tokens[first : first + each]

            times = interleaved(
                {"ours": ours, "SAELens": theirs}, fresh, rounds, measure, warm=0, seconds=600
            )
    finally:
        torch.set_num_threads(threads)
        model.close()
    yield from _told(times, left)


def _told(times: Any, left: dict[str, list[float]]) -> Iterator[Row]:
    ratio = times["SAELens"].median / times["ours"].median
    rates = {name: STEPS * BATCH / each.median for name, each in times.items()}
    yield Row(
        f"training a top-{K} dictionary of {WIDTH:,} latents at layer {LAYER} of SmolLM2, tokens per second of one thread over SAELens 6.54.12's trainer",
        f"{ratio:.2f}: {rates['ours']:,.0f} over {rates['SAELens']:,.0f}",
        f"≥ {LEAST:g}",
        ratio >= LEAST,
        ratio / LEAST,
    )
    mine, other = (max(left["ours"]), min(left["SAELens"]))
    yield Row(
        f"variance unexplained after the same {STEPS * BATCH:,} tokens, of rows that neither saw",
        f"{mine:.1%} beside {other:.1%}",
        "no more than SAELens leaves",
        mine <= other,
    )


def _tokens(path: Path) -> Tensor:
    """The pages of our documentation as rows of tokens, in an order of a seed."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    ids: list[int] = []
    for page in sorted(TEXTS.rglob("*.md")):
        ids += [*tokenizer(page.read_text(encoding="utf-8"))["input_ids"], tokenizer.eos_token_id]
    whole = torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).view(-1, LENGTH)
    return whole[torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))]


def _activations(path: Path, given: Tensor) -> Tensor:
    """The stream behind the layer, without first tokens, [rows, D]."""
    from transformers import AutoModelForCausalLM

    plain: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        states = plain(given, output_hidden_states=True, use_cache=False).hidden_states
    return states[LAYER + 1][:, 1:].flatten(0, 1)


def _unexplained(folder: Any, values: Tensor) -> float:
    error = values - load(folder).reconstruction(values)
    return float(error.square().sum() / (values - values.mean(0)).square().sum())
