"""Short questions: each message has its handler, and each is answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from garcon_backend.kernel.control import ControlHandlers
from garcon_backend.kernel.sessions import Sessions
from garcon_backend.lockstep.turns import Queued, Turns
from garcon_jupyter.wire import protocol


@pytest.fixture
def handlers() -> ControlHandlers:
    turns = Turns()
    turns.put(Queued("alice", "waits", "forward", None))
    context: Any = SimpleNamespace(
        sessions=Sessions(), turns=turns, running=None, clock=SimpleNamespace(warning=None)
    )
    nothing: Any = SimpleNamespace()
    stop = lambda reason: None  # noqa: E731
    context.outcomes = SimpleNamespace(of=lambda session: [])
    return ControlHandlers(context, nothing, nothing, lambda request: False, stop)


def test_every_message_of_the_protocol_has_a_handler(handlers: ControlHandlers) -> None:
    assert set(handlers.kinds) == set(protocol.CONTROL_MESSAGES)


def test_a_question_is_answered(handlers: ControlHandlers) -> None:
    content, _ = handlers.answer(protocol.REQUESTS, {"content": {"session": "alice"}})
    assert content["status"] == "ok"
    [row] = content["requests"]
    assert (row["request"], row["state"]) == ("waits", "waiting")


@pytest.mark.parametrize("content", [{"session": 3}, {}])
def test_so_is_one_that_is_none(handlers: ControlHandlers, content: Any) -> None:
    answer, _ = handlers.answer(protocol.GOODBYE, {"content": content})
    assert answer["status"] == "error" and answer["failure"]["class"] == "BadRequest"
