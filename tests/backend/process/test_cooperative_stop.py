"""Ranks that stop together, as threads: whenever a request is cancelled, and however the words about it cross,
no rank runs a layer that another one skips."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from garcon_backend.process.cooperative_stop import Stop, agreed

LAYERS = 12


@pytest.fixture(autouse=True)
def threads_cross_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Ranks:
    """Ranks that run layers in which each waits for all, so many seconds at most."""

    patience = 5.0

    def __init__(self, count: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.stops = [Stop() for _ in range(count)]
        self.ran: list[list[int]] = [[] for _ in range(count)]
        self.together = threading.Barrier(count)
        self.begun = threading.Barrier(count)
        self.hung = False

    def run(self, rank: int, request: str) -> None:
        chance = random.Random(self.random.random())
        self._pause(chance)  # ranks do not begin at the same moment
        self.stops[rank].begin(request, cancelled=False)
        try:
            self.begun.wait(5)  # as preparing is over on all before any runs
            for layer in range(LAYERS):
                self._pause(chance)
                if not self.stops[rank].before_layer():
                    self.ran[rank].append(layer)
                    self.together.wait(self.patience)
        except threading.BrokenBarrierError:
            self.hung = True

    def cancel(self, request: str, times: int = 1) -> None:
        """What rank 0's watch does: ask each, agree, tell each, all at moments of their own."""
        chance = random.Random(self.random.random())
        for _ in range(times):
            order = chance.sample(range(len(self.stops)), len(self.stops))
            entered = []
            for rank in order:
                self._pause(chance)
                entered.append(self.stops[rank].ask(request))
            for rank in order:
                self._pause(chance)
                self.stops[rank].decide(request, agreed(entered))

    @staticmethod
    def _pause(chance: random.Random) -> None:
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.0003))

    def go(self, request: str, cancels: int) -> None:
        """Run a request that is cancelled so many times at a random moment."""
        threads = [
            threading.Thread(target=self.run, args=(rank, request))
            for rank in range(len(self.stops))
        ]
        threads += [threading.Thread(target=self.cancel, args=(request, cancels))]
        self.random.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("cancels", [1, 2])
def test_all_run_the_same_layers(cancels: int) -> None:
    cut = 0
    for seed in range(120):
        ranks = Ranks(3, seed)
        ranks.go("request", cancels)
        assert not ranks.hung, f"seed {seed}: {ranks.ran}"
        assert ranks.ran[0] == ranks.ran[1] == ranks.ran[2], f"seed {seed}"
        assert ranks.ran[0] == list(range(len(ranks.ran[0])))  # and what is skipped is the end
        cut += len(ranks.ran[0]) < LAYERS
    assert cut > 20  # else this would not have tested anything


class Heedless(Ranks):
    """The wrong answer: each stops where it happens to be when it hears of it."""

    patience = 0.05

    def cancel(self, request: str, times: int = 1) -> None:
        for stop in self.stops:
            stop.decide(request, stop.ask(request))
            time.sleep(0.0005)


def test_without_an_agreement_they_hang() -> None:
    def hangs(seed: int) -> bool:
        ranks = Heedless(3, seed)
        ranks.go("request", 1)
        return ranks.hung

    assert any(hangs(seed) for seed in range(40))


def test_one_that_has_entered_a_layer_runs_it() -> None:
    stop = Stop()
    stop.begin("a", cancelled=False)
    assert not stop.before_layer() and not stop.before_layer()
    assert stop.ask("a") == 2
    stop.decide("a", 3)
    assert [stop.before_layer() for _ in range(3)] == [False, True, True]
    assert stop.skipping and stop.entered == 5


def test_a_request_that_is_told_to_stop_before_it_begins() -> None:
    stop = Stop()
    stop.begin("a", cancelled=False)
    assert stop.ask("b") == 0 and not stop.before_layer()  # a goes on
    stop.decide("b", 1)
    assert not stop.before_layer()
    stop.begin("b", cancelled=False)
    assert [stop.before_layer() for _ in range(2)] == [False, True]
    stop.begin("c", cancelled=False)
    assert not stop.before_layer()


def test_one_that_was_asked_before_it_began_waits_for_the_decision() -> None:
    stop = Stop()
    assert stop.ask("a") == 0
    stop.begin("a", cancelled=False)
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(stop.before_layer()))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive() and not found
    stop.decide("a", 0)
    thread.join()
    assert found == [True]


def test_the_first_decision_holds() -> None:
    stop = Stop()
    stop.begin("a", cancelled=True)
    stop.decide("a", 1)
    stop.decide("a", 3)
    assert [stop.before_layer() for _ in range(3)] == [False, True, True]


def test_what_is_remembered_is_limited() -> None:
    stop = Stop()
    for n in range(10_000):
        stop.ask(f"request {n}")
    assert len(stop._told) < 100
