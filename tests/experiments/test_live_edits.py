"""Edits against plain hooks, and answers while a cell is busy."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest
from garcon_jupyter.experiments.live_edits import Bench
from garcon_jupyter.widgets import Edit
from tests.experiments.conftest import TEXT
from tests.oracle import Plain

MLP = "layers.1.mlp.out"


@pytest.mark.parametrize("kind", ["ablate", "scale", "add"])
@pytest.mark.parametrize("unit", [-1, 3])
def test_an_edit_is_the_plain_edit(
    rmodel: garcon.RemoteModel, plain: Plain, ids: Tensor, kind: str, unit: int
) -> None:
    direction = torch.randn(48, generator=torch.manual_seed(0))
    bench = Bench(rmodel, [MLP], {"d": direction})
    edit = Edit(MLP, kind, 0.25, unit, "d" if kind == "add" and unit < 0 else "")  # type: ignore[arg-type]

    def by_hand(out: Tensor) -> Tensor:
        changed = out.clone()
        part = changed if unit < 0 else changed[..., unit]
        if kind == "ablate":
            part *= 0.75
        elif kind == "scale":
            part *= 0.25
        else:
            part += 0.25 * direction if unit < 0 else 0.25
        return changed

    before = plain.logits(ids)[0, -1].softmax(-1)
    with plain.hooked("model.layers.1.mlp", by_hand):
        after = plain.logits(ids)[0, -1].softmax(-1)
    outcome = bench.outcome(TEXT, [edit])
    best = after.topk(8).indices.tolist()
    for (_, now, was), token in zip(outcome.predictions, best, strict=False):
        assert now == pytest.approx(float(after[token]), abs=1e-5)
        assert was == pytest.approx(float(before[token]), abs=1e-5)
    out = plain.output("model.layers.1.mlp", ids)[0]
    now, was = outcome.activations[MLP]
    assert np.allclose(was, out, atol=1e-4) and np.allclose(now, by_hand(out), atol=1e-4)


def test_edits_see_the_earlier_ones_and_none_is_left(rmodel: garcon.RemoteModel) -> None:
    bench = Bench(rmodel, [MLP])
    twice = bench.outcome(TEXT, [Edit(MLP, "scale", 2.0), Edit(MLP, "scale", 3.0)])
    now, was = twice.activations[MLP]
    assert np.allclose(now, 6 * was, atol=1e-3)
    assert len(rmodel.recordings()) == 0 and not rmodel.attached


def test_mistakes_are_shown(rmodel: garcon.RemoteModel) -> None:
    widget = rmodel.live(TEXT, [MLP], [Edit(MLP, unit=48)])
    assert widget.worker.wait() and "has no unit 48" in widget.trouble
    widget.edits = [{**widget.edits[0], "kind": "add", "unit": -1, "direction": "up"}]
    assert widget.worker.wait() and "no direction 'up'" in widget.trouble
    widget.edits = []
    assert widget.worker.wait() and widget.trouble == "" and widget.predictions
    with pytest.raises(BadRequest, match="no value for each token"):
        rmodel.live(TEXT, ["layers.0.attn.pattern"])


def test_a_callback_returns_at_once_while_a_cell_waits_for_the_server(
    rmodel: garcon.RemoteModel,
) -> None:
    """From the main thread and from another (a subshell's): neither waits, both are answered."""
    widget = rmodel.live(TEXT, [MLP])
    done = threading.Event()

    def cell() -> None:
        for _ in range(20):
            rmodel.forward(TEXT, probes=[], logits="none")
        done.set()

    busy = threading.Thread(target=cell)
    busy.start()
    widget.text = "From here"
    assert not done.is_set()
    other = threading.Thread(target=lambda: setattr(widget, "text", "From there"))
    other.start()
    other.join(5)
    assert not other.is_alive()
    busy.join(60)
    assert widget.worker.wait(60) and widget.trouble == ""
    assert "".join(widget.pieces[-5:]).endswith("there")
