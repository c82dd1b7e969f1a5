"""The line to one server by sockets, for a program that does other things meanwhile: several requests under way.

Where a :class:`~garcon_jupyter.connection.channel.Channel` blocks a thread until its one request is answered, this one is
awaited, and sends the next while others are under way: what a program needs that answers many at once, such as a server of
its own. The server runs one request after the other all the same, sessions in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import zmq.asyncio

from garcon_jupyter.connection import liveness, prints
from garcon_jupyter.connection.liveness import TICK, WatchedSockets
from garcon_jupyter.connection.pending import LONG, PendingReply
from garcon_jupyter.connection.route import Route
from garcon_jupyter.errors import GarconError
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire.failures import checked


class _UnderWay(PendingReply):
    """A message that is waited for, and what its answer goes to."""

    def __init__(self, message: dict[str, Any], session: str, show: prints.Show) -> None:
        super().__init__(message["header"]["msg_id"], session, show)
        self.message = message
        self.answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def look(self) -> None:
        """Hand over the answer, once it is there with all that was printed before it."""
        if self.over and not self.answer.done():
            assert self.reply is not None
            self.answer.set_result(self.reply)


class AsyncChannel(WatchedSockets):
    """Talks to one server from one event loop; any number of tasks may ask and request at once.

    Args:
        file: the connection file.
        why_gone: tells why the server ended, when it has.
        route: by which it is reached, if by one that can be lost; held until the channel is closed.

    Examples:
        Made by :func:`connect`, inside the loop: ``async with connect(server) as line: await line.ask(…)``.
    """

    def __init__(
        self, file: Path, why_gone: Callable[[], str] = lambda: "", route: Route | None = None
    ) -> None:
        self._under_way: dict[str, _UnderWay] = {}
        self._listening: list[asyncio.Task[None]] = []
        self._ears: list[zmq.asyncio.Socket] = []
        self._following = asyncio.Lock()
        self._kept = contextlib.ExitStack()
        super().__init__(file, why_gone, route)
        if route:
            self._kept.enter_context(route)

    @property
    def under_way(self) -> int:
        """How many messages are waited for."""
        return len(self._under_way)

    async def ask(self, kind: str, content: dict[str, Any], buffers: Any = ()) -> dict[str, Any]:
        """Ask on the control channel; answered even while the model is busy.

        Returns:
            The content of the answer, and its "buffers".

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerGone: no answer.
            GarconError: what the server answered.
        """
        await self._follow_server()
        waiting = self._made(kind, content, "", prints.silent)
        try:
            async with asyncio.timeout(liveness.ANSWER_TIME):
                await self._post(self._to_control, waiting, buffers)
                return checked(await waiting.answer)
        except TimeoutError:
            raise self._hangs() from None
        finally:
            del self._under_way[waiting.message_id]

    async def request(
        self, content: dict[str, Any], value: Any, show: prints.Show = prints.plain
    ) -> Any:
        """Send a request and wait for its answer. A task that is cancelled meanwhile cancels its request, and no other.

        Args:
            content: whose it is, its kind, and whether it stands behind what persons run.
            value: the request, of :mod:`garcon_jupyter.wire.requests`.
            show: shows meanwhile what it prints.

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerGone: the server ended.
            ServerRestarted: it lost a rank, and starts anew.
            GarconError: what the server answered.
        """
        await self._follow_server()
        session = content.get("session", "")
        give = partial(self._data.give, session) if self._by_socket else None
        pack = partial(transport.pack, value, self._shared, give=give)
        packed, raw = await asyncio.to_thread(pack) if give else pack()
        way = {"same_host": self.same_host, "by_socket": self._by_socket}
        waiting = self._made(protocol.REQUEST, {**content, **packed, **way}, session, show)
        try:
            await self._post(self._to_shell, waiting, raw)
            reply = await waiting.answer
        except asyncio.CancelledError:
            await self._say(protocol.CANCEL, {"request": waiting.message_id})
            raise
        finally:
            del self._under_way[waiting.message_id]
        if time.monotonic() - waiting.since > LONG:
            await self._say(protocol.RECEIVED, {"session": session, "request": waiting.message_id})
        transport.discard(packed)  # where the server refused to look at it
        answer = checked(reply)
        take = self._data.take if self._by_socket else None
        opened = partial(
            transport.unpack, answer, answer["buffers"], shared=self._shared, take=take
        )
        return await asyncio.to_thread(opened) if take else opened()

    async def close(self) -> None:
        """Hang up; what is under way is waited for no more, and goes on on the server."""
        await self._stop_listening()
        self._closed = True
        self._disconnect()
        self._kept.close()

    # -- listening -------------------------------------------------------------------------------

    def _made(
        self, kind: str, content: dict[str, Any], session: str, show: prints.Show
    ) -> _UnderWay:
        """A message that is about to be sent, and is waited for from now on."""
        message: Any = self._session.msg(kind, content)
        waiting = _UnderWay(message, session, show)
        self._under_way[waiting.message_id] = waiting
        return waiting

    async def _post(self, to: zmq.asyncio.Socket, waiting: _UnderWay, buffers: Any) -> None:
        # By the very socket that listens. ZMQ tells once that there is news: sent by another name of the same socket, a
        # message would use that up, and an answer that had come would lie there unheard.
        frames = [*self._session.serialize(waiting.message), *buffers]
        await to.send_multipart(frames, copy=False)

    async def _say(self, kind: str, content: dict[str, Any]) -> None:
        """Tell the server something; nobody waits for an answer."""
        message: Any = self._session.msg(kind, content)
        await self._to_control.send_multipart(self._session.serialize(message), copy=False)

    async def _follow_server(self) -> None:
        """Connect anew where the server was started anew, and listen."""
        async with self._following:
            self._check_usable()
            if self._listening and not self._has_changed():
                return
            await self._stop_listening()
            await asyncio.to_thread(self.follow, prints.notice)
            await asyncio.to_thread(self.wait_for_prints)
            self._listen()

    def _listen(self) -> None:
        self._to_control, self._to_shell, prints_from = self._ears = [
            zmq.asyncio.Socket(shadow=sock) for sock in (self._control, self._shell, self._iopub)
        ]
        for ear in self._ears:
            hear = self._hear if ear is prints_from else self._take_reply
            self._listening.append(asyncio.create_task(self._receive_all(ear, hear)))
        self._pulse.heard()
        self._listening.append(asyncio.create_task(self._watch()))

    async def _stop_listening(self) -> None:
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        for ear in self._ears:
            ear.close(linger=0)
        self._listening, self._ears = [], []

    async def _receive_all(
        self, ear: zmq.asyncio.Socket, hear: Callable[[dict[str, Any]], None]
    ) -> None:
        while True:
            message = self._message(await ear.recv_multipart())
            self._pulse.heard()
            if message is not None:
                hear(message)

    def _take_reply(self, message: dict[str, Any]) -> None:
        waiting = self._under_way.get(message["parent_header"].get("msg_id", ""))
        if waiting:
            waiting.reply, waiting.until = message, time.monotonic() + 2.0
            waiting.look()

    def _hear(self, message: dict[str, Any]) -> None:
        waiting = self._under_way.get(message["parent_header"].get("msg_id", ""))
        if waiting and message["msg_type"] == "stream":
            waiting.heard += 1
            content = message["content"]
            waiting.show(content.get("rank", 0), content["name"], content["text"])
            waiting.look()

    async def _watch(self) -> None:
        """While something is waited for, look whether the server lives, and fail all of it where it does not."""
        while True:
            await asyncio.sleep(TICK)
            for waiting in list(self._under_way.values()):
                waiting.look()
            if not self._under_way:
                self._pulse.heard()
                continue
            try:
                await asyncio.to_thread(self._check_alive)
                if self._pulse.silence > liveness.ANSWER_TIME:
                    raise self._hangs()
            except GarconError as error:
                self._fail_all(error)
            if self._pulse.socket.poll(0):
                self._pulse.heard()
            self._pulse.ask()

    def _fail_all(self, error: GarconError) -> None:
        for waiting in self._under_way.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(error)


@contextlib.asynccontextmanager
async def connect(server: Any) -> AsyncIterator[AsyncChannel]:
    """A line to a running server, as long as the block lasts.

    Args:
        server: of :func:`garcon_jupyter.servers` or :func:`garcon_jupyter.launch`.
    """
    line = AsyncChannel(server.file, server.why_gone, server.tunnel)
    try:
        yield line
    finally:
        await line.close()
