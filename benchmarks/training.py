"""What recording a training costs, beside the same training step without it: the seed's model, CPU time, one thread.

Three layers, 200 wide, four heads, 28,000 words, batches of 20 × 35, SGD with clipping. All sides take turns on one model each, on the same batches.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import peers
from benchmarks.harness import Differs, Row, interleaved, told
from garcon_jupyter import training

WORDS, WIDE, PLACES, ROWS, HEADS = 28_000, 200, 35, 20, 4


class Layer(nn.Module):
    """A post-norm layer with its products as modules."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDE, 3 * WIDE), nn.Linear(WIDE, WIDE)
        self.linear1, self.linear2 = nn.Linear(WIDE, WIDE), nn.Linear(WIDE, WIDE)
        self.norm1, self.norm2 = nn.LayerNorm(WIDE), nn.LayerNorm(WIDE)

    def forward(self, x: Tensor) -> Tensor:
        b, p, _ = x.shape
        q, k, v = self.qkv(x).view(b, p, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.norm1(x + self.out(z.transpose(1, 2).reshape(b, p, WIDE)))
        return self.norm2(x + self.linear2(self.linear1(x).relu()))


class Model(nn.Module):
    """The seed's model: 12.2 million parameters, without dropout, so that all sides compute the same."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDE)
        self.layers = nn.Sequential(*[Layer() for _ in range(3)])
        self.head = nn.Linear(WIDE, WORDS)
        angles = torch.arange(PLACES)[:, None] / 10_000 ** (torch.arange(0, WIDE, 2) / WIDE)
        self.register_buffer("places", torch.stack([angles.sin(), angles.cos()], 2).flatten(1))
        for each in self.parameters():
            if each.dim() > 1:
                nn.init.uniform_(each, -0.1, 0.1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.table(ids) * WIDE**0.5 + self.places))


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean cross entropy of the next words, for ids [rows, places + 1]."""
    return functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def fresh_batches() -> Callable[[], Tensor]:
    """Batches of words that are as rare as words are: the n-th has weight 1 / n."""
    made = torch.Generator().manual_seed(0)
    weights = 1 / torch.arange(1, WORDS + 1, dtype=torch.float64)
    return lambda: torch.multinomial(weights, ROWS * (PLACES + 1), True, generator=made).view(
        ROWS, -1
    )


def stepping(record: Any, model: nn.Module) -> Callable[[Tensor], tuple[float, Any]]:
    """A training step; CPU seconds."""
    optimizer, count = torch.optim.SGD(model.parameters(), lr=1.0), iter(range(0, 1 << 40, ROWS))

    def step(ids: Tensor) -> tuple[float, Any]:
        start = time.process_time()
        loss_of(model, ids).backward()
        if record is not None:
            first = next(count)
            record.data(range(first, first + ROWS))
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start, None

    return step


KINDS: dict[str, tuple[dict[str, Any], float]] = {
    "factors and norms of all parameters": ({"k": 0}, 1.15),
    "the exact 1,000 largest of 720,000 weights": ({"norms": False}, 2.0),
    "the exact 1,000 largest of all matrices, (un)embedding too": (
        {"norms": False, "units": ["*weight"]},
        2.0,
    ),
    "both, as by default": ({}, 2.0),
}
"""What is recorded, and how many times a step without it may take."""


def rows(folder: Path) -> Iterator[Row]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with contextlib.ExitStack() as stack:
        sides = {"without": stepping(None, Model())}
        for number, (what, (options, _)) in enumerate(KINDS.items()):
            model = Model()
            record = training.record(model, folder / f"training-{number}", **options)
            sides[what] = stepping(stack.enter_context(record), model)
        times = interleaved(sides, fresh_batches(), rounds=12, seconds=240)
    plain = times["without"].median
    for what, (_, target) in KINDS.items():
        ratio = times[what].median / plain
        yield Row(
            f"a training step with {what} recorded",
            f"{ratio:.2f} × ({told(times[what].median)} of CPU time, {told(plain)} without)",
            f"≤ {target} ×",
            ratio <= target,
            ratio / target,
        )
    yield from _all_gradients(folder)


def _all_gradients(folder: Path) -> Iterator[Row]:
    """All gradients of all data, held at once: 0.9 GB."""
    torch.manual_seed(0)
    model, plain = Model(), Model()
    plain.load_state_dict(model.state_dict())

    def rows_alone(ids: Tensor) -> tuple[float, Any]:
        """A pass for each row, of that row alone."""
        start = time.process_time()
        held = []
        for row in ids:
            plain.zero_grad()
            (loss_of(plain, row[None]) / ROWS).backward()
            held.append([each.grad for each in plain.parameters()])
        took = time.process_time() - start
        plain.zero_grad()
        return took, float(held[-1][-1].sum())

    def backwards(ids: Tensor) -> tuple[float, Any]:
        """One forward of the batch, and a backward of each row's loss, as the post has it."""
        start, wanted = time.process_time(), list(plain.parameters())
        logits = plain(ids[:, :-1])
        held = []
        for row in range(ROWS):
            loss = functional.cross_entropy(logits[row], ids[row, 1:]) / ROWS
            held.append(torch.autograd.grad(loss, wanted, retain_graph=True))
        took = time.process_time() - start
        return took, float(held[-1][-1].sum())

    with (
        training.record(model, folder / "all", k=0, norms=False) as record,
        peers.Worker("opacus_gradients", peers.python_of_peers()) as opacus,
    ):

        def ours(ids: Tensor) -> tuple[float, Any]:
            start = time.process_time()
            loss_of(model, ids).backward()
            batch = record.data(range(ROWS))
            held = [batch.gradient(name) for name in batch.parameters]
            took = time.process_time() - start
            record.forget()
            model.zero_grad()
            return took, float(held[-1][-1].sum())

        opacus.do("load", {name: each.numpy() for name, each in model.state_dict().items()})
        sides = {"ours": ours, "backwards": backwards, "rows": rows_alone}
        sides["opacus"] = opacus.side("gradients")
        times = interleaved(sides, fresh_batches(), rounds=8, agree=_agree, seconds=180)
    one, ours_, other, alone = (
        times[name].median for name in ("backwards", "ours", "opacus", "rows")
    )
    yield Row(
        "the gradients of 20 data, of every parameter, against 20 backwards (CPU time)",
        f"{one / ours_:.1f} × quicker ({told(ours_)}, {told(one)})",
        "≥ 3 ×",
        one / ours_ >= 3,
        3 * ours_ / one,
    )
    yield Row(
        "the same, against opacus 1.6",
        f"{other / ours_:.2f} × quicker ({told(ours_)}, {told(other)})",
        "≥ 1 ×",
        other >= ours_,
        ours_ / other,
    )
    yield Row(
        "the same, against 20 passes of a row each, which the words of the vocabulary make cheap",
        f"{alone / ours_:.1f} × quicker ({told(ours_)}, {told(alone)})",
    )


def _agree(results: Any) -> None:
    one, *others = results.values()
    if any(abs(each - one) > 1e-5 + 1e-3 * abs(one) for each in others):
        raise Differs(f"{results}")
