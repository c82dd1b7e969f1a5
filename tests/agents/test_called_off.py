"""What runs on a server is called off while it runs: by the budget of seconds, and by the agent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from garcon_jupyter.agents.agent_session import AgentSession
from tests.agents.conftest import ask, refused

pytestmark = pytest.mark.processes

IDS = [5, 9, 2, 17, 30, 8]


def test_a_request_that_outlasts_the_seconds_is_called_off(
    served: Callable[..., AgentSession],
) -> None:
    session = served(seconds=0.02)
    told = refused(session, "generate", prompts=[IDS] * 64, max_new_tokens=100)
    assert told["kind"] == "NotPermitted" and "called off" in told["problem"]
    told = refused(session, "lens", prompt=IDS)
    assert told["problem"] == "The budget of 0.02 seconds is spent."
    assert ask(session, "tokenize", texts=["a"])  # what takes no pass is still answered


def test_tasks_go_on_are_asked_after_and_called_off(served: Callable[..., AgentSession]) -> None:
    session = served()
    begun = ask(session, "generate", prompts=IDS, max_new_tokens=3, background=True)
    done = ask(session, "task", name=begun["task"], what="result", seconds=60)
    again = ask(session, "generate", prompts=IDS, max_new_tokens=3)
    assert done["answer"] == again["answer"]
    assert ask(session, "task", name=begun["task"])["state"] == "done"
    long = ask(session, "generate", prompts=[IDS] * 64, max_new_tokens=100, background=True)
    ask(session, "task", name=long["task"], what="cancel")
    told = refused(session, "task", name=long["task"], what="result", seconds=60)
    assert told["kind"] == "Interrupted"
    assert ask(session, "lens", prompt=IDS)  # the model goes on
