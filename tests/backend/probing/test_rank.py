"""Probing needs no server: a pass with probes runs on a plain model, in a plain process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from garcon_backend.probing.probed_pass import ProbedPass
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import LoadedProbe, PassFailed
from garcon_backend.process.user_code import UserFailure
from garcon_jupyter.wire.requests import Code, ProbeSpec

POINT = "layers.1.mlp.post_activation"
IDS = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])


@pytest.fixture
def rank() -> Rank:
    """A model as transformers makes it, with weights drawn at random."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return Rank.around(LlamaForCausalLM(config).eval().requires_grad_(False))


def probe(rank: Rank, function: Callable[[Any, Tensor], Any], grad: bool = False) -> LoadedProbe:
    spec = ProbeSpec(POINT, Code(b"", "", "function"), grad=grad)
    return LoadedProbe(spec, rank.bound.catalog.point(POINT), function)


def opened(rank: Rank, *probes: LoadedProbe, grad: bool = False) -> ProbedPass:
    run = ProbedPass(rank, "mine", rows=len(IDS), grad=grad)
    run.add(probes)
    return run


def logits(rank: Rank, run: ProbedPass) -> Tensor:
    with run.installed():
        run.begin(IDS, None, None, 0, tuple(IDS.shape))
        return rank.model(IDS).logits


def by_hook(rank: Rank, change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(what stands at the point, the logits), by a plain hook of torch."""
    seen: list[Tensor] = []

    def hook(module: Any, args: tuple[Tensor]) -> tuple[Tensor]:
        seen.append(args[0])
        return (change(args[0]),)

    handle = rank.model.model.layers[1].mlp.down_proj.register_forward_pre_hook(hook)
    try:
        found = rank.model(IDS).logits
    finally:
        handle.remove()
    return seen[0], found


@torch.no_grad()
def test_a_probe_saves_and_edits(rank: Rank) -> None:
    def function(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.kept = tensor
        save_ctx.layer = save_ctx.here.layer
        tensor[:, 0] = 0

    def same(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, 0] = 0
        return value

    found = logits(rank, opened(rank, probe(rank, function)))
    value, expected = by_hook(rank, same)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, rank.model(IDS).logits, atol=1e-4)
    [(key, saved)] = rank.contexts.snapshot("mine", 1).items()
    assert key == (POINT, None) and saved.values["layer"] == 1
    assert torch.allclose(saved.values["kept"], value, atol=1e-6)


def test_a_probe_sees_the_gradient(rank: Rank) -> None:
    seen: list[Tensor] = []
    run = opened(
        rank,
        probe(rank, lambda save_ctx, tensor: seen.append(tensor.clone()), grad=True),
        grad=True,
    )
    run.agree_on_joint()
    logits(rank, run).square().sum().backward()
    leaf: list[Tensor] = []
    _, expected = by_hook(
        rank, lambda value: leaf.append(value.detach().requires_grad_()) or leaf[0]
    )  # type: ignore[func-returns-value]
    expected.square().sum().backward()
    assert len(seen) == 1 and leaf[0].grad is not None
    assert torch.allclose(seen[0], leaf[0].grad, atol=1e-6)
    run.close()


@torch.no_grad()
def test_an_error_of_a_probe_is_kept_with_its_place(rank: Rank) -> None:
    def function(save_ctx: Any, tensor: Tensor) -> None:
        raise ZeroDivisionError("mine")

    run = opened(rank, probe(rank, function))
    clean = rank.model(IDS).logits
    with pytest.raises(PassFailed):
        logits(rank, run)
    assert isinstance(run.failure, UserFailure) and isinstance(run.failure.error, ZeroDivisionError)
    assert run.failure.where.startswith(f"{POINT} [2, 4, 24] float32")
    assert torch.equal(rank.model(IDS).logits, clean)


@pytest.mark.processes
def test_probing_knows_no_server() -> None:
    script = """
import sys
import garcon_backend.probing.probed_pass
rooms = {name.split(".")[1] for name in sys.modules if name.startswith("garcon_backend.")}
print(*sorted(rooms))
"""
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    rooms = set(found.stdout.split())
    assert "probing" in rooms and not rooms & {"kernel", "lockstep", "runs", "execution"}
