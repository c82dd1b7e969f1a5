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
from typing import Any

from garcon_backend.kernel.context import KernelContext
from garcon_backend.kernel.messages import unpacked
from garcon_backend.kernel.queue_places import QueuePlaces
from garcon_backend.kernel.sessions import ClientProcess, SessionState
from garcon_backend.lockstep.turns import Queued
from garcon_backend.process import memory
from garcon_backend.runs.run import DataRun
from garcon_backend.runs.server_runs import Runs
from garcon_jupyter.errors import BadRequest, GarconError, Interrupted
from garcon_jupyter.wire import contents, protocol, transport
from garcon_jupyter.wire.checking import check, check_content
from garcon_jupyter.wire.failures import describe

Content = dict[str, Any]
"""What a message says; an answer's may have ``buffers``, which travel beside it."""


class ControlHandlers:
    """The handlers of our messages on the control channel.

    Args:
        context: what the server serves, and who is there.
        runs: those of the server.
        places: of the requests that wait.
        take_out: takes a request that waits out of the queue and answers it; whether it waited.
        stop: ends the server, with a reason.
    """

    def __init__(
        self,
        context: KernelContext,
        runs: Runs,
        places: QueuePlaces,
        take_out: Callable[[str], bool],
        stop: Callable[[str], None],
    ) -> None:
        self._context = context
        self._runs, self._places = runs, places
        self._take_out, self._stop = take_out, stop
        self._sessions, self._turns = context.sessions, context.turns
        self._answers: dict[str, Callable[[dict[str, Any]], Content]] = {
            protocol.HELLO: self._hello,
            protocol.STATUS: self._status,
            protocol.DICTIONARIES: self._dictionaries,
            protocol.SESSIONS: self._all_sessions,
            protocol.CANCEL: self._cancel,
            protocol.DETACH: self._detach,
            protocol.OUTCOME: self._outcome,
            protocol.RECEIVED: self._received,
            protocol.REQUESTS: self._requests,
            protocol.TOKENIZE: self._tokenize,
            protocol.RUN: self._run,
            protocol.GOODBYE: self._goodbye,
            protocol.KEEP_ALIVE: self._keep_alive,
            protocol.SHUTDOWN: self._shutdown,
        }

    @property
    def kinds(self) -> list[str]:
        """The types of messages that are answered."""
        return list(self._answers)

    def answer(self, kind: str, parent: dict[str, Any]) -> tuple[Content, list[Any]]:
        """The answer to one message, whatever it is, and its buffers; what is wrong with it is the answer, too."""
        buffers: list[Any] = []
        try:
            check_content(parent["content"], contents.of(kind))
            found = memory.patiently(partial(self._answers[kind], parent))
            content = {"idle_warning": self._context.clock.warning, "status": "ok", **found}
            buffers = content.pop("buffers", [])
        except BaseException as error:  # noqa: BLE001 - every question is answered
            content = {"status": "error", "failure": describe(typed(error))}
        return content, buffers

    # -- sessions ----------------------------------------------------------------------------

    def _hello(self, parent: dict[str, Any]) -> Content:
        """Open or resume a session."""
        content = parent["content"]
        protocol.check_versions(self._context.facts, content)
        session, resumed = self._sessions.open(
            content.get("session"),
            _client(content),
            content.get("prefer"),
            content.get("lasting", True),
        )
        packed, buffers = transport.pack(self._context.catalog)
        return {
            "session": session.name,
            "resumed": resumed,
            "lasting": session.named,
            "facts": {**self._context.facts, "weights": self._context.weights},
            **packed,
            "buffers": buffers,
        }

    def _all_sessions(self, parent: dict[str, Any]) -> Content:
        """Which sessions there are, who has them, and what is in them."""
        return {"sessions": [self._session_row(session) for session in self._sessions.all()]}

    def _session_row(self, session: SessionState) -> dict[str, Any]:
        last = session.last
        return {
            "session": session.name,
            "user": last.user if last else None,
            "host": last.host if last else None,
            "pid": last.pid if last else None,
            "held": session.held,
            "since": session.changed,
            **self._within(session.name),
        }

    def _within(self, session: str) -> dict[str, int]:
        """How much there is in a session."""
        unfinished = [item for item in self._turns.unfinished() if item.session == session]
        requests = [item for item in unfinished if not isinstance(item.message, DataRun)]
        return {
            "recordings": self._context.lockstep.recorded.count(session),
            "requests": len(requests) + len(self._context.outcomes.of(session)),
            "runs": self._runs.count(session),
        }

    def is_empty(self, session: str) -> bool:
        """Whether there is nothing in a session."""
        return not any(self._within(session).values())

    def _goodbye(self, parent: dict[str, Any]) -> Content:
        """A client leaves; its session stays."""
        content = parent["content"]
        self._sessions.leave(content["session"], _client(content))
        if self._context.data:
            self._context.data.leave(content["session"])
        return {}

    # -- the server --------------------------------------------------------------------------

    def _status(self, parent: dict[str, Any]) -> Content:
        """What runs, what waits, who is there."""
        running, clock = self._context.running, self._context.clock
        return {
            "running": _row(running) if running else None,
            "waiting": [
                {**_row(item), "place": len(before) + 1} for item, before in self._places.rows()
            ],
            "clients": [
                {
                    "session": s.name,
                    "user": s.client.user,
                    "host": s.client.host,
                    "pid": s.client.pid,
                }
                for s in self._sessions.living()
                if s.client
            ],
            "idle_left": clock.left,
            "idle_warning": clock.warning,
            "certificate": _of_certificate(self._context.certificate),
            "weights": self._context.weights,
            "ranks": [_with_memory(rank) for rank in self._context.facts["ranks"]],
        }

    def _dictionaries(self, parent: dict[str, Any]) -> Content:
        """The dictionaries that are loaded, by name."""
        packed, buffers = transport.pack({**self._context.catalog.dictionaries})
        return {**packed, "buffers": buffers}

    def _keep_alive(self, parent: dict[str, Any]) -> Content:
        """Start the idle time anew."""
        self._context.clock.touch()
        return {"idle_left": self._context.clock.left}

    def _shutdown(self, parent: dict[str, Any]) -> Content:
        """End the server, unless others use it."""
        content = parent["content"]
        client = _client(content)
        others = [s for s in self._sessions.living() if s.client and not client.same(s.client)]
        if others and not content.get("force"):
            names = ", ".join(f"{s.client.user} ({s.name})" for s in others if s.client)
            raise BadRequest(
                f"Other clients use this server: {names}.",
                "shutdown(force=True), or garcon stop --force, ends it for them too.",
            )
        self._stop(f"shut down by {client.user}")
        return {}

    # -- requests ----------------------------------------------------------------------------

    def _cancel(self, parent: dict[str, Any]) -> Content:
        """Stop one request, waiting or running."""
        request = parent["content"]["request"]
        ran = self._is_running(request)  # looked at first: once it is told, it may be over at once
        if not self._take_out(request):
            self._context.lockstep.cancel(request)
            self._take_out(request)  # where it came at this very moment
        return {"running": ran or self._is_running(request)}

    def _is_running(self, request: str) -> bool:
        running = self._context.running
        return running is not None and running.id == request

    def _detach(self, parent: dict[str, Any]) -> Content:
        """A client stops waiting for a request, and may ask for its answer later."""
        self._context.outcomes.detach(str(parent["content"].get("request")))
        return {}

    def _received(self, parent: dict[str, Any]) -> Content:
        """A client has the answer to a request that took long."""
        content = parent["content"]
        session, request = str(content.get("session")), str(content.get("request"))
        self._context.outcomes.received(session, request)
        return {}

    def _outcome(self, parent: dict[str, Any]) -> Content:
        """What became of a request: what it printed since the last look, and its answer if it has ended."""
        content = parent["content"]
        session, request = str(content.get("session")), str(content.get("request"))
        heard = int(content.get("heard", 0))
        going = [item for item in self._turns.unfinished() if item.id == request]
        if going and going[0].session == session:
            return {"state": self._state(going[0]), "prints": going[0].prints[heard:]}
        if self._context.outcomes.expected(request):
            return {"state": "waiting", "prints": []}
        ended = self._context.outcomes.take(session, request)
        return {
            "state": "ended",
            "kind": ended.kind,
            "prints": ended.prints[heard:],
            "outcome": ended.content,
            "buffers": list(ended.buffers),
        }

    def _requests(self, parent: dict[str, Any]) -> Content:
        """The requests of a session that wait, run, or ended without being received."""
        session = str(parent["content"].get("session"))
        going = [
            {
                "request": item.id,
                "kind": item.kind,
                "state": self._state(item),
                "since": item.since,
            }
            for item in self._turns.unfinished()
            if item.session == session
        ]
        return {"requests": [*self._context.outcomes.of(session), *going]}

    def _state(self, item: Queued) -> str:
        return "running" if item is self._context.running else "waiting"

    # -- runs and tokens ---------------------------------------------------------------------

    def _run(self, parent: dict[str, Any]) -> Content:
        """Begin a run over data, look at one, or steer it."""
        content = parent["content"]
        if not self._sessions.known(str(content.get("session"))):
            raise BadRequest("This is no question of an open session.", "Connect first.")
        question = unpacked(parent, self._context.shared)
        packed, buffers = transport.pack(self._runs.answer(content, question))
        return {**packed, "buffers": buffers}

    def _tokenize(self, parent: dict[str, Any]) -> Content:
        """Text to tokens, and back."""
        question = unpacked(parent, self._context.shared)
        check(question, type(question), "the question")
        packed, buffers = transport.pack(self._context.tokenizing.answer(question))
        return {**packed, "buffers": buffers}


def typed(error: BaseException) -> BaseException:
    """Errors of other libraries that the user should see as ours."""
    if isinstance(error, GarconError):
        return error
    if type(error).__name__ in ("Cancelled", "KeyboardInterrupt"):
        return Interrupted("The request was interrupted.", "Nothing else was lost.")
    return memory.typed(error)


def _client(content: dict[str, Any]) -> ClientProcess:
    return ClientProcess(
        content.get("user", "?"), content.get("host", "?"), int(content.get("pid", 0))
    )


def _row(item: Queued) -> dict[str, Any]:
    return {
        "request": item.id,
        "session": item.session,
        "kind": item.kind,
        "seconds": time.time() - item.since,
    }


def _of_certificate(certificate: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the status says of the certificate that is kept."""
    return certificate and {word: certificate[word] for word in ("id", "summary")}


def _with_memory(rank: dict[str, Any]) -> dict[str, Any]:
    """With the bytes that a rank of this host holds; its number means nothing on another host."""
    import psutil

    memory = None
    if rank["host"] == socket.gethostname():
        with contextlib.suppress(psutil.Error):
            memory = psutil.Process(rank["pid"]).memory_info().rss
    return {**rank, "memory": memory}
