"""A real client of the official package, with a real `garcon mcp` at the other end."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import nbformat
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.agents import agent_tools
from tests.agents.conftest import over_stdio

pytestmark = pytest.mark.processes

IDS = [5, 9, 2, 17, 30, 8]


async def _listed(client: Any) -> None:
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert [*tools] == agent_tools.names()
    for name, tool in tools.items():
        assert tool.input_schema == json.loads(json.dumps(agent_tools.schema(name)))
        assert tool.description == agent_tools.description(name)
    assert tools["forward"].annotations.read_only_hint
    assert not tools["steer"].annotations.read_only_hint


async def _answered(client: Any) -> None:
    told = await client.call_tool("lens", {"prompt": IDS})
    assert not told.is_error
    assert json.loads(told.content[0].text) == told.structured_content
    name = told.structured_content["answer"]["values"]["kept_as"]
    drawn = await client.call_tool("draw_array", {"name": name, "places": [0]})
    kinds = [each.type for each in drawn.content]
    assert kinds == ["text", "text", "image"] and drawn.content[2].mime_type == "image/png"
    assert base64.b64decode(drawn.content[2].data).startswith(b"\x89PNG")
    log = await client.call_tool("notebook", {})
    nbformat.validate(nbformat.reads(log.content[1].text, as_version=4))


async def _refused(client: Any) -> None:
    for name, request, kind in (
        ("forwad", {}, "UnknownName"),
        ("forward", {"prompts": IDS, "reads": [{"point": "layers.0.atn.z"}]}, "UnknownPoint"),
        ("forward", {"prompts": IDS, "edits": [{"point": "layers.0.attn.z"}]}, "NotPermitted"),
        ("forward", {"prompts": 7}, "BadRequest"),
    ):
        told = await client.call_tool(name, request)
        assert told.is_error and told.structured_content["kind"] == kind
        assert told.structured_content["remedy"]


async def _told_of_progress(client: Any) -> None:
    told: list[tuple[float, float | None, str | None]] = []

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    request = {"prompts": IDS, "max_new_tokens": 5}
    await client.call_tool("generate", request, progress_callback=tell)
    passes = [progress for progress, _, _ in told]
    assert passes == sorted(set(passes)) and passes[-1] == told[0][1] == 6
    assert len(passes) > 2


async def _called_off(client: Any) -> None:
    """A client that stops waiting ends the request, and the next is answered."""
    begun = asyncio.Event()

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        if progress > 0:
            begun.set()

    request = {"prompts": [IDS] * 64, "max_new_tokens": 100}
    waiting = asyncio.create_task(client.call_tool("generate", request, progress_callback=tell))
    await asyncio.wait_for(begun.wait(), 60)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    before = (await client.call_tool("budget", {})).structured_content["looks"]
    told = await client.call_tool("lens", {"prompt": IDS})
    assert told.structured_content["looks"]["so_far"] == before + 1


PARTS: tuple[Callable[[Any], Awaitable[None]], ...] = (
    _listed,
    _answered,
    _refused,
    _told_of_progress,
    _called_off,
)


def test_the_protocol(llama_server: garcon.Server) -> None:
    async def all_parts() -> None:
        async with over_stdio(llama_server.name) as client:
            for part in PARTS:
                await part(client)

    asyncio.run(all_parts())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["no-such-server"], "no-such-server"),
        (["tiny", "--allow", "everything"], "There is no permission 'everything'."),
        (["tiny", "--tokens", "0"], "A budget of 0 tokens allows nothing."),
    ],
)
def test_what_the_command_refuses(llama_server: garcon.Server, words: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "garcon_jupyter", "mcp", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 1 and says in done.stderr and not done.stdout
