"""Directions against plain hooks: what is added, taken out and read off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import BadRequest
from garcon_jupyter.experiments import Direction, attached, kept_directions
from tests.experiments.directions.test_linear_probe import padded
from tests.oracle import Plain, close

POINT, MODULE = "layers.1.resid_post", "model.layers.1"
IDS = [[0, 40, 41, 42, 99, 7]]
RAGGED = [[0, 40, 41, 42, 99, 7], [12, 200, 13, 5]]


@pytest.fixture
def direction() -> Direction:
    vector = torch.randn(48, generator=torch.manual_seed(5))
    return Direction("d", POINT, vector, centre=0.5)


def moved(plain: Plain, change: Tensor, ids: Any, at: Any = slice(None)) -> Tensor:
    """Logits where a plain hook has added a vector at some positions."""

    def hook(out: Tensor) -> Tensor:
        out = out.clone()
        out[:, at] += change
        return out

    with plain.hooked(MODULE, hook):
        return plain.logits(ids)


@pytest.mark.parametrize(
    ("positions", "at"),
    [
        ("all", slice(None)),
        ("given", slice(None)),
        ("last", [-1]),
        (2, [2]),
        (-2, [-2]),
        ([0, -1], [0, -1]),
        (slice(1, 4), slice(1, 4)),
        (slice(-3, None), slice(-3, None)),
        (slice(0, -1, 2), slice(0, -1, 2)),
    ],
)
def test_adding_is_a_plain_hook_that_adds(
    rmodel: garcon.RemoteModel, plain: Plain, direction: Direction, positions: Any, at: Any
) -> None:
    ours = rmodel.forward(IDS, probes=direction.adding(rmodel, 3.0, positions))
    assert close(ours, moved(plain, 3.0 * direction.vector, IDS, at), 1e-6)
    beside = [place + 1 if place < 0 else place - 1 for place in at] if at == [2] else [0]
    if at in ([2], [-1]):
        assert not close(ours, moved(plain, 3.0 * direction.vector, IDS, beside), 1e-3)


def test_positions_count_the_tokens_of_each_text(
    either: garcon.RemoteModel, plain: Plain, direction: Direction
) -> None:
    """Not those of the batch: a shorter text is padded."""
    for positions, at in (("last", [-1]), (3, [3]), (slice(-2, None), slice(-2, None))):
        ours = either.forward(padded(RAGGED), probes=direction.adding(either, 3.0, positions))
        for row, ids in enumerate(RAGGED):
            theirs = moved(plain, 3.0 * direction.vector, [ids], at)[0]
            assert close(ours[row, : len(ids)], theirs, 1e-5)


def greedy(plain: Plain, change: Tensor, ids: list[int], new: int, generated_only: bool) -> Any:
    """Tokens that plain transformers chooses, reading everything anew for each: no cache."""
    row = list(ids)
    for _ in range(new):
        at = slice(len(ids), None) if generated_only else slice(None)
        row.append(int(moved(plain, change, [row], at)[0, -1].argmax()))
    return row


@pytest.mark.parametrize("cached", [True, False])
def test_steering_a_generation(
    either: garcon.RemoteModel, plain: Plain, direction: Direction, cached: bool
) -> None:
    by_hand, ours = {}, {}
    for positions, only in (("all", False), ("generated", True)):
        probes = direction.adding(either, 20.0, positions)
        out = either.generate(IDS, 6, probes=probes, use_cache=cached, eos_token_id=-1)
        ours[positions] = out.ids[0].tolist()
        by_hand[positions] = greedy(plain, 20.0 * direction.vector, IDS[0], 6, only)
    assert ours == by_hand
    assert ours["all"] != ours["generated"]  # the prompt is left alone where that is asked
    first = either.generate(IDS, 1, probes=direction.adding(either, 20.0, "generated"))
    assert int(first.ids[0, -1]) == int(plain.logits(IDS)[0, -1].argmax())


def test_prompts_of_unequal_length_are_told_apart_from_what_follows(
    rmodel: garcon.RemoteModel, plain: Plain, direction: Direction
) -> None:
    probes = direction.adding(rmodel, 20.0, "generated")
    out = rmodel.generate(padded(RAGGED), 5, probes=probes, eos_token_id=-1)
    for row, ids in enumerate(RAGGED):
        theirs = greedy(plain, 20.0 * direction.vector, ids, 5, True)
        assert out.ids[row][out.mask[row]].tolist() == theirs


@pytest.mark.parametrize("keep_mean", [False, True])
def test_what_is_taken_out_is_gone(
    either: garcon.RemoteModel, plain: Plain, direction: Direction, keep_mean: bool
) -> None:
    left = 0.5 if keep_mean else 0.0

    def hook(out: Tensor) -> Tensor:
        unit = direction.vector.double()
        out = out.double()
        return (out - ((out @ unit) - left)[..., None] * unit).float()

    probes = direction.removing(either, keep_mean=keep_mean)
    ours = either.forward(IDS, probes=[*probes, *_seen(either)])
    along = either.recordings()[POINT, "seen"].tensor @ direction.vector
    assert torch.allclose(along, torch.full_like(along, left), atol=1e-5)
    with plain.hooked(MODULE, hook):
        assert close(ours, plain.logits(IDS), 1e-5)
    assert not close(ours, plain.logits(IDS), 1e-3)


def _seen(rmodel: garcon.RemoteModel) -> list[Any]:
    def see(save_ctx: Any, tensor: Any) -> None:
        save_ctx.tensor = tensor

    return [rmodel.probe_points[POINT].probe(see, name="seen", read_only=True)]


def test_it_is_taken_out_after_every_layer(
    rmodel: garcon.RemoteModel, plain: Plain, direction: Direction
) -> None:
    probes = direction.removing(rmodel, points="layers.*.resid_post")
    assert [probe.point for probe in probes] == [f"layers.{i}.resid_post" for i in range(4)]
    unit = direction.vector
    hooks = [
        plain.module(f"model.layers.{layer}").register_forward_hook(
            lambda _, __, out: out - (out @ unit)[..., None] * unit
        )
        for layer in range(4)
    ]
    theirs = plain.logits(IDS)
    for hook in hooks:
        hook.remove()
    assert close(rmodel.forward(IDS, probes=probes), theirs, 1e-5)


def test_projections_of_a_text(
    either: garcon.RemoteModel, plain: Plain, direction: Direction
) -> None:
    found = direction.projection(either, IDS)
    theirs = plain.output(MODULE, IDS)[0].double() @ direction.vector.double() - 0.5
    assert torch.allclose(found.values.double(), theirs, atol=1e-4)
    assert len(found.facts["tokens"]) == 6 and len(either.recordings()) == 0
    picture = direction.show(either, IDS)
    assert torch.allclose(torch.as_tensor(picture.values.array[0]).double(), theirs, atol=1e-4)
    assert 'class="garcon-still"' in picture.still()


def test_heads_lie_side_by_side(rmodel: garcon.RemoteModel) -> None:
    """At attn.z, [b, p, H, d], a vector has H × d numbers."""
    shape = rmodel.probe_points["layers.0.attn.z"].shape
    heads, width = int(shape[2]), int(shape[3])
    vector = torch.zeros(heads * width)
    vector[width + 1] = 1.0
    probes = Direction("z", "layers.0.attn.z", vector).adding(rmodel, 2.0)

    def see(save_ctx: Any, tensor: Any) -> None:
        save_ctx.tensor = tensor

    sees = [
        rmodel.probe_points["layers.0.attn.z"].probe(see, name=name) for name in ("was", "became")
    ]
    rmodel.forward(IDS, probes=[sees[0], *probes, sees[1]], logits="none")
    recordings = rmodel.recordings()
    was, became = (recordings["layers.0.attn.z", name].tensor for name in ("was", "became"))
    change = torch.zeros(heads, width)
    change[1, 1] = 2.0
    assert torch.allclose(became - was, change.expand_as(was), atol=1e-6)


def test_while_it_is_attached(
    rmodel: garcon.RemoteModel, plain: Plain, direction: Direction
) -> None:
    rmodel.attach(*_seen(rmodel))
    before = dict(rmodel.attached)
    with pytest.raises(ZeroDivisionError), attached(rmodel, *direction.adding(rmodel, 3.0)):
        assert close(rmodel.forward(IDS), moved(plain, 3.0 * direction.vector, IDS), 1e-6)
        raise ZeroDivisionError
    assert rmodel.attached == before
    assert close(rmodel.forward(IDS), plain.logits(IDS), 1e-6)


def test_a_session_keeps_it(either: garcon.RemoteModel, direction: Direction) -> None:
    direction.keep(either)
    beside = type(either)(either.server, session=either.session)
    again = kept_directions(beside)["d"]
    beside.close()
    assert torch.equal(again.vector, direction.vector)
    assert (again.scale, again.centre, again.point) == (direction.scale, 0.5, POINT)
    assert torch.equal(
        either.forward(IDS, probes=again.adding(either, 1.0)),
        either.forward(IDS, probes=direction.adding(either, 1.0)),
    )
    assert list(kept_directions(either)) == ["d"]
    direction.forget(either)
    assert kept_directions(either) == {}


def test_it_comes_back_from_its_file(direction: Direction, tmp_path: Path) -> None:
    again = Direction.load(direction.save(tmp_path / "d.safetensors"))
    assert torch.equal(again.vector, direction.vector) and repr(again) == repr(direction)
    (tmp_path / "other").write_bytes(b"none")
    with pytest.raises(BadRequest, match="holds no direction"):
        Direction.load(tmp_path / "other")
    with pytest.raises(BadRequest, match="holds no direction"):
        Direction.load(tmp_path / "missing")


def test_mistakes_are_told(rmodel: garcon.RemoteModel, direction: Direction) -> None:
    with pytest.raises(BadRequest, match="47 numbers.*48 units"):
        Direction("short", POINT, torch.ones(47)).adding(rmodel, 1.0)
    with pytest.raises(BadRequest, match="without a vector for each token"):
        direction.adding(rmodel, 1.0, points="layers.0.attn.pattern")
    with pytest.raises(garcon.GarconError, match="layers"):
        direction.removing(rmodel, points="layers.9.resid_post")
    for vector, words in (
        (torch.full((48,), float("nan")), "length nan"),
        (torch.zeros(48), "length 0"),
        (torch.ones(2, 24), "no vector"),
        (torch.ones(48, dtype=torch.long), "no vector"),
    ):
        with pytest.raises(BadRequest, match=words):
            Direction("bad", POINT, vector)
    with pytest.raises(BadRequest, match="no finite number"):
        direction.adding(rmodel, float("inf"))
    for positions in ("first", 1.5, True, [], slice(None, None, -1)):
        with pytest.raises(BadRequest, match="are no positions"):
            direction.adding(rmodel, 1.0, positions)
    with pytest.raises(BadRequest, match="Text 1 has 4 tokens, and none at"):
        rmodel.forward(padded(RAGGED), probes=direction.adding(rmodel, 1.0, 5))
