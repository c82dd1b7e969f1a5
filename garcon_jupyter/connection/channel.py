"""The line to one server: messages out, replies and prints in.

Plain blocking ZMQ sockets with Jupyter's own signing and, where the connection file has keys, CURVE. A
request blocks the calling thread; while it waits it passes on what the request prints, notices a server
that died, and turns a first interrupt into a cancellation of that very request.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zmq
from jupyter_client.session import Session

from garcon_jupyter.connection import background, prints
from garcon_jupyter.connection.connection_file import process_lives, read_connection_file, version
from garcon_jupyter.connection.data_line import DataLine
from garcon_jupyter.connection.deferred_interrupts import Patience
from garcon_jupyter.connection.pending import Pulse, Waiting
from garcon_jupyter.errors import (
    BadConnectionFile,
    BadRequest,
    Interrupted,
    NotConnected,
    ServerGone,
    ServerRestarted,
)
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire.failures import revive
from garcon_jupyter.wire.transfers import LARGEST_MESSAGE

if TYPE_CHECKING:
    from garcon_jupyter.servers.tunnels import Tunnel

AGAIN = 4.0
"""Seconds after which a question that was not answered is asked again."""

ASKED_ONCE = (protocol.HELLO, protocol.TOKENIZE)
"""Questions that are not: one would open another session, the other may be work that takes so long."""

ANSWER_TIME = 20.0
"""Seconds in which a living server answers a question on its control channel."""

LONG = 5.0
"""Seconds from which on the server keeps an answer until it hears that it was received."""

_TICK = 0.25
"""Seconds between two looks at whether the server still lives."""

_BURIAL_TIME = 5.0
"""Seconds in which the supervisor of a lost server says why it was lost."""

RESTART_TIME = 1800.0
"""Seconds in which a server that lost a rank has loaded its model again."""


class Channel:
    """Talks to one server. Safe to use from several threads, one request at a time.

    It belongs to the process that made it. A fork has copies of its sockets, whose other ends know nothing of that,
    and of its locks, which a thread may hold that the fork does not have: so a fork is refused before it touches any.

    Args:
        file: the connection file.
        why_gone: tells why the server ended, when it has.
        tunnel: by which it is reached, if by one; held until the channel is closed.

    Attributes:
        warn: called with the seconds that are left when the server is about to end because nobody uses it.
    """

    def __init__(
        self, file: Path, why_gone: Callable[[], str] = lambda: "", tunnel: Tunnel | None = None
    ) -> None:
        self._file = file
        self._why_gone = why_gone
        self._tunnel = tunnel
        self._kept = contextlib.ExitStack()
        self._request_lock = threading.RLock()
        self._control_lock = threading.RLock()
        self._patience = Patience()
        self._owner = os.getpid()
        self.request_id: str | None = None
        self.warn: Callable[[float], None] = lambda seconds: None
        self._heeded = 0
        self._closed = False
        self._open()
        if tunnel:
            self._kept.enter_context(tunnel)

    def _open(self) -> None:
        """Read the connection file and connect."""
        as_of = version(self._file)
        self.info = read_connection_file(self._file)
        self.facts: dict[str, Any] = self.info["garcon"]
        self.same_host = self.facts.get("host") == socket.gethostname()
        self._session = Session(key=self.info["key"].encode())
        self._context = zmq.Context()
        self._control = self._connect(zmq.DEALER, "control_port")
        self._shell = self._connect(zmq.DEALER, "shell_port")
        self._iopub = self._connect(zmq.SUB, "iopub_port")
        self._pulse = Pulse(self._connect(zmq.DEALER, "hb_port"))
        self._data = DataLine(
            self.info["key"].encode(), self._connect_for_data, self._patience, self._check_alive
        )
        self._version = as_of

    def follow(self, tell: Callable[[str], None] | None = None) -> None:
        """Connect anew where the server was started anew; free where nothing happened.

        Args:
            tell: is told that the server is being started anew, and that it is waited for. Without it,
                that is an error.

        Raises:
            NotConnected: this connection is closed, or another process's.
            ServerRestarted: it is being started anew, and nobody is to wait.
            ServerGone: it has ended.
        """
        self._check_usable()
        if version(self._file) == self._version and not self.facts.get("restarting"):
            return
        with self._request_lock, self._control_lock:
            if reason := self._news():
                if tell is None:
                    raise self._restarts(reason)
                tell(f"the server starts anew, because {reason}")
                self._await_restart()
            if version(self._file) == self._version:
                return
            self._disconnect()
            self._open()

    @property
    def mine(self) -> bool:
        """Whether this process made it; else it is a fork of the one that did."""
        return os.getpid() == self._owner

    def _check_usable(self) -> None:
        """Refuse a connection that cannot be used here; touches no socket and no lock.

        Raises:
            NotConnected: it was closed, or this process is a fork of its own.
        """
        name = self.facts["name"]
        if not self.mine:
            raise NotConnected(
                f"This connection to {name!r} is that of process {self._owner}, which was forked: its sockets cannot "
                "be used here.",
                f'Connect in this process: rmodel = garcon.connect("{name}").',
            )
        if self._closed:
            raise NotConnected(
                f"This connection to {name!r} was closed.",
                f'garcon.connect("{name}", session=…) goes on in its session, which stays on the server.',
            )

    def _news(self) -> str:
        """Why the server is being started anew, or nothing.

        Raises:
            ServerGone: it has ended.
        """
        try:
            return read_connection_file(self._file)["garcon"].get("restarting", "")
        except BadConnectionFile:
            if self._file.exists():
                raise
            raise self._ended() from None

    def _await_restart(self) -> None:
        end = time.monotonic() + RESTART_TIME
        while self._news():
            if time.monotonic() > end:
                raise self._hangs()
            if self.same_host and not process_lives(self.facts["supervisor"]):
                raise self._ended()
            time.sleep(_TICK / 5)

    def _connect(self, kind: int, port: str) -> zmq.Socket[bytes]:
        sock = self._socket(kind, encrypted="curve_publickey" in self.info)
        if kind == zmq.DEALER:
            sock.identity = self._session.bsession
        if kind == zmq.SUB:
            sock.subscribe(b"")
        self._attach(sock, port)
        return sock

    def _connect_for_data(self) -> zmq.Socket[bytes]:
        sock = self._socket(zmq.DEALER, encrypted=self.info["data_encrypted"])
        sock.maxmsgsize = LARGEST_MESSAGE
        self._attach(sock, "data_port")
        return sock

    def _socket(self, kind: int, encrypted: bool) -> zmq.Socket[bytes]:
        sock = self._context.socket(kind)
        sock.linger = 0
        sock.rcvhwm = sock.sndhwm = 0
        if encrypted:
            sock.curve_serverkey = sock.curve_publickey = self.info["curve_publickey"].encode()
            sock.curve_secretkey = self.info["curve_secretkey"].encode()
        return sock

    def _attach(self, sock: zmq.Socket[bytes], port: str) -> None:
        joint = "-" if self.info["transport"] == "ipc" else ":"  # as Jupyter names its sockets
        sock.connect(f"{self.info['transport']}://{self.info['ip']}{joint}{self.info[port]}")

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

    def _disconnect(self) -> None:
        self._context.destroy(linger=0)

    def client_facts(self) -> dict[str, Any]:
        """What this client says of itself. Through a tunnel its process number means nothing to the server,
        even where both hosts have one name."""
        facts = protocol.client_facts()
        return {**facts, "host": f"{facts['host']} by ssh"} if self._tunnel else facts

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
        return _checked(reply)

    def _answer(self, kind: str, content: dict[str, Any], buffers: Any) -> dict[str, Any]:
        """The reply to a question. Where none comes it is asked again: a server whose memory a request has just
        taken may have lost it."""
        asked: set[str] = set()
        end = time.monotonic() + ANSWER_TIME
        while (left := end - time.monotonic()) > 0:
            if not asked or kind not in ASKED_ONCE:
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

    def _send(self, sock: Any, kind: str, content: dict[str, Any], buffers: Any) -> str:
        """Send a message; its id."""
        message: Any = self._session.send(sock, kind, content, buffers=list(buffers))
        return message["header"]["msg_id"]

    def _await_reply(self, sock: Any, asked: set[str], seconds: float) -> dict[str, Any] | None:
        """The reply to one of these messages; None where none comes in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._patience.wait(sock.poll, int(_TICK * 1000)):
                reply = self._receive(sock)
                if reply is not None and reply["parent_header"].get("msg_id") in asked:
                    return reply
            else:
                self._check_alive()
        return None

    def _hangs(self) -> ServerGone:
        name = self.facts["name"]
        return ServerGone(
            f"Server {name!r} has not answered for {ANSWER_TIME:.3g} seconds.",
            f"It may hang: garcon stop --force {name} ends it.",
        )

    def _receive(self, sock: Any) -> dict[str, Any] | None:
        frames = sock.recv_multipart(copy=True)
        _, frames = self._session.feed_identities(frames)
        try:
            return self._session.deserialize(frames)
        except ValueError:  # not signed with our key
            return None

    def _check_alive(self) -> None:
        """Raise if the server's process is gone; on another host, if it took its file away.

        Raises:
            ServerRestarted: a rank was lost, and the server starts anew.
            ServerGone: it has ended.
        """
        if self.same_host and process_lives(self.facts["pid"]):
            return
        if not self.same_host and version(self._file) == self._version:
            return
        end = time.monotonic() + _BURIAL_TIME
        while self._file.exists() and time.monotonic() < end:
            if self.same_host and not self._supervised:  # nobody is left to say more
                break
            found = read_connection_file(self._file)["garcon"]
            if reason := found.get("restarting"):
                raise self._restarts(reason)
            if found["launched"] != self.facts["launched"]:
                raise self._restarts("a rank was lost")
            time.sleep(0.02)
        raise self._ended()

    def _restarts(self, reason: str) -> ServerRestarted:
        return ServerRestarted(
            f"Server {self.facts['name']!r} starts anew, because {reason}.",
            "Run the cell again: it waits until the model is loaded. "
            "What finished requests saved is kept.",
        )

    def _ended(self) -> ServerGone:
        if self._tunnel and (lost := self._tunnel.loss()):
            return lost
        return ServerGone(
            f"Server {self.facts['name']!r} has ended: {self._why() or 'reason unknown'}.",
            "Run the launch cell again; garcon logs shows what it wrote.",
        )

    def _why(self) -> str:
        """Why the server ended; its supervisor, which outlives it, needs a moment to say so."""
        end = time.monotonic() + _BURIAL_TIME
        while self._supervised and time.monotonic() < end:
            time.sleep(0.05)
        return self._why_gone()

    @property
    def _supervised(self) -> bool:
        return self.same_host and process_lives(self.facts["supervisor"])

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
            session = content.get("session", "")
            packed, raw = transport.pack(value, self._shared, give=self._give(session))
            buffers: Any = list(raw)
            way = {"same_host": self.same_host, "by_socket": self._by_socket}
            content = {**content, **packed, **way}
            message: Any = self._session.msg(protocol.REQUEST, content)
            with self._patience:
                self._drain()
                waiting = Waiting(message["header"]["msg_id"], session, show)
                self.request_id = waiting.message_id
                try:
                    self._session.send(self._shell, message, buffers=buffers)
                    reply = self._attend(waiting)
                finally:
                    self.request_id = None
                transport.discard(packed)  # where the server refused to look at it
                background.spend(reply["content"].get("seconds", 0.0))
                try:
                    return self._opened(_checked(reply), into)
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

    @property
    def _by_socket(self) -> bool:
        """Whether large values travel by the socket for data."""
        return not self.same_host and "data_port" in self.info

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
            time.sleep(_TICK)
        answer = {"content": reply["outcome"], "buffers": reply["buffers"]}
        try:
            return reply["kind"], self._opened(_checked(answer))
        finally:
            self.ask(protocol.RECEIVED, {"session": session, "request": request})

    def _say(self, kind: str, session: str, waiting: Waiting) -> None:
        """Tell the server something of a request; nobody waits for an answer."""
        told = {"session": session, "request": waiting.message_id}
        with self._control_lock, self._patience:
            self._send(self._control, kind, told, buffers=())

    @property
    def _shared(self) -> Path | None:
        """The server's directory in shared memory, where it can be reached."""
        return Path(self.facts["shared"]) if self.same_host and "shared" in self.facts else None

    def _attend(self, waiting: Waiting) -> dict[str, Any]:
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

    def _cancel(self, waiting: Waiting) -> None:
        """Tell the server to stop a request; its reply to the request will say that it did."""
        waiting.cancelled = True
        with self._control_lock:
            self._send(self._control, protocol.CANCEL, {"request": waiting.message_id}, buffers=())

    def _attend_uninterrupted(self, waiting: Waiting) -> dict[str, Any]:
        poller = zmq.Poller()
        poller.register(self._shell, zmq.POLLIN)
        poller.register(self._iopub, zmq.POLLIN)
        poller.register(self._pulse.socket, zmq.POLLIN)
        self._pulse.heard()
        while True:
            ready = dict(self._patience.wait(poller.poll, int(_TICK * 1000)))
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
            if self._pulse.silence > ANSWER_TIME:
                # Should it wake up, it need not run what nobody waits for.
                self._send(
                    self._control, protocol.CANCEL, {"request": waiting.message_id}, buffers=()
                )
                raise self._hangs()

    def _look_after(self, waiting: Waiting) -> None:
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

    def _hear(self, waiting: Waiting) -> None:
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

    def wait_for_prints(self) -> None:
        """Wait until the server has noticed our subscription, so that no print is missed.

        It welcomes the first subscriber of a topic only, so we subscribe to one of our own as well;
        and to another where it overlooked that, because it was sending.
        """
        for attempt in range(10):
            self._iopub.subscribe(f"{self._session.session}.{attempt}".encode())
            end = time.monotonic() + 0.2
            while time.monotonic() < end:
                if self._iopub.poll(50) and self._is_welcome(self._receive(self._iopub)):
                    return

    def _is_welcome(self, message: dict[str, Any] | None) -> bool:
        topic = str(message["content"].get("subscription")) if message else ""
        return topic.startswith(self._session.session)


def _checked(reply: dict[str, Any]) -> dict[str, Any]:
    content = reply["content"]
    if content.get("status") != "ok":
        raise revive(content["failure"])
    content["buffers"] = reply["buffers"]
    return content
