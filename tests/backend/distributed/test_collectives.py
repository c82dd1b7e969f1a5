"""What ranks say to each other, on four real ranks, and trivially on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from garcon_backend.distributed.collectives import (
    Layout,
    Ranks,
    all_gather_over_ranks,
    shared_by_ranks,
    span,
    sum_over_ranks,
)
from tests.backend.ranks import run_on_ranks

pytestmark = pytest.mark.processes

WHOLE = torch.arange(24.0).view(2, 12)


def on_each_rank() -> dict[str, Any]:
    from garcon_backend.distributed.mesh import Mesh
    from garcon_jupyter.wire.launch_spec import Degrees

    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(tp=2, pp=2), "cpu")
    place = (mesh.stage, mesh.tp_rank, mesh.leads, mesh.first_stage, mesh.last_stage)
    ranks = mesh.everyone
    found = {
        "place": place,
        "groups": (mesh.tp.members, mesh.pipeline.members, ranks.members),
        "values": _values(ranks),
        "gradients": _gradients(ranks),
        "said": ranks.broadcast_integers([7, 1 << 40] if ranks.leads else [0, 0]),
        "broadcast": ranks.broadcast(torch.full((2,), ranks.rank), 2).tolist(),
        "any": (ranks.any(ranks.rank == 3), ranks.any(False)),
    }
    mesh.leave()
    return found


def _values(ranks: Ranks) -> dict[str, Any]:
    """Pieces dealt out and put together again, by layout."""
    found = {}
    for name, layout in {
        "quarters": Layout(1, 4),
        "halves twice": Layout(1, 2, 2),
        "halves, partial": Layout(1, 2, 2, True),
        "whole": Layout(),
        "whole, partial": Layout(dup=4, partial=True),
    }.items():
        like = torch.empty(2, 12 // layout.chunks)
        piece = ranks.scatter(WHOLE if ranks.leads else None, like, layout)
        part = ranks.scatter(WHOLE if ranks.leads else None, like, layout, grad=True)
        back = ranks.gather(piece, layout)
        added = ranks.gather(piece, layout, grad=True)
        found[name] = [None if t is None else t.tolist() for t in (piece, part, back, added)]
    return found


def _gradients(ranks: Ranks) -> dict[str, Any]:
    """Value and gradient of each differentiable collective, under a replicated loss."""
    x = torch.tensor([1.0, 2.0]) * (ranks.rank + 1)
    x.requires_grad_()
    found = {}
    for name, function in {
        "sum": lambda: sum_over_ranks(x, ranks) * 3,
        "shared": lambda: shared_by_ranks(x, ranks) * (ranks.rank + 1),
        # Seven features: 2, 2, 2 and 1.
        "join": lambda: (
            all_gather_over_ranks(x[: 7 - 2 * ranks.rank], 7, ranks) * torch.arange(7.0)
        ),
    }.items():
        x.grad = None
        value = function()
        value.sum().backward()
        found[name] = (value.tolist(), x.grad.tolist())  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    return run_on_ranks(4, on_each_rank)


def test_places_and_groups(found: list[dict[str, Any]]) -> None:
    """rank = (stage·dp + replica)·tp + tp_rank"""
    assert [rank["place"] for rank in found] == [
        (0, 0, True, True, False),
        (0, 1, False, True, False),
        (1, 0, True, False, True),
        (1, 1, False, False, True),
    ]
    assert [rank["groups"] for rank in found] == [
        ([0, 1], [0, 2], [0, 1, 2, 3]),
        ([0, 1], [1, 3], [0, 1, 2, 3]),
        ([2, 3], [0, 2], [0, 1, 2, 3]),
        ([2, 3], [1, 3], [0, 1, 2, 3]),
    ]


@pytest.mark.parametrize(
    ("layout", "holders"),
    [
        ("quarters", [0, 1, 2, 3]),
        ("halves twice", [0, 0, 1, 1]),
        ("halves, partial", [0, 0, 1, 1]),
        ("whole", [0, 0, 0, 0]),
        ("whole, partial", [0, 0, 0, 0]),
    ],
)
def test_scatter_and_gather(layout: str, holders: list[int], found: list[dict[str, Any]]) -> None:
    pieces = WHOLE.chunk(max(holders) + 1, 1)
    partial = "partial" in layout
    for rank, holder in enumerate(holders):
        piece, part, back, added = found[rank]["values"][layout]
        expected = pieces[holder]
        assert piece == expected.tolist()
        once = partial and rank > 0 and holders[rank - 1] == holder
        assert part == (torch.zeros_like(expected) if once else expected).tolist()
        times = holders.count(holder) if partial else 1
        assert back == (WHOLE.tolist() if rank == 0 else None)
        assert added == ((WHOLE * times).tolist() if rank == 0 else None)


def test_differentiable_collectives(found: list[dict[str, Any]]) -> None:
    joined = torch.tensor([1.0, 2, 2, 4, 3, 6, 4]) * torch.arange(7.0)
    for rank in range(4):
        gradients = found[rank]["gradients"]
        assert gradients["sum"] == ([30.0, 60.0], [3.0, 3.0])
        factor = float(rank + 1)
        assert gradients["shared"] == ([factor**2, 2 * factor**2], [10.0, 10.0])
        own = [2.0 * rank, 2.0 * rank + 1] if rank < 3 else [6.0, 0.0]
        assert gradients["join"] == (joined.tolist(), own)


def test_few_words(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert rank["said"] == [7, 1 << 40]
        assert rank["broadcast"] == [2, 2]
        assert rank["any"] == (True, False)


def test_one_rank_is_trivial() -> None:
    ranks = Ranks()
    x = torch.ones(2, requires_grad=True)
    assert ranks.leads and ranks.size == 1
    assert torch.equal(ranks.gather(x, Layout()), x) and not ranks.gather(x, Layout()).requires_grad
    assert ranks.scatter(x, x, Layout()) is x
    assert ranks.broadcast_integers([True, 3]) == [1, 3]
    assert ranks.any(True) and not ranks.any(False)
    assert sum_over_ranks(x, ranks) is x and shared_by_ranks(x, ranks) is x


def test_a_value_that_does_not_cut_is_refused() -> None:
    ranks = Ranks()
    ranks.size = 2
    with pytest.raises(ValueError, match="does not cut into 2 pieces"):
        ranks.scatter(torch.ones(5), torch.ones(3), Layout(0, 2))


def test_spans_are_those_of_chunk() -> None:
    for total, parts in [(12, 4), (7, 4), (263, 4), (5, 4)]:
        pieces = list(torch.arange(total).chunk(parts))
        sizes = [len(piece) for piece in pieces] + [0] * (parts - len(pieces))
        spans = [span(total, parts, index) for index in range(parts)]
        assert [stop - start for start, stop in spans] == sizes
