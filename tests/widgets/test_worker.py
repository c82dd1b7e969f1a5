"""Work beside the kernel: in order, the latest of a kind, errors told, pieces stopped, nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from garcon_jupyter.widgets.worker import WidgetWorker


class Told:
    """What a worker tells."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.states: list[bool] = []
        self.worker = WidgetWorker(self.changed, self.errors.append)

    def changed(self) -> None:
        if self.states[-1:] != [self.worker.busy]:
            self.states.append(self.worker.busy)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def worker(told: Told) -> WidgetWorker:
    return told.worker


class Pieces:
    """Work in pieces, each of which waits until it may go on."""

    def __init__(self, done: list[str], count: int = 10) -> None:
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.ended = threading.Event()
        self.done, self.count = done, count
        self.threads: set[int] = set()

    def __call__(self) -> Iterator[None]:
        try:
            for number in range(self.count):
                self.threads.add(threading.get_ident())
                self.begun.release()
                assert self.go_on.acquire(timeout=10)
                self.done.append(f"piece {number}")
                yield
        finally:
            self.threads.add(threading.get_ident())
            self.ended.set()


def test_the_latest_of_a_kind_counts_and_other_kinds_keep_their_turn(told: Told) -> None:
    done: list[str] = []
    gate, worker = threading.Event(), told.worker
    worker.submit("first", lambda: (gate.wait(10), done.append("first")) and None)
    assert worker.busy
    for number in range(20):
        worker.submit("slider", lambda number=number: done.append(f"slider {number}"))
    worker.submit("text", lambda: done.append("text"))
    gate.set()
    assert worker.wait(10) and not worker.busy
    assert done == ["first", "slider 19", "text"]
    assert told.states == [True, False]


def test_a_click_has_its_turn_between_two_pieces(worker: WidgetWorker) -> None:
    done: list[str] = []
    pieces = Pieces(done, 3)
    worker.submit("sweep", pieces())
    assert worker.filling and worker.left
    pieces.begun.acquire()
    worker.submit("click", lambda: done.append("click"))
    for _ in range(3):
        pieces.go_on.release()
    assert worker.wait(10)
    assert done == ["piece 0", "click", "piece 1", "piece 2"]
    assert not (worker.filling or worker.left or worker.stopped)
    assert len(pieces.threads) == 1


def test_what_is_stopped_ends_after_its_piece_and_clears_up(told: Told) -> None:
    done: list[str] = []
    pieces, worker = Pieces(done), told.worker
    worker.submit("sweep", pieces())
    pieces.begun.acquire()
    assert worker.stop() and worker.stopped and not worker.filling
    assert not worker.stop()  # it is stopped already
    worker.submit("click", lambda: done.append("click"))  # which is no part of it
    pieces.go_on.release()
    assert (worker.wait(10) and done == ["piece 0", "click"]) or done == ["click", "piece 0"]
    assert pieces.ended.is_set() and len(pieces.threads) == 1
    assert worker.left and worker.stopped and told.states == [True, False]
    again = Pieces(done, 1)
    again.go_on.release()
    worker.submit("sweep", again())
    assert worker.wait(10) and not worker.left and done[-1] == "piece 0"


def test_pieces_of_a_kind_give_way_to_later_ones(worker: WidgetWorker) -> None:
    done: list[str] = []
    early, late = Pieces([], 5), Pieces(done, 2)
    worker.submit("sweep", early())
    early.begun.acquire()
    worker.submit("sweep", late())
    for _ in range(2):
        early.go_on.release(), late.go_on.release()
    assert worker.wait(10)
    assert early.done == ["piece 0"] and early.ended.is_set()
    assert done == ["piece 0", "piece 1"] and not worker.left


def test_an_error_is_told_and_the_thread_goes_on_and_ends(told: Told) -> None:
    def fails() -> Iterator[None]:
        yield
        raise LookupError("second piece")

    def raises(error: Exception) -> None:
        raise error

    told.worker.submit("a", lambda: raises(ZeroDivisionError()))
    told.worker.submit("b", lambda: raises(KeyError("b")))
    told.worker.submit("c", fails())
    assert told.worker.wait(10)
    assert [type(error) for error in told.errors] == [ZeroDivisionError, KeyError, LookupError]
    assert told.worker.left and not told.worker.filling and not told.worker.stopped
    alive = [thread for thread in threading.enumerate() if thread.name == "garcon widget"]
    for thread in alive:
        thread.join(10)
    assert not any(thread.is_alive() for thread in alive)


def test_whoever_waits_is_not_left_waiting_by_one_who_listens() -> None:
    errors: list[Exception] = []

    def listens() -> None:
        raise RuntimeError("no page")

    worker = WidgetWorker(listens, errors.append)
    worker.submit("a", lambda: None)
    assert worker.wait(10) and {type(error) for error in errors} == {RuntimeError}


def test_a_closed_worker_takes_nothing_and_leaves_off(told: Told) -> None:
    done: list[Any] = []
    pieces, worker = Pieces(done), told.worker
    worker.submit("sweep", pieces())
    pieces.begun.acquire()
    worker.close()
    worker.submit("a", lambda: done.append(1))
    pieces.go_on.release()
    assert worker.wait(10) and done == ["piece 0"] and worker.closed and pieces.ended.is_set()
