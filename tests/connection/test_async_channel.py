"""One event loop, several requests under way: each is answered, and one that is cancelled leaves the others alone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch

import garcon_jupyter as garcon
from garcon_jupyter.connection.async_channel import AsyncChannel, connect
from garcon_jupyter.errors import BadRequest, NotConnected, ServerRestarted
from garcon_jupyter.wire import protocol
from garcon_jupyter.wire import requests as wire
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

pytestmark = pytest.mark.processes


def with_line(
    server: garcon.Server, play: Callable[[AsyncChannel], Coroutine[Any, Any, Any]]
) -> Any:
    """What a coroutine returns that is given a line to a server."""

    async def main() -> Any:
        async with connect(server) as line:
            return await play(line)

    return asyncio.run(main())


async def opened(line: AsyncChannel) -> str:
    """A session of its own."""
    asked = {**line_facts(), "session": None, "prefer": None, "lasting": True}
    return str((await line.ask(protocol.HELLO, asked))["session"])


def line_facts() -> dict[str, Any]:
    return protocol.client_facts()


def about(session: str, kind: str) -> dict[str, Any]:
    return {"session": session, "kind": kind, "behind": False}


def forward(
    line: AsyncChannel, session: str, ids: Any = PROMPT
) -> Coroutine[Any, Any, torch.Tensor]:
    request = wire.Forward(session, batch=wire.Batch(torch.as_tensor(ids)))
    return line.request(about(session, "forward"), request)


def endless(line: AsyncChannel, session: str) -> Coroutine[Any, Any, Any]:
    """A request that runs until it is stopped."""
    source = "import time\nwhile True: time.sleep(0.01)"
    return line.request(about(session, "runonranks"), wire.RunOnRanks(session, source=source))


async def until(line: AsyncChannel, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The server's status, once it is so."""
    async with asyncio.timeout(60):
        while not true(told := await line.ask(protocol.STATUS, {})):
            await asyncio.sleep(0)
    return told


def test_the_numbers_are_those_of_the_model(llama_server: garcon.Server, plain: Plain) -> None:
    async def play(line: AsyncChannel) -> list[torch.Tensor]:
        one, other = await opened(line), await opened(line)
        found = await asyncio.gather(*(forward(line, s) for s in (one, other, one, other)))
        assert line.under_way == 0
        return found

    found = with_line(llama_server, play)
    assert len(found) == 4
    assert all(close(logits, plain.logits(PROMPT)) for logits in found)


def test_two_requests_and_a_question_are_under_way_and_one_is_cancelled(
    llama_server: garcon.Server, plain: Plain
) -> None:
    async def play(line: AsyncChannel) -> None:
        one, other = await opened(line), await opened(line)
        long = asyncio.create_task(endless(line, one))
        running = await until(line, lambda told: told["running"] is not None)
        assert running["running"]["session"] == one
        short = asyncio.create_task(forward(line, other))
        waiting = await until(line, lambda told: len(told["waiting"]) == 1)
        assert waiting["waiting"][0]["session"] == other and not short.done()
        assert line.under_way == 2
        long.cancel()
        assert close(await short, plain.logits(PROMPT))
        with pytest.raises(asyncio.CancelledError):
            await long
        told = await until(line, lambda told: told["running"] is None)
        assert told["waiting"] == [] and line.under_way == 0

    with_line(llama_server, play)


def test_errors_are_typed_and_go_to_who_asked(llama_server: garcon.Server, plain: Plain) -> None:
    async def play(line: AsyncChannel) -> list[Any]:
        session = await opened(line)
        wrong = line.request({"session": "nobody"}, {"not": "a request"})
        both = await asyncio.gather(wrong, forward(line, session), return_exceptions=True)
        with pytest.raises(BadRequest, match="request"):
            await line.ask(protocol.CANCEL, {})
        return both

    refused, logits = with_line(llama_server, play)
    assert isinstance(refused, BadRequest) and close(logits, plain.logits(PROMPT))


def test_prints_go_to_the_request_that_printed(llama_server: garcon.Server) -> None:
    heard: dict[str, list[str]] = {"one": [], "two": []}

    async def play(line: AsyncChannel) -> None:
        session = await opened(line)
        say = [
            line.request(
                about(session, "runonranks"),
                wire.RunOnRanks(session, source=f"print({word!r})"),
                lambda rank, stream, text, word=word: heard[word].append(text),
            )
            for word in heard
        ]
        await asyncio.gather(*say)

    with_line(llama_server, play)
    assert {word: "".join(texts).split() for word, texts in heard.items()} == {
        "one": ["one"],
        "two": ["two"],
    }


def test_large_values_from_another_host(llama_server: garcon.Server, plain: Plain) -> None:
    """By the socket for data, in a thread, while the loop goes on."""
    ids = (torch.arange(64 * 96).view(64, 96) * 37 + 11) % 263

    async def play(line: AsyncChannel) -> list[torch.Tensor]:
        session = await opened(line)
        line.same_host = False
        return await asyncio.gather(forward(line, session, ids), forward(line, session))

    large, small = with_line(llama_server, play)
    assert close(large, plain.logits(ids.tolist())) and close(small, plain.logits(PROMPT))


def test_a_line_that_was_closed_is_refused(llama_server: garcon.Server) -> None:
    async def main() -> None:
        async with connect(llama_server) as line:
            await line.ask(protocol.STATUS, {})
        with pytest.raises(NotConnected, match="was closed"):
            await line.ask(protocol.STATUS, {})

    asyncio.run(main())


def test_a_lost_rank_fails_what_is_under_way_and_the_next_is_right(
    llama_path: Path, plain: Plain
) -> None:
    server = garcon.launch(llama_path, name="lost-below", progress=quiet)

    async def play(line: AsyncChannel) -> torch.Tensor:
        session = await opened(line)
        long = asyncio.create_task(endless(line, session))
        told = await until(line, lambda told: told["running"] is not None)
        os.kill(told["ranks"][0]["pid"], signal.SIGKILL)
        with pytest.raises(ServerRestarted):
            await long
        return await forward(line, await opened(line))

    try:
        assert close(with_line(server, play), plain.logits(PROMPT))
    finally:
        garcon.connect(server.name).shutdown(force=True)
