"""The tools where Jupyter's own MCP server finds them: by the entry point ``jupyter_server_mcp.tools``.

That server registers plain functions, and reads what they take from their signatures. Each takes the name of a model's server first. What it
may do the owner says in the environment of Jupyter: ``GARCON_AGENTS="edit,steer"``; without it, it reads.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, Field
from pydantic_core import PydanticUndefined

from garcon_jupyter.agents import agent_tools
from garcon_jupyter.agents.agent_session import AgentSession
from garcon_jupyter.agents.allowances import Allowance
from garcon_jupyter.agents.session_tools import SESSION_TOOLS
from garcon_jupyter.errors import GarconError
from garcon_jupyter.operations.table import OPERATIONS

PREFIX = "garcon_"
"""Before the names of tools, which lie beside those of other packages."""

PERMITTED = "GARCON_AGENTS"

_SESSIONS: dict[str, AgentSession] = {}
_LOCK = threading.Lock()


def tools() -> list[str]:
    """Where the functions are, as ``module:function``: what the entry point declares."""
    return [f"{__name__}:{PREFIX}{name}" for name in agent_tools.names()]


def __getattr__(name: str) -> Any:
    """The function of a tool, made when it is asked for."""
    if name.startswith(PREFIX) and name.removeprefix(PREFIX) in agent_tools.names():
        return _function(name.removeprefix(PREFIX))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def session_of(server: str) -> AgentSession:
    """The session with a model's server; one for all that ask through Jupyter."""
    from garcon_jupyter.model import RemoteModel
    from garcon_jupyter.servers import registry

    found = registry.find(server).name

    def connect() -> RemoteModel:
        return RemoteModel(registry.find(found), prefer="jupyter agents", lasting=False)

    with _LOCK:
        if found not in _SESSIONS:
            words = os.environ.get(PERMITTED, "").replace(",", " ").split()
            _SESSIONS[found] = AgentSession(connect, Allowance.of(words))
        return _SESSIONS[found]


def _function(name: str) -> Callable[..., Any]:
    async def function(server: str, **given: Any) -> dict[str, Any]:
        gone = threading.Event()

        def work() -> dict[str, Any]:
            try:
                session = session_of(server)
                wanted = agent_tools.read(name, _plain(given))
            except GarconError as error:
                return agent_tools.failed(error).structured
            found = agent_tools.submit(session, wanted, gone, lambda what: None).result()
            return {**found.structured, "text": found.text} if found.text else found.structured

        try:
            return await asyncio.to_thread(work)
        except asyncio.CancelledError:
            gone.set()
            raise

    function.__name__ = function.__qualname__ = f"{PREFIX}{name}"
    function.__doc__ = agent_tools.description(name)
    parameters = _parameters(name)
    signature = inspect.Signature(parameters, return_annotation=dict[str, Any])
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__annotations__ = {
        **{each.name: each.annotation for each in parameters},
        "return": dict[str, Any],
    }
    return function


def _parameters(name: str) -> list[inspect.Parameter]:
    """What a function takes: the server, the fields of the request, and the tool's own words."""
    kind: type[BaseModel] = (
        SESSION_TOOLS[name].request if name in SESSION_TOOLS else OPERATIONS[name].request
    )
    rows: list[tuple[str, Any, Any]] = []
    for word, field in kind.model_fields.items():
        if word != "form":
            told: Any = _told(field.annotation, field.description)
            unset = inspect.Parameter.empty
            rows.append(
                (word, told, unset if field.default is PydanticUndefined else field.default)
            )
    for word, schema in agent_tools.words_of(name).items():
        rows.append((word, _told(bool, schema["description"]), schema["default"]))
    server = _told(str, "name of a model's server; `garcon list` has them")
    rows.insert(0, ("server", server, inspect.Parameter.empty))
    rows.sort(key=lambda row: row[2] is not inspect.Parameter.empty)
    kind_of = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(word, kind_of, annotation=told, default=default)
        for word, told, default in rows
    ]


def _told(kind: Any, words: str | None) -> Any:
    """A type, with what it is in words."""
    return Annotated[kind, Field(description=words)]


def _plain(value: Any) -> Any:
    """Arguments as JSON has them, whoever has read them into models before."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
