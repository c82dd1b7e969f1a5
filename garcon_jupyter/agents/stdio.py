"""The tools over the Model Context Protocol, at standard input and output: what ``garcon mcp`` runs."""

from __future__ import annotations

import asyncio
import base64
import importlib.metadata
import json
import threading
from typing import Any

from garcon_jupyter.agents import agent_tools
from garcon_jupyter.agents.agent_session import AgentSession
from garcon_jupyter.agents.allowances import PERMISSIONS
from garcon_jupyter.agents.session_tools import SESSION_TOOLS, ToolAnswer
from garcon_jupyter.errors import BadRequest, GarconError
from garcon_jupyter.operations.table import OPERATIONS

NAME, PACKAGE = "garcon", "garcon-jupyter"


def instructions(session: AgentSession) -> str:
    """What the agent is told first."""
    allowance = session.allowance
    may = "; ".join(f"{word}: {PERMISSIONS[word]}" for word in sorted(allowance.permissions))
    return (
        "Look inside a language model. Begin with describe and points: a point is a named activation, such as layers.4.attn.z. "
        f"Permitted: {may}. Budget: {allowance.tokens:,} tokens, {allowance.seconds:g} seconds, {allowance.bytes:,} bytes; "
        "estimate=true says what a request costs before it is run, and the tool budget says what is left. Arrays are told in short and kept under "
        "kept_as; read_array and draw_array show parts of them. effects, patch and attribute come with a control: hold what you find against it."
    )


def serve(session: AgentSession) -> None:
    """Answer whoever is at the other end, until it hangs up.

    Raises:
        BadRequest: the package is not installed.
    """
    _package()
    try:
        asyncio.run(_served(session))
    finally:
        session.close()


def _package() -> None:
    try:
        import mcp.server.lowlevel  # noqa: F401
    except ImportError as error:
        raise BadRequest(
            f"Tools of agents need {error.name}, which is not installed.",
            'pip install "garcon-jupyter[agents]".',
        ) from None


async def _served(session: AgentSession) -> None:
    from mcp.server.stdio import stdio_server

    server = made(session)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def made(session: AgentSession) -> Any:
    """A server of the protocol, of the official package, with the tools of a session."""
    import mcp_types as types
    from mcp.server.lowlevel import Server

    async def listed(context: Any, params: Any) -> Any:
        return types.ListToolsResult(tools=[_tool(name) for name in agent_tools.names()])

    async def called(context: Any, params: Any) -> Any:
        async def progress(what: dict[str, Any]) -> None:
            await context.session.report_progress(what["progress"], what["total"], what["message"])

        return _result(await _answered(session, params.name, params.arguments or {}, progress))

    return Server(
        NAME,
        version=importlib.metadata.version(PACKAGE),
        instructions=instructions(session),
        on_list_tools=listed,
        on_call_tool=called,
    )


def _tool(name: str) -> Any:
    import mcp_types as types

    reads = name in SESSION_TOOLS or OPERATIONS[name].permission == "read"
    return types.Tool(
        name=name,
        description=agent_tools.description(name),
        input_schema=agent_tools.schema(name),
        output_schema={"type": "object"},
        annotations=types.ToolAnnotations(read_only_hint=reads, open_world_hint=False),
    )


async def _answered(
    session: AgentSession, name: str, arguments: dict[str, Any], progress: Any
) -> ToolAnswer:
    """An answer; when whoever asked has gone the request is called off, whether it waits or runs."""
    try:
        wanted = agent_tools.read(name, arguments)
    except GarconError as error:
        return agent_tools.failed(error)
    loop, gone = asyncio.get_running_loop(), threading.Event()
    told: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def tell(what: dict[str, Any] | None) -> None:
        if not gone.is_set():
            loop.call_soon_threadsafe(told.put_nowait, what)

    work = agent_tools.submit(session, wanted, gone, tell)
    work.add_done_callback(lambda _: tell(None))
    try:
        while (what := await told.get()) is not None:
            await progress(what)
        return await asyncio.wrap_future(work)
    except asyncio.CancelledError:
        gone.set()
        work.cancel()
        raise


def _result(answer: ToolAnswer) -> Any:
    import mcp_types as types

    words = json.dumps(answer.structured, ensure_ascii=False)
    content: list[Any] = [types.TextContent(type="text", text=words)]
    if answer.text:
        content.append(types.TextContent(type="text", text=answer.text))
    if answer.image is not None:
        data = base64.b64encode(answer.image).decode()
        content.append(types.ImageContent(type="image", data=data, mime_type="image/png"))
    return types.CallToolResult(
        content=content, structured_content=answer.structured, is_error=answer.failed
    )
