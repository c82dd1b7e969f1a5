"""What Jupyter's own MCP server finds: functions, by the entry point, whose signatures say what they take."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from garcon_jupyter.agents import agent_tools, in_jupyter
from garcon_jupyter.agents.agent_session import AgentSession
from garcon_jupyter.servers import registry

ROOT = Path(__file__).parents[2]


def declared() -> list[str]:
    """What the entry point of pyproject.toml gives, as that server reads it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["jupyter_server_mcp.tools"]["garcon"].partition(":")
    found: list[str] = getattr(importlib.import_module(module), name)()
    return found


def test_it_declares_a_function_of_each_tool() -> None:
    assert len(declared()) == len(agent_tools.names())
    for spec, name in zip(declared(), agent_tools.names(), strict=True):
        module, _, attribute = spec.rpartition(":")
        function = getattr(importlib.import_module(module), attribute)
        assert function.__name__ == attribute == f"garcon_{name}"
        assert function.__doc__ == agent_tools.description(name)
        assert inspect.iscoroutinefunction(function)
        taken = inspect.signature(function).parameters
        assert set(taken) == {"server", *agent_tools.schema(name)["properties"]}
        required = {word for word, each in taken.items() if each.default is inspect.Parameter.empty}
        assert required == {"server", *agent_tools.schema(name).get("required", [])}
        for each in taken.values():
            TypeAdapter(each.annotation).json_schema()


def test_it_is_read_without_the_packages_of_agents() -> None:
    code = (
        "import sys; sys.modules['mcp'] = sys.modules['fastmcp'] = None\n"
        "from garcon_jupyter.agents import in_jupyter as j\n"
        "print([getattr(j, t.split(':')[1]).__name__ for t in j.tools()][0], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split()[0] == "garcon_describe", done.stderr


def test_a_function_answers(session: AgentSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_jupyter, "session_of", lambda server: session)
    function: Any = in_jupyter.garcon_forward
    told = asyncio.run(function(server="tiny", prompts=[5, 9, 2], likely=2))
    assert len(told["answer"]["likely"][0][0]) == 2
    told = asyncio.run(function(server="tiny", prompts=[5], reads=[{"point": "layers.0.atn.z"}]))
    assert told["kind"] == "UnknownPoint" and told["remedy"]


def test_the_environment_says_what_is_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        name = "here"

    monkeypatch.setattr(registry, "find", lambda name: Named())
    monkeypatch.setattr(in_jupyter, "_SESSIONS", {})
    assert in_jupyter.session_of("here").allowance.permissions == {"read"}
    monkeypatch.setattr(in_jupyter, "_SESSIONS", {})
    monkeypatch.setenv(in_jupyter.PERMITTED, "edit, steer")
    assert in_jupyter.session_of("here").allowance.permissions == {"read", "edit", "steer"}
