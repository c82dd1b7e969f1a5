"""Degrees where nobody said: one process on CPU, the fewest devices that hold the model on GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.model_files.weights import total_bytes, weight_files
from garcon_jupyter.servers import placement
from garcon_jupyter.servers.settings import Settings


def on_gpus(monkeypatch: pytest.MonkeyPatch, count: int, size: int) -> None:
    monkeypatch.setattr(placement, "_gpu_bytes", lambda: (size,) * count)


def test_one_process_on_cpu(llama_path: Path) -> None:
    plan = placement.plan(Settings(str(llama_path), device="cpu"))
    assert plan == placement.Placement("cpu", {"tp": 1, "pp": 1, "dp": 1})


@pytest.mark.processes
def test_as_few_gpus_as_hold_it(llama_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = total_bytes(weight_files(llama_path))
    on_gpus(monkeypatch, 4, 4 * weights)
    assert placement.plan(Settings(str(llama_path))).degrees == {"tp": 1, "pp": 1, "dp": 1}
    on_gpus(monkeypatch, 4, int(0.9 * weights))  # 80 % of it are for weights, which need 10 % more
    plan = placement.plan(Settings(str(llama_path)))
    assert (plan.device, plan.degrees) == ("cuda", {"tp": 2, "pp": 1, "dp": 1})


def test_what_was_asked_for_is_taken(llama_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(monkeypatch, 4, 1)
    degrees = placement.plan(Settings(str(llama_path), tp=2, dp=2)).degrees
    assert degrees == {"tp": 2, "pp": 1, "dp": 2}


@pytest.mark.processes
def test_a_model_that_no_gpus_hold(llama_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpus(monkeypatch, 2, 1000)
    with pytest.raises(DoesNotFit, match="The model needs"):
        placement.plan(Settings(str(llama_path)))
