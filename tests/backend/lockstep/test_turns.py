"""Who is next: persons in turn, and work in the background behind them, but not for ever."""

from __future__ import annotations

import pytest

from garcon_backend.lockstep.turns import LINGER, SHARE, USUAL, Queued, Turns


def test_turns_go_round_the_sessions() -> None:
    turns = Turns()
    for session, request in ("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6):
        turns.put(Queued(session, str(request), "forward", None))
    assert [item.id for item in turns.waiting()] == ["1", "4", "5", "2", "6", "3"]
    assert turns.remove("2") is not None and turns.remove("2") is None
    first, second = turns.next(), turns.next()
    assert first and second and turns.running is second
    assert [item.id for item in turns.unfinished()] == ["4", "5", "3", "6"]
    turns.end(first)  # it had ended before
    assert turns.running is second
    turns.end(second)
    assert turns.running is None
    taken = [first, second, *(turns.next() for _ in range(3))]
    assert [item.id for item in taken if item] == ["1", "4", "5", "3", "6"]
    assert turns.next() is None


class Clock:
    """A clock that goes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns(clock: Clock) -> Turns:
    return Turns(clock)


def put(turns: Turns, name: str, behind: bool = False, session: str = "me") -> None:
    turns.put(Queued(session, name, "forward", None, behind))


def served(turns: Turns, clock: Clock, seconds: float, behind: float | None = None) -> str | None:
    """Whose turn it is, which then takes so long; work in the background perhaps longer."""
    item = turns.next()
    if item is None:
        return None
    clock.now += behind if item.behind and behind else seconds
    turns.end(item)
    return item.id


def test_what_a_person_runs_goes_before_what_waited_longer(turns: Turns, clock: Clock) -> None:
    put(turns, "piece", behind=True)
    put(turns, "other piece", behind=True, session="other")
    put(turns, "mine")
    assert [item.id for item in turns.waiting()] == ["mine", "piece", "other piece"]
    assert served(turns, clock, 0.2) == "mine"
    assert turns.next() is None and turns.pause == pytest.approx(LINGER)
    clock.now += LINGER
    assert served(turns, clock, 0.2) == "piece"
    assert served(turns, clock, 0.2) == "other piece"  # nobody came: at once
    assert turns.pause is None


def test_a_piece_is_not_begun_in_the_moment_between_two_requests(
    turns: Turns, clock: Clock
) -> None:
    """A loop of quick requests, with a moment between them, and a picture that always has a piece."""
    put(turns, "piece", behind=True)
    clock.now += LINGER
    order: list[str | None] = []
    began = clock.now
    while clock.now < began + 20:
        put(turns, "mine")
        while (one := served(turns, clock, 0.04, behind=0.4)) is not None:
            order.append(one)
            if one == "piece":
                put(turns, "piece", behind=True)
        clock.now += 0.01
    pieces = order.count("piece")
    # The share is kept both ways: a third of the time at most, and nobody waits for ever.
    assert 20 / (0.4 * (1 + SHARE) + 0.1) <= pieces <= 20 / (0.4 * SHARE)
    assert "piece piece" not in " ".join(map(str, order))
    assert order.count("mine") >= 0.6 * 20 / 0.05


def test_a_row_of_requests_without_an_end_does_not_starve_a_run(turns: Turns, clock: Clock) -> None:
    for number in range(100):
        put(turns, f"mine {number}")
    put(turns, "run", behind=True)
    order = [served(turns, clock, 0.125) for _ in range(30)]
    assert order.index("run") == SHARE * USUAL / 0.125
    put(turns, "run", behind=True)  # the last one took 0.125
    order = [served(turns, clock, 0.125) for _ in range(30)]
    assert order.index("run") == SHARE


def test_a_long_request_earns_those_behind_one_piece_and_not_more(
    turns: Turns, clock: Clock
) -> None:
    put(turns, "run", behind=True)
    put(turns, "long"), put(turns, "next")
    assert served(turns, clock, 60) == "long"
    assert served(turns, clock, 0.5) == "run"
    put(turns, "run", behind=True)
    assert served(turns, clock, 0.5) == "next"


def test_what_stands_behind_can_be_taken_out(turns: Turns) -> None:
    put(turns, "piece", behind=True)
    assert turns.remove("piece") is not None and turns.waiting() == [] and turns.next() is None
