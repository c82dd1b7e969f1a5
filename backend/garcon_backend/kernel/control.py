"""Short questions to the server, answered on the control thread while the model runs.

Who is there, what waits, what became of a request; to open a session, to stop a request, to end the server.
None of them touches the model, and none but a greeting by hand counts as activity.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from ipykernel.ipkernel import IPythonKernel

from garcon_backend.kernel.context import Served
from garcon_backend.kernel.outcomes import Outcomes
from garcon_backend.kernel.queue_places import Waiting
from garcon_backend.kernel.sessions import Client, Session, Sessions
from garcon_backend.lockstep.turns import Queued, Turns
from garcon_backend.process import memory
from garcon_backend.process.output import log
from garcon_backend.runs.run import Run, Runs
from garcon_jupyter.errors import BadRequest, GarconError, Interrupted
from garcon_jupyter.wire import contents, protocol, transport
from garcon_jupyter.wire.checking import check, check_content, encodable
from garcon_jupyter.wire.failures import describe


class Questions(IPythonKernel):
    """The control channel of rank 0's kernel.

    Attributes:
        served: set before the kernel is made: the application makes kernels without arguments.
        running: the request that runs.
    """

    control_msg_types = [  # noqa: RUF012 - as its base
        *IPythonKernel.control_msg_types,
        *protocol.CONTROL_MESSAGES,
    ]
    served: ClassVar[Served]
    runs: Runs
    waiting: Waiting

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for kind in protocol.CONTROL_MESSAGES:
            self.control_handlers[kind] = partial(self._checked, self.control_handlers[kind])
        self.sessions = Sessions()
        self.turns = Turns()
        self.outcomes = Outcomes(self.served.data)

    @property
    def running(self) -> Queued | None:
        """The request whose turn it is."""
        return self.turns.running

    def _reply(self, item: Queued, stream: Any, content: dict[str, Any], buffers: Any = ()) -> None:
        """Answer a request."""
        raise NotImplementedError

    def _stop(self, reason: str) -> None:
        """End the server."""
        raise NotImplementedError

    def _send(self, stream: Any, kind: str, content: Any, *args: Any, **kwargs: Any) -> None:
        assert self.session is not None
        try:
            self.session.send(stream, kind, content, *args, **kwargs)
        except UnicodeEncodeError:  # somebody printed, or named, what is no text
            self.session.send(stream, kind, encodable(content), *args, **kwargs)

    def _unpacked(self, parent: dict[str, Any], take: transport.Take | None = None) -> Any:
        """What a message carries.

        Args:
            take: gives what came over the socket for data.

        Raises:
            Corrupted: its buffers are not those that were signed; they were not read.
            BadRequest: it cannot be unpickled.
        """
        try:
            return transport.unpack(
                parent["content"], parent["buffers"], shared=self.served.shared, take=take
            )
        except GarconError:
            raise
        except Exception as error:
            raise BadRequest(
                f"A message cannot be unpickled: {type(error).__name__}: {error}.",
                "Use the same version on both sides.",
            ) from error

    def _checked(
        self, handler: Callable[..., None], stream: Any, ident: Any, parent: dict[str, Any]
    ) -> None:
        """Hand over a question whose content is what it must be."""
        try:
            check_content(parent["content"], contents.of(parent["header"]["msg_type"]))
        except Exception as error:  # noqa: BLE001 - every question is answered
            reply = protocol.reply_type(parent["header"]["msg_type"])
            refusal = {"status": "error", "failure": describe(error)}
            self._send(stream, reply, refusal, parent, ident=ident)
        else:
            handler(stream, ident, parent)

    def _question(
        self, stream: Any, ident: Any, parent: dict[str, Any], answer: Callable[[], dict[str, Any]]
    ) -> None:
        buffers: list[Any] = []
        try:
            found = memory.patiently(answer)
            content = {"idle_warning": self.served.clock.warning, "status": "ok", **found}
            buffers = content.pop("buffers", [])
        except BaseException as error:  # noqa: BLE001 - every question is answered
            content = {"status": "error", "failure": describe(typed(error))}
        reply = protocol.reply_type(parent["header"]["msg_type"])
        memory.patiently(
            partial(self._send, stream, reply, content, parent, ident=ident, buffers=buffers)
        )

    def garcon_hello(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Open or resume a session."""

        def answer() -> dict[str, Any]:
            content = parent["content"]
            protocol.check_versions(self.served.facts, content)
            client = _client(content)
            session, resumed = self.sessions.open(
                content.get("session"),
                client,
                content.get("prefer"),
                content.get("lasting", True),
            )
            packed, buffers = transport.pack(self.served.catalog)
            return {
                "session": session.name,
                "resumed": resumed,
                "lasting": session.named,
                "facts": self.served.facts,
                **packed,
                "buffers": buffers,
            }

        self._question(stream, ident, parent, answer)

    def garcon_sessions(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Which sessions there are, who has them, and what is in them."""
        self._question(
            stream,
            ident,
            parent,
            lambda: {"sessions": [self._session_row(s) for s in self.sessions.all()]},
        )

    def _session_row(self, session: Session) -> dict[str, Any]:
        last = session.last
        return {
            "session": session.name,
            "user": last.user if last else None,
            "host": last.host if last else None,
            "pid": last.pid if last else None,
            "held": session.held,
            "since": session.changed,
            **self._contents(session.name),
        }

    def _contents(self, session: str) -> dict[str, int]:
        """How much there is in a session."""
        unfinished = [item for item in self.turns.unfinished() if item.session == session]
        requests = [item for item in unfinished if not isinstance(item.message, Run)]
        return {
            "recordings": self.served.lockstep.recorded.count(session),
            "requests": len(requests) + len(self.outcomes.of(session)),
            "runs": self.runs.count(session),
        }

    def _empty(self, session: str) -> bool:
        """Whether there is nothing in a session."""
        return not any(self._contents(session).values())

    def garcon_status(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """What runs, what waits, who is there."""
        self._question(stream, ident, parent, self._status)

    def _status(self) -> dict[str, Any]:
        running = self.running
        return {
            "running": _row(running) if running else None,
            "waiting": [
                {**_row(item), "place": len(before) + 1} for item, before in self.waiting.rows()
            ],
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
            "idle_warning": self.served.clock.warning,
            "ranks": [_with_memory(rank) for rank in self.served.facts["ranks"]],
        }

    def garcon_cancel(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Stop one request, waiting or running."""

        def answer() -> dict[str, Any]:
            request_id = parent["content"]["request"]
            ran = self._runs(request_id)  # looked at first: once it is told, it may be over at once
            if not self._take_out(request_id):
                self.served.lockstep.cancel(request_id)
                self._take_out(request_id)  # where it came at this very moment
            return {"running": ran or self._runs(request_id)}

        self._question(stream, ident, parent, answer)

    def _runs(self, request_id: str) -> bool:
        running = self.running
        return running is not None and running.id == request_id

    def _take_out(self, request_id: str) -> bool:
        """Take a waiting request out of the row and answer it; whether it waited."""
        waiting = self.turns.remove(request_id)
        if waiting is None:
            return False
        log(f"cancelled {request_id} while queued")
        self.shell_channel_thread.io_loop.add_callback(self._refuse, waiting)
        return True

    def _refuse(self, item: Queued) -> None:
        """Answer a request that was cancelled before its turn; on the shell channel's thread."""
        self.served.clock.end()
        if isinstance(item.message, Run):
            self.runs.cancel_waiting(item.message)
            return
        interrupted = Interrupted("The request was interrupted before its turn.", "Nothing ran.")
        self._reply(item, self.shell_stream, {"status": "error", "failure": describe(interrupted)})

    def garcon_detach(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """A client stops waiting for a request, and may ask for its answer later."""

        def answer() -> dict[str, Any]:
            request = str(parent["content"].get("request"))
            self.outcomes.detach(request)
            return {}

        self._question(stream, ident, parent, answer)

    def garcon_received(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """A client has the answer to a request that took long."""

        def answer() -> dict[str, Any]:
            content = parent["content"]
            self.outcomes.received(str(content.get("session")), str(content.get("request")))
            return {}

        self._question(stream, ident, parent, answer)

    def garcon_outcome(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """What became of a request: what it printed since the last look, and its answer if it has ended."""
        content = parent["content"]
        session, request = str(content.get("session")), str(content.get("request"))
        heard = int(content.get("heard", 0))

        def answer() -> dict[str, Any]:
            going = [item for item in self.turns.unfinished() if item.id == request]
            if going and going[0].session == session:
                state = "running" if going[0] is self.running else "waiting"
                return {"state": state, "prints": going[0].prints[heard:]}
            if self.outcomes.expected(request):
                return {"state": "waiting", "prints": []}
            ended = self.outcomes.take(session, request)
            return {
                "state": "ended",
                "kind": ended.kind,
                "prints": ended.prints[heard:],
                "outcome": ended.content,
                "buffers": list(ended.buffers),
            }

        self._question(stream, ident, parent, answer)

    def garcon_requests(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """The requests of a session that wait, run, or ended without being received."""
        session = str(parent["content"].get("session"))

        def answer() -> dict[str, Any]:
            going = [
                {
                    "request": item.id,
                    "kind": item.kind,
                    "state": "running" if item is self.running else "waiting",
                    "since": item.since,
                }
                for item in self.turns.unfinished()
                if item.session == session
            ]
            return {"requests": [*self.outcomes.of(session), *going]}

        self._question(stream, ident, parent, answer)

    def garcon_run(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Begin a run over data, look at one, or steer it."""

        def answer() -> dict[str, Any]:
            content = parent["content"]
            if not self.sessions.known(str(content.get("session"))):
                raise BadRequest("This is no question of an open session.", "Connect first.")
            question = self._unpacked(parent)
            packed, buffers = transport.pack(self.runs.answer(content, question))
            return {**packed, "buffers": buffers}

        self._question(stream, ident, parent, answer)

    def garcon_tokenize(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Text to tokens, and back."""

        def answer() -> dict[str, Any]:
            question = self._unpacked(parent)
            check(question, type(question), "the question")
            packed, buffers = transport.pack(self.served.tokenizing.answer(question))
            return {**packed, "buffers": buffers}

        self._question(stream, ident, parent, answer)

    def garcon_goodbye(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """A client leaves; its session stays."""
        content = parent["content"]

        def answer() -> dict[str, Any]:
            self.sessions.leave(content["session"], _client(content))
            self.served.data.leave(content["session"])
            return {}

        self._question(stream, ident, parent, answer)

    def garcon_keep_alive(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Start the idle time anew."""

        def answer() -> dict[str, Any]:
            self.served.clock.touch()
            return {"idle_left": self.served.clock.left}

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


def typed(error: BaseException) -> BaseException:
    """Errors of other libraries that the user should see as ours."""
    if isinstance(error, GarconError):
        return error
    if type(error).__name__ in ("Cancelled", "KeyboardInterrupt"):
        return Interrupted("The request was interrupted.", "Nothing else was lost.")
    return memory.typed(error)


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
