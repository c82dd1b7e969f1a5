"""A planted truth is found, by each kind; what was put down goes on as if it had not been; wrong answers fail."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_backend.dictionaries.training import Trainer
from garcon_backend.dictionaries.training.optimizing import Optimizer, learning_rate
from garcon_jupyter.errors import BadRequest
from tests.backend.dictionaries.training.planted import (
    ACTIVE,
    BATCH,
    DIRECTIONS,
    D,
    directions,
    found,
    settings,
    stream,
    trained,
)

pytestmark = pytest.mark.sampled

STEPS = 250
KINDS: dict[str, dict[str, Any]] = {
    "topk": {},
    "batchtopk": {},
    "matryoshka": {"widths": (32, DIRECTIONS)},
    "jumprelu": {},
    "standard": {"sparsity": 0.3},
    "gated": {"sparsity": 0.7},
}
LONGER = {"gated": 400}
"""Steps of kinds that take more: a gate is taught by the second reconstruction alone."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_truth_is_found(kind: str) -> None:
    truth = directions()
    steps = LONGER.get(kind, STEPS)
    trainer = trained(settings(kind, **KINDS[kind]), stream(steps, truth))
    assert found(trainer, truth) >= 0.9
    last = trainer.curve.points[-1]
    assert trainer.steps == last.steps == steps and last.tokens == steps * BATCH
    assert last.unexplained < 0.2
    if kind not in ("standard", "gated"):
        assert last.l0 == pytest.approx(ACTIVE, rel=0.25)
    # Directions of another truth are not.
    assert found(trainer, directions(99)) <= 0.5


def test_nothing_is_found_where_nothing_is() -> None:
    truth = directions()
    assert found(trained(settings(), stream(STEPS, truth, shuffled=True)), truth) <= 0.5


def test_from_one_point_to_another() -> None:
    """What is written has other directions, of another space, than what is read."""
    truth, torch_seed = directions(), torch.Generator().manual_seed(4)
    written = torch.nn.functional.normalize(torch.randn(D, 20, generator=torch_seed), dim=1)
    asked = settings("transcoder", writes="layers.0.mlp.out")
    trainer = Trainer(asked, D, 20)
    for rows in stream(STEPS, truth):
        trainer.take(rows, rows.relu() @ written)
    assert trainer.curve.points[-1].unexplained < 0.5 * trainer.curve.points[5].unexplained


def numbers(trainer: Trainer) -> dict[str, Tensor]:
    tensors, _ = trainer.state()
    return {name: value.clone() for name, value in tensors.items()}


@pytest.mark.parametrize("kind", ["topk", "matryoshka", "jumprelu", "gated"])
def test_put_down_and_taken_up_it_goes_on_with_the_same_bytes(kind: str) -> None:
    asked, truth = settings(kind, **KINDS[kind]), directions()
    pieces = list(stream(40, truth))
    whole = trained(asked, iter(pieces))
    for at in (0, 3, 7):  # before the buffer is full, and after
        first = Trainer(asked, D, D)
        for piece in pieces[:at]:
            first.take(piece)
        tensors, told = first.state()
        kept = {name: value.clone() for name, value in tensors.items()}
        other = Trainer(asked, D, D)
        other.restore(kept, told)
        other = trained(asked, iter(pieces[at:]), other)
        assert all(
            torch.equal(value, numbers(whole)[name]) for name, value in numbers(other).items()
        )
        assert other.curve.points == whole.curve.points and other.threshold == whole.threshold
    shorter = trained(asked, iter(pieces[1:]))
    assert not torch.equal(numbers(shorter)["weights.decoder"], numbers(whole)["weights.decoder"])


def test_another_rank_s_part_is_not_taken_up() -> None:
    tensors, told = Trainer(settings(), D, D).state()
    with pytest.raises(BadRequest, match=r"latents 0 to 47, and this rank holds 0 to 95"):
        Trainer(settings(), D, D).restore(tensors, {**told, "latents": [0, 48]})


def test_the_pieces_that_rows_come_in_do_not_matter() -> None:
    asked, rows = settings(), torch.cat(list(stream(12, directions())))
    one, other = trained(asked, iter([rows])), trained(asked, iter(rows.split(61)))
    assert torch.equal(numbers(one)["weights.encoder"], numbers(other)["weights.encoder"])


def test_longer_rows_of_the_decoder_would_get_round_the_penalty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without rows of length 1, latents get small and the decoder long: the penalty sinks, and nothing is sparse."""
    asked, truth = settings("standard", sparsity=0.3), directions()
    right = trained(asked, stream(STEPS, truth))
    monkeypatch.setattr(Optimizer, "normalize", lambda self: None)
    monkeypatch.setattr(
        Optimizer, "step", lambda self, gradient, rate: plain_step(self, gradient, rate)
    )
    wrong = trained(asked, stream(STEPS, truth))
    assert right.weights is not None and wrong.weights is not None
    torch.testing.assert_close(right.weights.decoder.norm(dim=1), torch.ones(DIRECTIONS))
    assert float(wrong.weights.decoder.norm(dim=1).median()) > 1.3
    assert wrong.curve.points[-1].l0 > 1.3 * right.curve.points[-1].l0


def plain_step(optimizer: Any, gradient: Any, rate: float) -> None:
    """Adam alone."""
    adam = optimizer._adam
    for name, value in optimizer._weights.tensors().items():
        value.grad = gradient.tensors()[name]
    adam.param_groups[0]["lr"] = rate
    adam.step()


def test_dead_latents_stay_dead_without_their_loss() -> None:
    """Encoders that point away from everything never pass; with their loss they come back."""
    truth, dead = directions(), {}
    for aux in (0.0, 1.0):
        asked = settings(aux=aux)
        trainer = Trainer(asked, D, D)
        rows = stream(120, truth)
        while trainer.weights is None:
            trainer.take(next(rows))
        trainer.weights.encoder_bias[: DIRECTIONS // 2] = -3.0
        trained(asked, rows, trainer)
        dead[aux] = trainer.curve.points[-1].dead
    assert dead[0.0] >= DIRECTIONS // 3 and dead[1.0] <= DIRECTIONS // 10


def test_what_diverges_says_so_and_nothing_trained_writes_nothing() -> None:
    trainer = Trainer(settings(), D, D)
    with pytest.raises(
        BadRequest, match="Nothing was trained: 0 tokens came, and a step takes 256"
    ):
        trainer.folded()
    with pytest.raises(BadRequest, match="diverged at step 0: the loss is nan"):
        trainer.take(torch.full((5 * BATCH, D), torch.nan))


def test_the_learning_rate_rises_and_falls() -> None:
    asked = settings(lr=1.0, warm_up=10, tokens=1000)
    assert learning_rate(asked, 0, 0) == pytest.approx(0.1)
    assert learning_rate(asked, 50, 790) == 1.0
    assert learning_rate(asked, 50, 900) == pytest.approx(0.5)
    assert learning_rate(settings(lr=1.0), 50, 10**9) == 1.0
