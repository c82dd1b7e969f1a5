"""When a server that loses ranks gives up."""

from __future__ import annotations

from pathlib import Path

from garcon_backend.distributed.rank_failures import LIMIT, WINDOW, Losses


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def test_it_gives_up_after_too_many_losses_at_once(tmp_path: Path) -> None:
    losses = Losses(tmp_path / "losses.json", Clock())
    for number in range(LIMIT):
        losses.note(f"rank {number} was lost")
        assert not losses.too_many
    losses.note("rank 9 was lost")
    assert losses.too_many
    assert (
        losses.verdict() == "it was lost 4 times within 10 minutes, at last because rank 9 was lost"
    )


def test_losses_of_long_ago_do_not_count(tmp_path: Path) -> None:
    clock = Clock()
    losses = Losses(tmp_path / "losses.json", clock)
    for _ in range(10 * LIMIT):
        losses.note("rank 0 was lost")
        clock.time += WINDOW / LIMIT + 1
        assert not losses.too_many
    assert len(losses.all()) == 10 * LIMIT


def test_a_file_that_is_torn_counts_as_none(tmp_path: Path) -> None:
    file = tmp_path / "losses.json"
    assert Losses(file).all() == []
    file.write_text('[{"time": 1')
    assert Losses(file).all() == []
