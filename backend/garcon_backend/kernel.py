"""Rank 0 as a Jupyter kernel: messages in, replies out.

A genuine IPython kernel, to which consoles can attach (``jupyter console --existing FILE`` sees the
model), with message types of its own. Short questions are answered on the control thread while the
model runs; requests wait for their turn and run on the main thread, where an interrupt reaches them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Type, observe

from garcon_backend import merging
from garcon_backend.idle import IdleClock
from garcon_backend.lockstep import Lockstep, RequestFailed
from garcon_backend.sessions import Client, Queued, Sessions, Turns
from garcon_backend.tokenizing import Tokenizing
from garcon_jupyter.errors import (
    BadRequest,
    CannotTravel,
    GarconError,
    Interrupted,
    VersionMismatch,
)
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire.failures import describe
from garcon_jupyter.wire.requests import Request


class Served:
    """What the kernel serves: made by rank 0 before the kernel starts.

    Attributes:
        facts: plain facts about server and model, sent to every client.
        catalog: points and parameters.
        shared: directory in shared memory for large answers.
        stop: called with a reason when the server shall end.
    """

    def __init__(
        self,
        lockstep: Lockstep,
        tokenizing: Tokenizing,
        clock: IdleClock,
        facts: dict[str, Any],
        catalog: Any,
        shared: Path,
        stop: Callable[[str], None],
    ) -> None:
        self.lockstep, self.tokenizing, self.clock = lockstep, tokenizing, clock
        self.facts, self.catalog, self.shared, self.stop = facts, catalog, shared, stop


class _Shell(ZMQInteractiveShell):
    """IPython beside the model. A console may leave it by `exit`; the server is everybody's."""

    @observe("exit_now")
    def _update_exit_now(self, change: Any) -> None:
        """Where IPython's own shell would end the kernel."""


class GarconKernel(IPythonKernel):
    """The kernel of rank 0."""

    shell_class = Type(_Shell)

    implementation = "garcon"
    banner = "Garçon: rank 0. `model` is the model of this rank."

    control_msg_types = [  # noqa: RUF012 - as its base
        *IPythonKernel.control_msg_types,
        *protocol.CONTROL_MESSAGES,
    ]
    served: ClassVar[Served]
    """Set before the kernel is made: the application makes kernels without arguments."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sessions = Sessions()
        self.turns = Turns()
        self.running: Queued | None = None
        self._wake = asyncio.Event()
        self.served.lockstep.on_output(self._emit)
        self.served.lockstep.executor.output.to(lambda stream, text: self._emit(0, stream, text))

    @property
    def kernel_info(self) -> dict[str, Any]:
        return {**super().kernel_info, "garcon": self.served.facts}

    def start(self) -> None:
        super().start()
        loop = asyncio.get_event_loop_policy().get_event_loop()
        self._tasks = [loop.create_task(self._take_turns()), loop.create_task(self._watch_clock())]

    def _send(self, *args: Any, **kwargs: Any) -> None:
        assert self.session is not None
        self.session.send(*args, **kwargs)

    # -- requests: shell ---------------------------------------------------------------------

    async def shell_channel_thread_main(self, msg: Any) -> None:
        """Put our requests in the row as they come, while the main thread runs another.

        On the thread that reads the shell channel; all other messages go Jupyter's own way.
        """
        assert self.session is not None
        ident, frames = self.session.feed_identities(msg, copy=False)
        try:
            header = self.session.deserialize(frames, content=False, copy=False)["header"]
            if header["msg_type"] == protocol.REQUEST:
                parent = self.session.deserialize(frames, content=True, copy=False)
                self._put(ident, parent)
                return
        except Exception:
            self.log.exception("A message that is none")
            return
        await super().shell_channel_thread_main(msg)

    def _put(self, ident: Any, parent: dict[str, Any]) -> None:
        content = parent["content"]
        item = Queued(
            str(content.get("session", "")),
            parent["header"]["msg_id"],
            str(content.get("kind", "?")),
            (ident, parent),
        )
        self.served.clock.begin()
        self.turns.put(item)
        self.io_loop.add_callback(self._wake.set)

    async def _take_turns(self) -> None:
        while True:
            item = self.turns.next()
            if item is None:
                self._wake.clear()
                await self._wake.wait()
                continue
            self.running = item
            try:
                self._answer(item)
            finally:
                self.running = None
                self.served.clock.end()
            await asyncio.sleep(0)  # a console may have a turn too

    def _answer(self, item: Queued) -> None:
        buffers: list[Any] = []
        try:
            content, buffers = self._run(item, item.message[1])
        except RequestFailed as error:
            content = {"status": "error", "failure": error.failure}
        except BaseException as error:  # noqa: BLE001 - every request is answered
            content = {"status": "error", "failure": describe(_typed(error))}
        manager = self.shell_channel_thread.manager
        self._reply(item, manager.get_subshell_to_shell_channel_socket(None), content, buffers)

    def _reply(self, item: Queued, stream: Any, content: dict[str, Any], buffers: Any = ()) -> None:
        """Answer a request.

        Args:
            stream: a way to the shell channel from this thread.
        """
        ident, parent = item.message
        reply = protocol.reply_type(protocol.REQUEST)
        self._send(stream, reply, content, parent, ident=ident, buffers=list(buffers))
        self._send(self.iopub_socket, "garcon_done", {}, parent, ident=b"garcon")

    def _run(self, item: Queued, parent: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        request = transport.unpack(parent["content"], parent["buffers"])
        if not isinstance(request, Request) or not self.sessions.known(request.session):
            raise BadRequest("This is no request of an open session.", "Connect first.")
        self.sessions.seen(request.session)
        value = self.served.lockstep.run(item.id, request)
        try:
            content, buffers = transport.pack(value, self._shared(parent))
        except CannotTravel as error:
            raise merging.name_culprit(request, value, error) from None
        return {"status": "ok", **content}, buffers

    def _shared(self, parent: dict[str, Any]) -> Path | None:
        return self.served.shared if parent["content"].get("same_host") else None

    def _emit(self, rank: int, stream: str, text: str) -> None:
        """Pass on what user code printed, to the cell whose request it was."""
        if self.running is None:
            return
        parent = self.running.message[1]
        content = {"name": stream, "text": text, "rank": rank}
        self._send(self.iopub_socket, "stream", content, parent, ident=b"stream")

    # -- questions: control ------------------------------------------------------------------

    def _question(
        self, stream: Any, ident: Any, parent: dict[str, Any], answer: Callable[[], dict[str, Any]]
    ) -> None:
        buffers: list[Any] = []
        try:
            content = {"status": "ok", **answer()}
            buffers = content.pop("buffers", [])
        except BaseException as error:  # noqa: BLE001 - every question is answered
            content = {"status": "error", "failure": describe(_typed(error))}
        reply = protocol.reply_type(parent["header"]["msg_type"])
        self._send(stream, reply, content, parent, ident=ident, buffers=buffers)

    def garcon_hello(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Open or resume a session."""

        def answer() -> dict[str, Any]:
            content = parent["content"]
            self._check_version(content)
            client = _client(content)
            session, resumed = self.sessions.open(
                content.get("session"), client, content.get("prefer")
            )
            packed, buffers = transport.pack(self.served.catalog)
            return {
                "session": session.name,
                "resumed": resumed,
                "facts": self.served.facts,
                **packed,
                "buffers": buffers,
            }

        self._question(stream, ident, parent, answer)

    def _check_version(self, content: dict[str, Any]) -> None:
        ours = {"protocol": protocol.PROTOCOL, "python": protocol.python_version()}
        for what, mine in ours.items():
            theirs = content.get(what)
            if theirs != mine:
                raise VersionMismatch(
                    f"The server speaks {what} {mine}, this client {theirs}.",
                    "Install the same garcon-jupyter and Python minor version on both sides.",
                )

    def garcon_status(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """What runs, what waits, who is there."""
        self._question(stream, ident, parent, self._status)

    def _status(self) -> dict[str, Any]:
        running = self.running
        return {
            "running": _row(running) if running else None,
            "waiting": [_row(item) for item in self.turns.waiting()],
            "clients": [
                {
                    "session": s.name,
                    "user": s.client.user,
                    "host": s.client.host,
                    "pid": s.client.pid,
                }
                for s in self.sessions.living()
                if s.client
            ],
            "idle_left": self.served.clock.left,
            "ranks": [_with_memory(rank) for rank in self.served.facts["ranks"]],
        }

    def garcon_cancel(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Stop one request, waiting or running."""

        def answer() -> dict[str, Any]:
            request_id = parent["content"]["request"]
            waiting = self.turns.remove(request_id)
            if waiting is not None:
                thread = self.shell_channel_thread
                thread.io_loop.add_callback(self._refuse, waiting)
                return {"running": False}
            self.served.lockstep.cancel(request_id)
            return {"running": self.running is not None and self.running.id == request_id}

        self._question(stream, ident, parent, answer)

    def _refuse(self, item: Queued) -> None:
        """Answer a request that was cancelled before its turn; on the shell channel's thread."""
        self.served.clock.end()
        interrupted = Interrupted("The request was interrupted before its turn.", "Nothing ran.")
        self._reply(item, self.shell_stream, {"status": "error", "failure": describe(interrupted)})

    def garcon_tokenize(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Text to tokens, and back."""

        def answer() -> dict[str, Any]:
            question = transport.unpack(parent["content"], parent["buffers"])
            packed, buffers = transport.pack(self.served.tokenizing.answer(question))
            return {**packed, "buffers": buffers}

        self._question(stream, ident, parent, answer)

    def garcon_goodbye(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """A client leaves; its session stays."""
        content = parent["content"]

        def answer() -> dict[str, Any]:
            self.sessions.leave(content["session"], _client(content))
            return {}

        self._question(stream, ident, parent, answer)

    def garcon_shutdown(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """End the server, unless others use it."""

        def answer() -> dict[str, Any]:
            content = parent["content"]
            client = _client(content)
            others = [s for s in self.sessions.living() if s.client and not client.same(s.client)]
            if others and not content.get("force"):
                names = ", ".join(f"{s.client.user} ({s.name})" for s in others if s.client)
                raise BadRequest(
                    f"Other clients use this server: {names}.",
                    "shutdown(force=True), or garcon stop --force, ends it for them too.",
                )
            self._stop(f"shut down by {client.user}")
            return {}

        self._question(stream, ident, parent, answer)

    async def shutdown_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Jupyter's own shutdown: a console that closes must not end everybody's server."""
        failure = {"status": "error", "evalue": "Use garcon stop.", "restart": False}
        self._send(stream, "shutdown_reply", failure, parent, ident=ident)

    # -- the end -----------------------------------------------------------------------------

    async def _watch_clock(self) -> None:
        while True:
            left = self.served.clock.left
            await asyncio.sleep(min(5.0, max(0.05, (left or 50.0) / 10)))
            if self.served.clock.expired:
                minutes = self.served.clock.timeout / 60
                self._stop(f"idle for {minutes:.3g} minutes")
                return

    def _stop(self, reason: str) -> None:
        self.served.stop(reason)
        self.io_loop.add_callback(self._finish)

    def _finish(self) -> None:
        self.served.lockstep.stop()
        if self.control_stream:
            self.control_stream.io_loop.add_callback(self.control_stream.io_loop.stop)
        self.io_loop.add_callback(self.io_loop.stop)


def _typed(error: BaseException) -> BaseException:
    """Errors of other libraries that the user should see as ours."""
    if isinstance(error, GarconError):
        return error
    if type(error).__name__ in ("Cancelled", "KeyboardInterrupt"):
        return Interrupted("The request was interrupted.", "Nothing else was lost.")
    if isinstance(error, OSError) and error.errno == 28:
        return CannotTravel(
            f"The answer does not fit into shared memory: {error}.", "Fetch a slice of it."
        )
    return error


def _client(content: dict[str, Any]) -> Client:
    return Client(content.get("user", "?"), content.get("host", "?"), int(content.get("pid", 0)))


def _row(item: Queued) -> dict[str, Any]:
    return {
        "request": item.id,
        "session": item.session,
        "kind": item.kind,
        "seconds": time.time() - item.since,
    }


def _with_memory(rank: dict[str, Any]) -> dict[str, Any]:
    """With the bytes that a rank of this host holds; its number means nothing on another host."""
    import psutil

    memory = None
    if rank["host"] == socket.gethostname():
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(rank["pid"]).memory_info().rss
    return {**rank, "memory": memory}
