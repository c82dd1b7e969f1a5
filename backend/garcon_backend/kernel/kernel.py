"""Rank 0 as a Jupyter kernel: messages in, replies out.

A genuine IPython kernel, to which consoles can attach (``jupyter console --existing FILE`` sees the
model), with message types of its own. Requests wait for their turn and run on the main thread, where an
interrupt reaches them; short questions are answered meanwhile (:mod:`garcon_backend.kernel.control`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from typing import Any, ClassVar

from ipykernel.ipkernel import IPythonKernel
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Type, observe

from garcon_backend.kernel.answering import Answering
from garcon_backend.kernel.context import KernelContext
from garcon_backend.kernel.control import ControlHandlers
from garcon_backend.kernel.forgetting import forget_gone
from garcon_backend.kernel.messages import Messages
from garcon_backend.kernel.orphans import Orphans
from garcon_backend.kernel.outcomes import EndedRequest
from garcon_backend.kernel.queue_places import MOMENT, QueuePlaces
from garcon_backend.lockstep.turns import Queued
from garcon_backend.process import memory
from garcon_backend.process.output import log
from garcon_backend.runs.run import DataRun
from garcon_backend.runs.server_runs import Runs
from garcon_jupyter.errors import BadRequest, Interrupted
from garcon_jupyter.wire import contents, protocol, transport
from garcon_jupyter.wire.checking import check_content
from garcon_jupyter.wire.failures import describe

_CLOSED = ("debug_request", "create_subshell_request", "delete_subshell_request")
"""What Jupyter's kernels do and this one does not: a debugger listens on a port that asks for no key, and every
subshell is a thread for ever."""

_LOOK = 1.0
"""Seconds between two looks at whether the client of the running request lives."""


class _Shell(ZMQInteractiveShell):
    """IPython beside the model. A console may leave it by `exit`; the server is everybody's."""

    @observe("exit_now")
    def _update_exit_now(self, change: Any) -> None:
        """Where IPython's own shell would end the kernel."""


class GarconKernel(IPythonKernel):
    """The kernel of rank 0.

    Attributes:
        served: set before the kernel is made: the application makes kernels without arguments.
    """

    served: ClassVar[KernelContext]

    shell_class = Type(_Shell)

    implementation = "garcon"
    banner = "Garçon: rank 0. `model` is the model of this rank."

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for kind in _CLOSED:
            del self.control_handlers[kind]
        assert self.session is not None
        self.sessions, self.turns = self.served.sessions, self.served.turns
        for name in self.served.lockstep.recorded.sessions():  # of before a rank was lost
            self.sessions.found(name)
        self.messages = Messages(self.session)
        self.places = QueuePlaces(self.turns, self.served.user, self._tell_place)
        self._looking = False
        timeout = self.served.clock.timeout
        self._orphans = Orphans(timeout if timeout > 0 else None)
        self._wake = asyncio.Event()
        self.runs = Runs(
            self.served.lockstep,
            self.served.tokenizing.tokenizer,
            self.served.catalog.sizes,
            self.served.checkpoints,
            self._queue,
        )
        self._answering = Answering(self.served, self.runs)
        self.control = ControlHandlers(
            self.served, self.runs, self.places, self._take_out, self._stop
        )
        self.control_handlers |= {kind: partial(self._tell, kind) for kind in self.control.kinds}
        self.served.lockstep.on_output(self._emit)
        self.served.lockstep.executor.rank.output.to(self._emit_mine)

    @property
    def kernel_info(self) -> dict[str, Any]:
        """What clients are told of the kernel: as of any, and the facts of the server."""
        return {**super().kernel_info, "supported_features": [], "garcon": self.served.facts}

    def start(self) -> None:
        """Begin to answer; runs that were cut short are back before anybody can ask."""
        with self.runs.lock:  # nobody is told of runs before those that were cut short are back
            super().start()
            self.runs.revive()
        loop = asyncio.get_event_loop_policy().get_event_loop()
        self._tasks = [loop.create_task(self._take_turns()), loop.create_task(self._watch_clock())]
        assert self.control_thread is not None
        self.control_thread.io_loop.add_callback(self._look_for_orphans)

    def _tell(self, kind: str, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Answer a short question, on the control channel's thread."""
        content, buffers = self.control.answer(kind, parent)
        send = partial(self.messages.send, stream, protocol.reply_type(kind), content, parent)
        memory.patiently(partial(send, ident=ident, buffers=buffers))

    # -- requests: shell ---------------------------------------------------------------------

    async def shell_channel_thread_main(self, msg: Any) -> None:
        """Put our requests in the queue as they come, while the main thread runs another.

        On the thread that reads the shell channel; all other messages go Jupyter's own way.
        """
        assert self.session is not None
        try:
            ident, frames = self.session.feed_identities(msg, copy=False)
            header = self.session.unpack(frames[1].bytes)  # type: ignore[union-attr]  # checked below
            if header["msg_type"] == protocol.REQUEST:
                check_content(header, contents.Header)
                parent = self.session.deserialize(frames, content=True, copy=False)
                self._put(ident, parent)
                return
        except Exception:
            self.log.exception("A message that is none")
            return
        await super().shell_channel_thread_main(msg)

    async def shell_main(self, subshell_id: str | None, msg: Any) -> None:
        """As its base, but nothing that a message is made of escapes: the channel might fall silent."""
        try:
            await super().shell_main(subshell_id, msg)
        except Exception:
            self.log.exception("A message that is none")

    async def process_control(self, msg: Any) -> None:
        """Likewise on the control channel."""
        try:
            await super().process_control(msg)
        except Exception:
            self.log.exception("A control message that is none")

    def _put(self, ident: Any, parent: dict[str, Any]) -> None:
        content, message = parent["content"], (ident, parent)
        try:
            check_content(content, contents.of(protocol.REQUEST))
        except BadRequest as error:
            item = Queued("", parent["header"]["msg_id"], "?", message)
            refusal = {"status": "error", "failure": describe(error)}
            self._reply(item, self.shell_stream, refusal)
            return
        parent["take"] = self._claimed(content)
        session, kind = content.get("session", ""), content.get("kind", "?")
        behind = content.get("behind", False)
        self._queue(Queued(session, parent["header"]["msg_id"], kind, message, behind))

    def _claimed(self, content: dict[str, Any]) -> transport.Take:
        """What came over the socket for data before a request; it waits its turn together with it."""
        described = content.get("value")
        name = described.get("transfer") if isinstance(described, dict) else None
        data = self.served.data
        whole = data.claim(name) if data and isinstance(name, str) else None

        def take(_: str, size: int) -> memoryview:
            if whole is None or whole.nbytes != size:
                raise BadRequest("A request names a transfer that did not come.", "Send it again.")
            return whole

        return take

    def _queue(self, item: Queued) -> None:
        self.served.clock.begin()
        self.turns.put(item)
        if self.served.lockstep.is_cancelled(item.id):  # the cancellation was faster
            self._take_out(item.id)
        self.io_loop.add_callback(self._wake.set)
        self.shell_channel_thread.io_loop.add_callback(self._look_at_queue)

    def _take_out(self, request_id: str) -> bool:
        """Take a waiting request out of the queue and answer it; whether it waited."""
        waiting = self.turns.remove(request_id)
        if waiting is None:
            return False
        log(f"cancelled {request_id} while queued")
        self.shell_channel_thread.io_loop.add_callback(self._refuse, waiting)
        return True

    def _refuse(self, item: Queued) -> None:
        """Answer a request that was cancelled before its turn; on the shell channel's thread."""
        self.served.clock.end()
        if isinstance(item.message, DataRun):
            self.runs.cancel_waiting(item.message)
            return
        interrupted = Interrupted("The request was interrupted before its turn.", "Nothing ran.")
        self._reply(item, self.shell_stream, {"status": "error", "failure": describe(interrupted)})

    def _look_at_queue(self, again: bool = False) -> None:
        """Tell those who wait their places, as long as anybody does; on the shell channel's thread."""
        if self._looking and not again:
            return
        self._looking = self.places.look()
        if self._looking:
            loop = self.shell_channel_thread.io_loop
            loop.call_later(MOMENT, self._look_at_queue, True)

    def _tell_place(self, item: Queued, content: dict[str, Any]) -> None:
        if not isinstance(item.message, DataRun):
            parent = item.message[1]
            self.messages.send(
                self.iopub_socket, protocol.WAITING, content, parent, ident=b"waiting"
            )

    async def _take_turns(self) -> None:
        while True:
            item = self.turns.next()
            if item is None:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self.turns.pause)
                continue
            try:
                if not self._abandoned(item):
                    self._answer(item)
            except Exception:
                self.log.exception("A request that could not be answered")
            finally:
                self.turns.end(item)
                self.served.clock.end()
            await asyncio.sleep(0)  # a console may have a turn too

    def _abandoned(self, item: Queued) -> bool:
        """Whether nobody waits for a request: its client ended, and had not detached from it."""
        if isinstance(item.message, DataRun) or self.served.outcomes.detached(item.id):
            return False
        return self.sessions.vanished(item.session)

    def _look_for_orphans(self) -> None:
        """Stop a request that has run for too long without a client; on the control channel's thread."""
        running = self.served.running
        orphan = running if running and self._abandoned(running) else None
        others = bool(self.turns.waiting())
        if found := self._orphans.look(orphan, others, time.monotonic()):
            log(f"stops {found.id}: its client has ended")
            self.served.lockstep.cancel(found.id)
        self.control_thread.io_loop.call_later(_LOOK, self._look_for_orphans)

    def _answer(self, item: Queued) -> None:
        if isinstance(item.message, DataRun):
            self.runs.turn(item.message)
            return
        parent = item.message[1]
        content, buffers = self._answering.answer(item, parent, parent.pop("take"))
        manager = self.shell_channel_thread.manager
        self._reply(item, manager.get_subshell_to_shell_channel_socket(None), content, buffers)

    def _reply(self, item: Queued, stream: Any, content: dict[str, Any], buffers: Any = ()) -> None:
        """Answer a request.

        Args:
            stream: a way to the shell channel from this thread.
        """
        ident, parent = item.message
        reply = protocol.reply_type(protocol.REQUEST)
        buffers = list(buffers)
        outcome = EndedRequest(item.session, item.id, item.kind, content, buffers, item.prints)
        self.served.outcomes.keep(outcome, item.since)
        self.turns.end(item)  # whoever has the answer and asks what runs must not be told of it
        self.messages.send(stream, reply, content, parent, ident=ident, buffers=buffers)

    def _emit_mine(self, stream: str, text: str) -> None:
        with self.served.lockstep.executor.rank.interrupts.held():
            self._emit(0, stream, text)

    def _emit(self, rank: int, stream: str, text: str) -> None:
        """Pass on what user code printed, to the cell whose request it was."""
        running = self.served.running  # a thread of the user may print as its request ends
        if running is None:
            return
        if isinstance(running.message, DataRun):
            running.message.print(rank, stream, text)
            return
        parent = running.message[1]
        running.printed += 1
        running.prints.append((rank, stream, text))
        content = {"name": stream, "text": text, "rank": rank}
        self.messages.send(self.iopub_socket, "stream", content, parent, ident=b"stream")

    async def shutdown_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Jupyter's own shutdown: a console that closes must not end everybody's server."""
        failure = {"status": "error", "evalue": "Use garcon stop.", "restart": False}
        self.messages.send(stream, "shutdown_reply", failure, parent, ident=ident)

    # -- the end -----------------------------------------------------------------------------

    async def _watch_clock(self) -> None:
        while True:
            left = self.served.clock.left
            await asyncio.sleep(min(5.0, max(0.05, (left or 50.0) / 10)))
            for name in forget_gone(self.served, self.runs, self.control.is_empty):
                log(f"forgot the session {name}, whose client is gone")
            self._forget_input()
            memory.give_back()
            if warning := self.served.clock.warn():
                self.messages.send(self.iopub_socket, protocol.IDLE_WARNING, warning, ident=b"idle")
            if self.served.clock.expired:
                minutes = self.served.clock.timeout / 60
                self._stop(f"idle for {minutes:.3g} minutes")
                return

    def _forget_input(self) -> None:
        """Drop what came as input while no code asked for any; it would wait in memory for ever."""
        for _ in range(10_000):
            if not self.stdin_socket or not self.stdin_socket.poll(0):
                return
            self.stdin_socket.recv_multipart(copy=False)

    def _stop(self, reason: str) -> None:
        self.served.stop(reason)
        self.io_loop.add_callback(self._finish)

    def _finish(self) -> None:
        self.served.lockstep.stop()
        if self.control_stream:
            self.control_stream.io_loop.add_callback(self.control_stream.io_loop.stop)
        self.io_loop.add_callback(self.io_loop.stop)
