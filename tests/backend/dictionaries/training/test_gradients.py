"""Gradients that are written out are those of the plain formula, by autograd in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_backend.dictionaries.training import choosing, gradients
from garcon_backend.dictionaries.training.dead import add_auxiliary
from garcon_backend.dictionaries.training.gated import as_thresholds, of_gated
from garcon_backend.dictionaries.training.weights import TrainedWeights
from garcon_backend.distributed.collectives import Ranks

D, OUT, F, N, K = 10, 7, 30, 23, 4
ENDS = (5, 12, F)
PENALTY = 0.7


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a batch is several."""
    monkeypatch.setattr(choosing, "TILE", 5 * F)


def drawn(threshold: bool = False) -> tuple[TrainedWeights, Tensor, Tensor]:
    torch.manual_seed(5)
    x, target = torch.randn(N, D, dtype=torch.float64), torch.randn(N, OUT, dtype=torch.float64)
    decoder = torch.nn.functional.normalize(torch.randn(F, OUT, dtype=torch.float64), dim=1)
    weights = TrainedWeights(
        torch.randn(F, D, dtype=torch.float64) / 3,
        torch.randn(F, dtype=torch.float64) / 5,
        decoder,
        torch.randn(OUT, dtype=torch.float64),
        0.2 + torch.rand(F, dtype=torch.float64) if threshold else None,
    )
    return weights, x, target


def by_autograd(
    weights: TrainedWeights, loss: Callable[[TrainedWeights], Tensor]
) -> dict[str, Tensor]:
    """The gradient of a plain formula, and its value as "loss"."""
    leaves = {n: v.clone().requires_grad_() for n, v in weights.tensors().items()}
    value = loss(TrainedWeights(**leaves))
    value.backward()
    return {"loss": value.detach()} | {n: v.grad for n, v in leaves.items()}


def check(found: gradients.LossGradient, wanted: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found.loss, wanted["loss"])
    for name, value in found.gradient.tensors().items():
        torch.testing.assert_close(value, wanted[name], msg=lambda m, n=name: f"{n}: {m}")


def dense(kind: str, x: Tensor) -> Callable[[TrainedWeights], Tensor]:
    """All latents as a dense matrix, by the definition of a kind."""

    def latents(w: TrainedWeights) -> Tensor:
        pre = x @ w.encoder.T + w.encoder_bias
        if kind == "topk":
            kept = torch.zeros_like(pre).scatter(1, pre.topk(K, dim=1).indices, 1)
        else:
            kept = torch.zeros(N * F, dtype=pre.dtype)
            kept[pre.flatten().topk(N * K).indices] = 1
            kept = kept.view(N, F)
        return pre.relu() * kept

    return latents


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka"])
def test_of_what_competes(kind: str) -> None:
    weights, x, target = drawn()
    choose = choosing.largest if kind == "topk" else choosing.largest_of_batch
    chosen = choose(x, weights, K, Ranks())
    ends = ENDS if kind == "matryoshka" else (F,)
    found = gradients.of_chosen(weights, x, target, chosen, Ranks(), ends)

    def loss(w: TrainedWeights) -> Tensor:
        f = dense(kind, x)(w)
        parts = [f[:, :end] @ w.decoder[:end] + w.output_bias - target for end in ends]
        return torch.stack([part.square().sum(1).mean() for part in parts]).mean()

    check(found, by_autograd(weights, loss))
    torch.testing.assert_close(found.passed, (dense(kind, x)(weights) > 0).sum(0).double())


class Jump(torch.autograd.Function):
    """x·[x > θ] and [x > θ] with the slope of Rajamanoharan et al. (2024), equations 11 and 12."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, theta)
        on = (x > theta).to(x.dtype)
        return x * on, on

    @staticmethod
    def backward(ctx: Any, by_value: Tensor, by_on: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, theta = ctx.saved_tensors
        e = gradients.BANDWIDTH
        kernel = (((x - theta) / e).abs() < 0.5).to(x.dtype)
        by_theta = -(theta / e) * kernel * by_value - kernel / e * by_on
        return by_value * (x > theta), by_theta.sum(0)


@pytest.mark.parametrize("kind", ["jumprelu", "standard"])
def test_of_what_does_not_compete(kind: str) -> None:
    weights, x, target = drawn(kind == "jumprelu")
    found = gradients.of_all(weights, x, target, Ranks(), PENALTY, K)

    def loss(w: TrainedWeights) -> Tensor:
        pre = x @ w.encoder.T + w.encoder_bias
        if w.threshold is None:
            f, penalty = pre.relu(), pre.relu().sum() / N
        else:
            f, on = Jump.apply(pre, w.threshold)
            penalty = (on.sum() / N / K - 1) ** 2
        error = f @ w.decoder + w.output_bias - target
        return error.square().sum(1).mean() + PENALTY * penalty

    wanted = by_autograd(weights, loss)
    assert kind == "standard" or wanted["threshold"].count_nonzero() > 3
    check(found, wanted)


def gated() -> tuple[TrainedWeights, Tensor]:
    """An autoencoder with gates that say other than the magnitudes, and what it reads."""
    weights, _, target = drawn()
    weights.encoder = torch.randn(F, OUT, dtype=torch.float64) / 2
    weights.gate_bias = torch.randn(F, dtype=torch.float64) / 3
    weights.gate_scale = torch.randn(F, dtype=torch.float64) / 3
    return weights, target


def of_the_paper(w: TrainedWeights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents, and what the gates read: equations 5 to 7 of Rajamanoharan et al. (2024)."""
    assert w.gate_bias is not None and w.gate_scale is not None
    read = (x - w.output_bias) @ w.encoder.T
    gate = read + w.gate_bias
    magnitude = (read * w.gate_scale.exp() + w.encoder_bias).relu()
    return (gate > 0).to(x.dtype) * magnitude, gate


def test_of_gates() -> None:
    """Equation 8: the frozen copy of the decoder is that of the auxiliary loss alone."""
    weights, x = gated()
    found = of_gated(weights, x - weights.output_bias, x, Ranks(), PENALTY)
    latents, gate = of_the_paper(weights, x)
    assert ((gate > 0) != (latents > 0)).any()  # open, and nothing to say
    torch.testing.assert_close(found.passed, (latents > 0).sum(0).double())
    gradients.through_encoder(found.gradient, weights, Ranks())

    def loss(w: TrainedWeights, frozen: bool = True) -> Tensor:
        latents, gate = of_the_paper(w, x)
        error = latents @ w.decoder + w.output_bias - x
        decoder, bias = (
            (w.decoder.detach(), w.output_bias.detach()) if frozen else (w.decoder, w.output_bias)
        )
        other = gate.relu() @ decoder + bias - x
        penalty = PENALTY * gate.relu().sum() / N
        return error.square().sum(1).mean() + penalty + other.square().sum(1).mean()

    check(found, by_autograd(weights, loss))
    with pytest.raises(AssertionError, match="decoder"):
        check(found, by_autograd(weights, lambda w: loss(w, frozen=False)))
    # As a dictionary with thresholds it has the same latents.
    made, threshold = as_thresholds(weights)
    chosen = choosing.above(x - weights.output_bias, made, threshold)
    dense = torch.zeros_like(latents)
    dense[chosen.rows, chosen.latents] = chosen.values
    torch.testing.assert_close(dense, latents)


def test_dead_latents_of_gates_are_moved_by_their_gates() -> None:
    weights, x = gated()
    dead = torch.tensor([2, 3, 11])
    z, error = x - weights.output_bias, torch.randn_like(x)
    gradient = TrainedWeights.zeros_like(weights)
    value = add_auxiliary(gradient, weights, z, error, dead, len(dead), 0.5, Ranks())

    def loss(w: TrainedWeights) -> Tensor:
        assert w.gate_bias is not None
        on = (z @ w.encoder.T + w.gate_bias)[:, dead].relu()
        return 0.5 * (error - on @ w.decoder[dead]).square().sum(1).mean()

    wanted = by_autograd(
        weights, lambda w: loss(w) + 0 * sum(v.sum() for v in w.tensors().values())
    )
    check(gradients.LossGradient(value, error, gradient, torch.zeros(F)), wanted)
    assert gradient.gate_bias is not None and gradient.gate_bias.any()
    assert not gradient.encoder_bias.any()


def test_of_dead_latents_and_of_the_bias_that_is_subtracted() -> None:
    weights, _, target = drawn()
    weights = TrainedWeights(
        torch.randn(F, OUT, dtype=torch.float64),
        weights.encoder_bias,
        weights.decoder,
        weights.output_bias,
    )
    dead = torch.tensor([1, 4, 9, 20, 29])
    z = target - weights.output_bias
    found = gradients.of_chosen(
        weights, z, target, choosing.largest(z, weights, K, Ranks()), Ranks()
    )
    found.loss = found.loss + add_auxiliary(
        found.gradient, weights, z, found.error, dead, len(dead), 0.5, Ranks()
    )
    gradients.through_encoder(found.gradient, weights, Ranks())

    def loss(w: TrainedWeights) -> Tensor:
        read = target - w.output_bias
        pre = read @ w.encoder.T + w.encoder_bias
        f = pre.relu() * torch.zeros_like(pre).scatter(1, pre.topk(K, dim=1).indices, 1)
        error = target - f @ w.decoder - w.output_bias
        of_dead = pre[:, dead].relu()
        three = of_dead * torch.zeros_like(of_dead).scatter(1, of_dead.topk(3, dim=1).indices, 1)
        left = error.detach() - three @ w.decoder[dead]
        return error.square().sum(1).mean() + 0.5 * left.square().sum(1).mean()

    check(found, by_autograd(weights, loss))
    found.gradient.output_bias = found.error.sum(0) * (-2 / N)  # without what comes by the encoder
    with pytest.raises(AssertionError, match="output_bias"):
        check(found, by_autograd(weights, loss))


def test_equal_values_are_as_many_as_asked_for() -> None:
    weights, x, _ = drawn()
    weights.encoder.zero_()
    weights.encoder_bias.fill_(1.0)
    assert len(choosing.largest(x, weights, K, Ranks()).values) == K * N
    assert len(choosing.largest_of_batch(x, weights, K, Ranks()).values) == K * N
