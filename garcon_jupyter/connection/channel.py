"""The line to one server by sockets: messages out, replies and prints in.

A request blocks the calling thread; while it waits it passes on what the request prints, notices a server
that died, and turns a first interrupt into a cancellation of that very request.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from garcon_jupyter.connection import called_off, liveness, prints
from garcon_jupyter.connection.liveness import TICK, WatchedSockets
from garcon_jupyter.connection.pending import LONG, PendingReply
from garcon_jupyter.connection.route import Route
from garcon_jupyter.errors import BadRequest, Interrupted
from garcon_jupyter.wire import protocol, runs, transport
from garcon_jupyter.wire.failures import checked

AGAIN = 4.0
"""Seconds after which a question that was not answered is asked again."""

ASKED_ONCE = (protocol.HELLO, protocol.TOKENIZE)
"""Questions that are not, as those that begin a run: one would open another session, the other may be work that takes so long."""


class Channel(WatchedSockets):
    """Talks to one server: the :class:`~garcon_jupyter.connection.connection.Connection` by sockets. Safe to use from several threads, one request at a time.

    It belongs to the process that made it. A fork has copies of its sockets, whose other ends know nothing of that,
    and of its locks, which a thread may hold that the fork does not have: so a fork is refused before it touches any.

    Args:
        file: the connection file.
        why_gone: tells why the server ended, when it has.
        route: by which it is reached, if by one that can be lost; held until the channel is closed.

    Attributes:
        request_id: of the request that is waited for; None while there is none.
        took: seconds that the last request ran on the server.
        warn: called with the seconds that are left when the server is about to end because nobody uses it.
    """

    def __init__(
        self, file: Path, why_gone: Callable[[], str] = lambda: "", route: Route | None = None
    ) -> None:
        self.request_id: str | None = None
        self.took = 0.0
        self.warn: Callable[[float], None] = lambda seconds: None
        self._heeded = 0
        self._kept = contextlib.ExitStack()
        super().__init__(file, why_gone, route)
        if route:
            self._kept.enter_context(route)

    def close(self, patience: float = 0.0) -> None:
        """Hang up; in a fork, nothing.

        Args:
            patience: seconds in which a request of another thread may end before.
        """
        if not self.mine:
            return
        ended = patience > 0 and self._request_lock.acquire(timeout=patience)
        try:
            self._closed = True
            self._disconnect()
            self._kept.close()
        finally:
            if ended:
                self._request_lock.release()

    def client_facts(self) -> dict[str, Any]:
        """What this client says of itself. Through a tunnel its process number means nothing to the server,
        even where both hosts have one name."""
        facts = protocol.client_facts()
        return {**facts, "host": f"{facts['host']} by ssh"} if self._route else facts

    # -- questions ---------------------------------------------------------------------------

    def ask(self, kind: str, content: dict[str, Any], buffers: Any = ()) -> dict[str, Any]:
        """Ask on the control channel; answered even while the model is busy.

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerGone: no answer.
            GarconError: what the server answered.
        """
        self._check_usable()
        with self._control_lock:
            self.follow()
            with self._patience:
                reply = self._answer(kind, content, buffers)
        self._heed(reply["content"].get("idle_warning"))
        return checked(reply)

    def _answer(self, kind: str, content: dict[str, Any], buffers: Any) -> dict[str, Any]:
        """The reply to a question. Where none comes it is asked again: a server whose memory a request has just
        taken may have lost it."""
        asked: set[str] = set()
        end = time.monotonic() + liveness.ANSWER_TIME
        while (left := end - time.monotonic()) > 0:
            if not asked or not _once(kind, content):
                asked.add(self._send(self._control, kind, content, buffers))
            reply = self._await_reply(self._control, asked, min(AGAIN, left))
            if reply is not None:
                return reply
        raise self._hangs()

    def _heed(self, warning: dict[str, Any] | None) -> None:
        """Pass on, once, that the server is about to end because nobody uses it."""
        if warning and warning["number"] != self._heeded:
            self._heeded = warning["number"]
            self.warn(warning["seconds"])

    def _await_reply(self, sock: Any, asked: set[str], seconds: float) -> dict[str, Any] | None:
        """The reply to one of these messages; None where none comes in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._patience.wait(sock.poll, int(TICK * 1000)):
                reply = self._receive(sock)
                if reply is not None and reply["parent_header"].get("msg_id") in asked:
                    return reply
            else:
                self._check_alive()
        return None

    # -- requests ----------------------------------------------------------------------------

    def request(
        self,
        content: dict[str, Any],
        value: Any,
        show: prints.Show = prints.plain,
        into: memoryview | None = None,
    ) -> Any:
        """Send a request and wait for its answer.

        Args:
            show: shows meanwhile what it prints.
            into: memory for an answer that travels over the socket for data, if it is of that size.

        Raises:
            Interrupted: the user interrupted it; the server is intact.
            ServerGone: the server ended.
            GarconError: what the server answered.
        """
        self._check_usable()
        with self._request_lock:
            self.took = 0.0
            session = content.get("session", "")
            packed, raw = transport.pack(value, self._shared, give=self._give(session))
            buffers: Any = list(raw)
            way = {"same_host": self.same_host, "by_socket": self._by_socket}
            content = {**content, **packed, **way}
            message: Any = self._session.msg(protocol.REQUEST, content)
            with self._patience:
                self._drain()
                waiting = PendingReply(message["header"]["msg_id"], session, show)
                self.request_id = waiting.message_id
                try:
                    self._session.send(self._shell, message, buffers=buffers)
                    reply = self._attend(waiting)
                finally:
                    self.request_id = None
                transport.discard(packed)  # where the server refused to look at it
                self.took = reply["content"].get("seconds", 0.0)
                try:
                    return self._opened(checked(reply), into)
                finally:
                    if time.monotonic() - waiting.since > LONG:
                        self._say(protocol.RECEIVED, waiting.session, waiting)

    def _opened(self, content: dict[str, Any], into: memoryview | None = None) -> Any:
        """The value of an answer."""
        take = partial(self._data.take, into=into) if self._by_socket else None
        return transport.unpack(content, content["buffers"], shared=self._shared, take=take)

    def _give(self, session: str) -> transport.Give | None:
        """The way up for large inputs, where there is no shared memory."""
        return partial(self._data.give, session) if self._by_socket else None

    def outcome(self, session: str, request: str, show: prints.Show) -> tuple[str, Any]:
        """Wait for a request that was sent before, perhaps by another process; (kind, its answer).

        Raises:
            BadRequest: no answer is kept.
            GarconError: what the server answered.
        """
        asked: dict[str, Any] = {"session": session, "request": request, "heard": 0}
        while True:
            reply = self.ask(protocol.OUTCOME, asked)
            for rank, stream, text in reply["prints"]:
                show(rank, stream, text)
            asked["heard"] += len(reply["prints"])
            if reply["state"] == "ended":
                break
            time.sleep(TICK)
        answer = {"content": reply["outcome"], "buffers": reply["buffers"]}
        try:
            return reply["kind"], self._opened(checked(answer))
        finally:
            self.ask(protocol.RECEIVED, {"session": session, "request": request})

    def leave(self, session: str) -> None:
        """Let go of a session, if the server lives."""
        with contextlib.suppress(Exception):
            if self.same_host:
                self._check_alive()
            self.ask(protocol.GOODBYE, {**self.client_facts(), "session": session})

    def _say(self, kind: str, session: str, waiting: PendingReply) -> None:
        """Tell the server something of a request; nobody waits for an answer."""
        told = {"session": session, "request": waiting.message_id}
        with self._control_lock, self._patience:
            self._send(self._control, kind, told, buffers=())

    def _attend(self, waiting: PendingReply) -> dict[str, Any]:
        """Wait for the reply and the end of the prints."""
        while True:
            try:
                return self._attend_uninterrupted(waiting)
            except KeyboardInterrupt:
                if waiting.cancelled:
                    self._say(protocol.DETACH, waiting.session, waiting)
                    raise Interrupted(
                        f"You stopped waiting for request {waiting.message_id}, which is ending on the server.",
                        f'rmodel.result("{waiting.message_id}") waits for its answer, also after a restart '
                        "of the notebook; your next request runs after it.",
                    ) from None
                self._cancel(waiting)

    def _cancel(self, waiting: PendingReply) -> None:
        """Tell the server to stop a request; its reply to the request will say that it did."""
        waiting.cancelled = True
        with self._control_lock:
            self._send(self._control, protocol.CANCEL, {"request": waiting.message_id}, buffers=())

    def _attend_uninterrupted(self, waiting: PendingReply) -> dict[str, Any]:
        poller = zmq.Poller()
        poller.register(self._shell, zmq.POLLIN)
        poller.register(self._iopub, zmq.POLLIN)
        poller.register(self._pulse.socket, zmq.POLLIN)
        self._pulse.heard()
        while True:
            if not waiting.cancelled:
                called_off.check()
            ready = dict(self._patience.wait(poller.poll, int(TICK * 1000)))
            if ready:
                self._pulse.heard()
            if self._iopub in ready:
                self._hear(waiting)
            if self._shell in ready:
                reply = self._receive(self._shell)
                if reply and reply["parent_header"].get("msg_id") == waiting.message_id:
                    waiting.reply = reply
                    waiting.until = time.monotonic() + 2.0
            if waiting.over:
                assert waiting.reply is not None
                return waiting.reply
            if not ready:
                self._check_alive()
                self._pulse.ask()
                self._look_after(waiting)
            if self._pulse.silence > liveness.ANSWER_TIME:
                # Should it wake up, it need not run what nobody waits for.
                self._send(
                    self._control, protocol.CANCEL, {"request": waiting.message_id}, buffers=()
                )
                raise self._hangs()

    def _look_after(self, waiting: PendingReply) -> None:
        """Now and then, ask whether the request has ended: a reply is lost where this machine slept."""
        if waiting.reply is not None or time.monotonic() - waiting.looked < LONG:
            return
        waiting.looked = time.monotonic()
        asked = {"session": waiting.session, "request": waiting.message_id, "heard": waiting.heard}
        try:
            told = self.ask(protocol.OUTCOME, asked)
        except BadRequest:
            return
        if told["state"] == "ended" and not self._shell.poll(0):
            for rank, stream, text in told["prints"]:
                waiting.show(rank, stream, text)
            waiting.reply = {"content": told["outcome"], "buffers": told["buffers"]}

    def _hear(self, waiting: PendingReply) -> None:
        message = self._receive(self._iopub)
        if message is None or message["parent_header"].get("msg_id") != waiting.message_id:
            return
        if message["msg_type"] == "stream":
            waiting.heard += 1
            content = message["content"]
            waiting.show(content.get("rank", 0), content["name"], content["text"])
        elif message["msg_type"] == protocol.WAITING:
            prints.plain(0, "stderr", message["content"]["text"])

    def _drain(self) -> None:
        """Forget what others printed since our last request."""
        with contextlib.suppress(zmq.Again):
            while True:
                self._iopub.recv_multipart(zmq.NOBLOCK)


def _once(kind: str, content: dict[str, Any]) -> bool:
    """Whether a question is asked once."""
    return kind in ASKED_ONCE or (kind == protocol.RUN and content.get("verb") in runs.BEGINNING)
