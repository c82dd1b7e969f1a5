"""Where a rank says it is, read off a stack that really stands there."""

from __future__ import annotations

import threading
from typing import Any

from garcon_backend.distributed import collectives
from garcon_backend.lockstep.rank_status import RankStatus, rank_status
from garcon_backend.process.interrupts import Interrupts


def seen(interrupts: Interrupts, rank: int = 0, failed: str = "") -> RankStatus:
    """What another thread sees of this one."""
    found: list[RankStatus] = []
    thread = threading.Thread(target=lambda: found.append(rank_status(rank, interrupts, failed)))
    thread.start()
    thread.join()
    return found[0]


def test_between_requests_it_is_nowhere() -> None:
    where = seen(Interrupts(solo=True), rank=3)
    assert where.over and where.stuck
    assert str(where) == "rank 3 is done"
    assert str(seen(Interrupts(solo=True), failed="no room")) == "rank 0 failed: no room"


def test_it_names_the_request_the_layer_and_the_point() -> None:
    interrupts = Interrupts(solo=False)
    with interrupts.running("request"):
        interrupts.point = "layers.1.mlp.out"
        for _ in range(3):
            interrupts.stop.before_layer()
        where = seen(interrupts, rank=1, failed="of an earlier request")
    assert (where.request, where.entered, where.point) == ("request", 3, "layers.1.mlp.out")
    assert not where.stuck and where.line == "" and where.failed == ""
    assert str(where) == "rank 1 computes at layers.1.mlp.out (layer 3 of the pass)"


def test_it_names_the_line_of_the_user() -> None:
    interrupts = Interrupts(solo=True)
    with interrupts.running("request"), interrupts.user_code():
        where = seen_from(interrupts)
    assert where.in_user_code
    # The test's own frames are the user's; what is innermost is the library's wait, which is not.
    assert where.line.startswith(f"{__file__}, line ")


def seen_from(interrupts: Interrupts) -> RankStatus:
    """As :func:`seen`, from a function of the user's."""
    return seen(interrupts)


def test_it_names_the_operation_it_waits_in() -> None:
    interrupts = Interrupts(solo=False)
    seen_waiting: list[RankStatus] = []

    class Work:
        """As torch hands it out for a tensor that is on its way; it comes when somebody has looked."""

        def wait(self) -> None:
            seen_waiting.append(seen(interrupts))

    with interrupts.running("request"):
        collectives._finish([Work()])
    (where,) = seen_waiting
    assert where.waits_in == "recv or send" and where.stuck
    assert str(where) == "rank 0 waits in recv or send (layer 0 of the pass)"


def test_it_travels_as_plain_data() -> None:
    where = seen(Interrupts(solo=True))
    plain: dict[str, Any] = where.plain()
    assert RankStatus(**plain) == where
