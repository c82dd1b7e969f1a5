"""Work beside the kernel: in order, the latest of a kind, errors told, nothing left behind."""

from __future__ import annotations

import threading

from garcon_jupyter.widgets.worker import Worker


def test_the_latest_of_a_kind_counts_and_other_kinds_keep_their_turn() -> None:
    done: list[str] = []
    states: list[bool] = []
    gate = threading.Event()
    worker = Worker(states.append, lambda error: done.append(str(error)))
    worker.submit("first", lambda: (gate.wait(10), done.append("first")) and None)
    for number in range(20):
        worker.submit("slider", lambda number=number: done.append(f"slider {number}"))
    worker.submit("text", lambda: done.append("text"))
    assert worker.superseded
    gate.set()
    assert worker.wait(10)
    assert done == ["first", "slider 19", "text"]
    assert states == [True, False]


def test_an_error_is_told_and_the_thread_goes_on_and_ends() -> None:
    told: list[Exception] = []
    worker = Worker(lambda busy: None, told.append)
    worker.submit("a", lambda: 1 / 0 and None)
    worker.submit("b", lambda: told.append(KeyError("b")))
    assert worker.wait(10)
    assert [type(error) for error in told] == [ZeroDivisionError, KeyError]
    alive = [thread for thread in threading.enumerate() if thread.name == "garcon widget"]
    for thread in alive:
        thread.join(10)
    assert not any(thread.is_alive() for thread in alive)


def test_a_closed_worker_takes_nothing() -> None:
    done: list[int] = []
    worker = Worker(lambda busy: None, lambda error: None)
    worker.close()
    worker.submit("a", lambda: done.append(1))
    assert worker.wait(1) and done == [] and worker.closed
