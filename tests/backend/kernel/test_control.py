"""Short questions: each message has its handler, and each is answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from garcon_backend.kernel.control import ControlHandlers
from garcon_backend.kernel.sessions import Sessions
from garcon_backend.lockstep.turns import Queued, Turns
from garcon_jupyter.wire import protocol


class Told:
    """Keeps the messages that are sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, stream: Any, kind: str, content: Any, parent: Any, **kwargs: Any) -> None:
        self.sent.append((kind, content))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def handlers(told: Told) -> ControlHandlers:
    turns = Turns()
    turns.put(Queued("alice", "waits", "forward", None))
    context: Any = SimpleNamespace(
        sessions=Sessions(), turns=turns, running=None, clock=SimpleNamespace(warning=None)
    )
    messages: Any = told
    nothing: Any = SimpleNamespace()
    stop = lambda reason: None  # noqa: E731
    context.outcomes = SimpleNamespace(of=lambda session: [])
    return ControlHandlers(context, messages, nothing, nothing, lambda request: False, stop)


def test_every_message_of_the_protocol_has_a_handler(handlers: ControlHandlers) -> None:
    assert set(handlers.by_type) == set(protocol.CONTROL_MESSAGES)


def test_a_question_is_answered(handlers: ControlHandlers, told: Told) -> None:
    ask = handlers.by_type[protocol.REQUESTS]
    ask(None, b"", {"content": {"session": "alice"}})
    [(kind, content)] = told.sent
    assert kind == protocol.reply_type(protocol.REQUESTS)
    assert content["status"] == "ok"
    [row] = content["requests"]
    assert (row["request"], row["state"]) == ("waits", "waiting")


@pytest.mark.parametrize("content", [{"session": 3}, {}])
def test_so_is_one_that_is_none(handlers: ControlHandlers, told: Told, content: Any) -> None:
    handlers.by_type[protocol.GOODBYE](None, b"", {"content": content})
    [(_, answer)] = told.sent
    assert answer["status"] == "error" and answer["failure"]["class"] == "BadRequest"
