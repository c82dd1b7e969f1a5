"""Sessions of agents, in this process; and real ones, over standard input and output."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere
from garcon_jupyter.agents import agent_tools
from garcon_jupyter.agents.agent_session import AgentSession
from garcon_jupyter.agents.allowances import Allowance
from garcon_jupyter.agents.session_tools import ToolAnswer

ROOT = Path(__file__).parents[2]


def asked(session: AgentSession, name: str, /, **arguments: Any) -> ToolAnswer:
    """What a tool answers."""
    try:
        wanted = agent_tools.read(name, arguments)
    except garcon.GarconError as error:
        return agent_tools.failed(error)
    return agent_tools.submit(session, wanted, threading.Event(), lambda what: None).result()


def ask(session: AgentSession, name: str, /, **arguments: Any) -> dict[str, Any]:
    """What a tool tells; an error fails the test."""
    found = asked(session, name, **arguments)
    assert not found.failed, found.structured
    return found.structured


def refused(session: AgentSession, name: str, /, **arguments: Any) -> dict[str, Any]:
    """The error of a tool; an answer fails the test."""
    found = asked(session, name, **arguments)
    assert found.failed, found.structured
    assert found.structured["problem"]
    return found.structured


@pytest.fixture
def opened(llama_here: ModelHere) -> Iterator[Callable[..., AgentSession]]:
    """Opens sessions with the small Llama, by the words of an allowance."""
    made: list[AgentSession] = []

    def opened(*allow: str, **options: Any) -> AgentSession:
        budgets = {
            word: options.pop(word) for word in ("tokens", "seconds", "bytes") if word in options
        }
        allowance = Allowance.of(allow, **budgets)
        made.append(AgentSession(lambda: garcon.connect(llama_here), allowance, **options))
        return made[-1]

    yield opened
    for session in made:
        session.close()


@pytest.fixture
def session(opened: Callable[..., AgentSession]) -> AgentSession:
    """One that may edit and steer."""
    return opened("edit", "steer")


@pytest.fixture
def served(llama_server: garcon.Server) -> Iterator[Callable[..., AgentSession]]:
    """Opens sessions with the small Llama on a server, whose requests can be called off while they run."""
    made: list[AgentSession] = []

    def served(**budgets: float) -> AgentSession:
        allowance = Allowance.of((), **budgets)
        made.append(AgentSession(lambda: garcon.connect(llama_server.name), allowance))
        return made[-1]

    yield served
    for session in made:
        session.close()


@asynccontextmanager
async def over_stdio(*words: str) -> AsyncIterator[Any]:
    """A real client of the official package, with a real `garcon mcp` at the other end."""
    from mcp.client.session import ClientSession
    from mcp.client.stdio import StdioServerParameters, stdio_client

    kept = ("GARCON_RUNTIME", "GARCON_TESTS", "PYTHONPATH", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")
    environment = {word: os.environ[word] for word in kept if word in os.environ}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'backend'}"
    started = StdioServerParameters(
        command=sys.executable, args=["-m", "garcon_jupyter", "mcp", *words], env=environment
    )
    async with (
        stdio_client(started) as (read, write),
        ClientSession(read, write) as client,
    ):
        await client.initialize()
        yield client
