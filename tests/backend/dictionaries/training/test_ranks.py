"""Over two ranks, each with half of the latents, the same dictionary is learnt as by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from garcon_backend.dictionaries.training import Trainer
from garcon_backend.distributed.collectives import Ranks
from tests.backend.dictionaries.training.planted import DIRECTIONS, D, directions, settings, stream
from tests.backend.ranks import run_on_ranks

pytestmark = pytest.mark.processes
STEPS = 8
KINDS: dict[str, dict[str, Any]] = {
    "topk": {"dead_after": 512},
    "matryoshka": {"widths": (40, DIRECTIONS)},
    "jumprelu": {},
    "standard": {},
    "gated": {},
    "cross-layer": {
        "width": DIRECTIONS // 2,
        "several": (
            ("layers.0.mlp.in", "layers.0.mlp.out"),
            ("layers.1.mlp.in", "layers.1.mlp.out"),
        ),
    },
}


def learnt(ranks: Ranks, kind: str) -> dict[str, torch.Tensor]:
    """What this rank holds after some steps, in which half of the latents of topk are dead."""
    trainer = Trainer(settings(kind, buffer_bytes=1, **KINDS[kind]), D, D, ranks)
    for rows in stream(STEPS, directions()):
        if trainer.weights is not None and kind == "topk" and trainer.steps < 4:
            trainer.weights.encoder_bias[::2] = -9.0
        trainer.take(rows, *([rows.roll(1, 1)] if kind == "cross-layer" else []))
    extra = torch.tensor([trainer.curve.points[-1].l0, trainer.curve.points[-1].unexplained])
    dead = torch.tensor([float(trainer.curve.points[-1].dead)])
    return {**trainer.folded(), "told": extra, "dead": dead}


def on_rank() -> dict[str, dict[str, list[float]]]:
    dist.init_process_group("gloo")
    ranks = Ranks(dist.group.WORLD)
    return {
        kind: {name: value.tolist() for name, value in learnt(ranks, kind).items()}
        for kind in KINDS
    }


def test_two_ranks_learn_what_one_learns() -> None:
    parts = run_on_ranks(2, on_rank)
    for kind in KINDS:
        alone = learnt(Ranks(), kind)
        assert kind != "topk" or float(alone["dead"]) > 0
        for name, value in alone.items():
            mine = [torch.tensor(part[kind][name]) for part in parts]
            if name in ("output_bias", "told", "dead"):
                assert torch.equal(mine[0], mine[1])
                joined = mine[0]
            else:
                joined = torch.cat(mine)
            torch.testing.assert_close(joined, value, atol=2e-3, rtol=2e-3, msg=f"{kind} {name}")
