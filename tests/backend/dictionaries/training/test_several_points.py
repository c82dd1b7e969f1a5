"""Crosscoders and cross-layer transcoders: planted directions of several points are found, written, and read back; wrong answers fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from garcon_backend.dictionaries import load
from garcon_backend.dictionaries.training import Trainer, write
from garcon_backend.dictionaries.training import trainer as training
from garcon_jupyter.wire.dictionary_training import TrainingSettings
from tests.backend.dictionaries.training.planted import BATCH, settings

D, POINTS, PLANTED, LATENTS, STEPS = 24, 2, 24, 32, 300
LENGTHS = (1.0, 7.0)
"""How much longer rows of a point are: each point has a scale of its own."""

ENDS = {
    "crosscoder": tuple((f"layers.{i}.resid_post",) * 2 for i in range(POINTS)),
    "cross-layer": tuple((f"layers.{i}.mlp.in", f"layers.{i}.mlp.out") for i in range(POINTS)),
}


def asked(kind: str) -> TrainingSettings:
    found = settings(
        kind,
        width=LATENTS,
        k=2,
        reads=ENDS[kind][-1][0],
        writes=ENDS[kind][-1][1],
        several=ENDS[kind],
    )
    return replace(found, buffer_bytes=4 * 2 * POINTS * D * 4 * BATCH)


def drawn(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


def few(generator: torch.Generator, rows: int) -> Tensor:
    """Two of all for each row, between 1 and 2."""
    places = torch.rand(rows, PLANTED, generator=generator).topk(2).indices
    strengths = 1 + torch.rand(rows, 2, generator=generator)
    return torch.zeros(rows, PLANTED).scatter_(1, places, strengths)


def shuffled_columns(rows: Tensor, generator: torch.Generator) -> Tensor:
    return torch.stack([c[torch.randperm(len(c), generator=generator)] for c in rows.T], 1)


def crossing(truth: Tensor, shuffled: bool = False) -> Iterator[tuple[Tensor]]:
    """Rows of both points side by side: the same latents, with a direction [latent, point, D] at each."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        rows = (few(generator, BATCH) @ truth.flatten(1)).unflatten(1, (POINTS, D))
        flat = (rows * torch.tensor(LENGTHS)[:, None]).flatten(1)
        yield (shuffled_columns(flat, generator) if shuffled else flat,)


def layered(read: Tensor, truth: Tensor, shuffled: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
    """What is read of each layer's latents, and what these write into that layer and later ones, `truth` [from, to, latent, D]."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        codes = [few(generator, BATCH) for _ in range(POINTS)]
        rows = torch.cat([code @ read[i] * LENGTHS[i] for i, code in enumerate(codes)], 1)
        written = [sum(codes[i] @ truth[i, j] for i in range(j + 1)) for j in range(POINTS)]
        target = torch.cat([w * length for w, length in zip(written, LENGTHS, strict=True)], 1)
        yield rows, shuffled_columns(target, generator) if shuffled else target


def trained(kind: str, rows: Iterator[tuple[Tensor, ...]]) -> Trainer:
    ends = POINTS * D
    found = Trainer(asked(kind), ends, ends)
    for batch in rows:
        found.take(*batch)
    while found.finish():
        pass
    return found


def cosines(truth: Tensor, learnt: Tensor) -> float:
    """The mean over planted directions of the largest cosine with one that was learnt."""
    sides = (torch.nn.functional.normalize(each.flatten(1), dim=1) for each in (truth, learnt))
    planted, found = sides
    return float((planted @ found.T).amax(1).mean())


def test_directions_of_several_points_are_found() -> None:
    truth = drawn(3, PLANTED, POINTS, D)
    found = trained("crosscoder", crossing(truth))
    scales = torch.tensor(found.point_scales[1])
    seen = truth * torch.tensor(LENGTHS)[:, None] * scales[:, None]
    learnt = found.learnt()["decoder"].unflatten(1, (POINTS, D))
    assert cosines(seen, learnt) >= 0.9
    # Both points of a latent are of one: with the second's of others they are not.
    assert cosines(torch.stack([seen[:, 0], seen[:, 1].roll(1, 0)], 1), learnt) <= 0.8
    # Each point has a scale of its own: a common one would be the longer rows' alone.
    assert scales[0] / scales[1] == pytest.approx(LENGTHS[1] / LENGTHS[0], rel=0.05)
    nothing = trained("crosscoder", crossing(truth, shuffled=True))
    assert cosines(seen, nothing.learnt()["decoder"].unflatten(1, (POINTS, D))) <= 0.5


def test_what_latents_of_a_layer_write_into_later_ones_is_found() -> None:
    read, truth = drawn(4, POINTS, PLANTED, D), drawn(5, POINTS, POINTS, PLANTED, D)
    found = trained("cross-layer", layered(read, truth))
    scales = torch.tensor(found.point_scales[1])
    decoder = found.learnt()["decoder"].unflatten(1, (POINTS, D)).unflatten(0, (POINTS, LATENTS))
    seen = truth * (torch.tensor(LENGTHS) * scales)[None, :, None, None]
    for layer in range(POINTS):
        planted = seen[layer, layer:].transpose(0, 1)
        assert cosines(planted, decoder[layer, :, layer:]) >= 0.9, layer
        assert not decoder[layer, :, :layer].any()
    encoder = found.learnt()["encoder"].unflatten(1, (POINTS, D)).unflatten(0, (POINTS, LATENTS))
    assert not encoder[0, :, 1].any() and not encoder[1, :, 0].any()
    assert found.curve.points[-1].l0 == pytest.approx(2 * POINTS, rel=0.25)
    nothing = trained("cross-layer", layered(read, truth, shuffled=True))
    wrong = nothing.learnt()["decoder"].unflatten(1, (POINTS, D))[:LATENTS]
    assert cosines(seen[0].transpose(0, 1), wrong) <= 0.5


@pytest.mark.parametrize("kind", ENDS)
def test_what_is_written_is_read_back(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our reader of the layout makes of the files what the trainer made of rows; 32 latents are no whole multiple of 24."""
    read, truth = drawn(4, POINTS, PLANTED, D), drawn(5, POINTS, POINTS, PLANTED, D)
    monkeypatch.setattr("tests.backend.dictionaries.training.test_several_points.STEPS", 12)
    given = [
        *(crossing(truth[0].transpose(0, 1)) if kind == "crosscoder" else layered(read, truth))
    ]
    found = trained(kind, iter(given))
    write(found, tmp_path)
    dictionary, rows = load(tmp_path), given[0][0]
    made = dictionary.reconstruction(rows.unflatten(1, (POINTS, D))).flatten(1)
    torch.testing.assert_close(made, found.reconstruction(rows), atol=1e-4, rtol=1e-4)
    told = dictionary.description
    assert (told.latents, told.inputs) == (LATENTS, POINTS)
    assert (
        tuple((r.point, w.point) for r, w in zip(told.reads, told.writes, strict=True))
        == ENDS[kind]
    )
    # Taken up again it goes on as if it had not been put down.
    tensors, numbers = found.state()
    again = Trainer(asked(kind), POINTS * D, POINTS * D)
    again.restore({name: value.clone() for name, value in tensors.items()}, numbers)
    assert torch.equal(again.reconstruction(rows), found.reconstruction(rows))


def test_latents_that_read_other_layers_would_be_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "only_own_layers", lambda *arguments: None)
    monkeypatch.setattr("tests.backend.dictionaries.training.test_several_points.STEPS", 8)
    read, truth = drawn(4, POINTS, PLANTED, D), drawn(5, POINTS, POINTS, PLANTED, D)
    encoder = trained("cross-layer", layered(read, truth)).learnt()["encoder"]
    assert encoder[:LATENTS, D:].any()
