"""All per-datum gradients as opacus gives them, of the same model; CPU time."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from loop import Took, serve

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

held: dict[str, Any] = {}


def load(weights: dict[str, Any]) -> None:
    from opacus import GradSampleModule

    from benchmarks.training import Model

    torch.set_num_threads(1)
    model = Model()
    model.load_state_dict({name: torch.as_tensor(each) for name, each in weights.items()})
    held["model"] = GradSampleModule(model, loss_reduction="mean")


def gradients(ids: Any) -> Any:
    """Of every parameter, [rows, *shape]; as shares of the mean loss."""
    from benchmarks.training import ROWS, loss_of

    model, batch = held["model"], torch.as_tensor(ids)
    start = time.process_time()
    loss_of(model, batch).backward()
    found = [each.grad_sample for each in model.parameters()]
    took = time.process_time() - start
    last = float(found[-1][-1].sum()) / ROWS
    model.zero_grad()
    return Took((took, last))


if __name__ == "__main__":
    serve({"load": load, "gradients": gradients})
