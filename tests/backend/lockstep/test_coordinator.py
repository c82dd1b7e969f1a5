"""A rank that is gone when it is to be told something: not an error of the request, but of the server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from torch import nn

from garcon_backend.lockstep import coordinator
from garcon_backend.lockstep.command_sockets import Link, encoded
from garcon_backend.lockstep.coordinator import Lockstep
from tests.backend.bare_rank import BareRank


class Restarted(BaseException):
    """What stands for the end of this process."""


def test_a_rank_that_cannot_be_reached_starts_all_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator, "NOTICED", 0.0)
    reasons: list[str] = []

    def restart(reason: str) -> None:
        reasons.append(reason)
        raise Restarted

    with zmq.Context() as context:
        commands: Any = context.socket(zmq.ROUTER)
        commands.router_mandatory = True
        commands.bind("inproc://commands")
        executor = BareRank(nn.Sequential(nn.Embedding(5, 3))).executor
        lockstep = Lockstep(executor, 1, Link(commands, None, None))
        lockstep._watchdog = SimpleNamespace(restart=restart)  # type: ignore[assignment]
        worker = context.socket(zmq.DEALER)
        worker.identity = b"1"
        worker.connect("inproc://commands")
        catalog = executor.rank.bound.catalog
        worker.send_multipart(encoded(({"rank": 1}, catalog, executor.rank.contexts.news())))
        assert lockstep.introductions() == [({"rank": 1}, catalog)]
        worker.close(linger=0)
        with pytest.raises(Restarted):
            while True:  # until this side has heard of it
                lockstep.share_catalog(catalog)
        lockstep.stop()  # that is what it wanted of it anyway
        commands.close(linger=0)
    assert reasons == ["rank 1 cannot be reached"]
