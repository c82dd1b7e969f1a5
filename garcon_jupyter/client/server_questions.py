"""What a session asks of its server beside passes: code on every rank, what runs, what is unread, how long it stays."""

from __future__ import annotations

from typing import Any

from garcon_jupyter.client.connected import Connected
from garcon_jupyter.client.tokens import generated
from garcon_jupyter.connection import prints
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.servers.control import stop
from garcon_jupyter.wire import protocol
from garcon_jupyter.wire import requests as wire


class ServerClient(Connected):
    """What a connection asks of the server itself."""

    def run_on_ranks(self, source: str, filename: str = "<garcon>") -> None:
        """Run code on every rank, with ``model``, ``rank`` and ``world_size`` in scope.

        What it prints is shown line by line, each with its rank.

        Args:
            source: Python statements.
            filename: what tracebacks call them.

        Raises:
            SyntaxError: `source` does not compile; nothing has run.
            ProbeError: it raised on a rank.
        """
        if not isinstance(source, str):
            raise BadRequest(
                f"run_on_ranks takes the text of Python statements, not a {type(source).__name__}.",
                'Give a text: rmodel.run_on_ranks("print(rank)").',
            )
        compile(source, filename, "exec", dont_inherit=True)
        show = prints.ByRank()
        try:
            self._run(wire.RunOnRanks(source=source, filename=filename), show)
        finally:
            show.end()

    def pending(self) -> list[dict[str, Any]]:
        """The requests of this session that wait, run, or ended while nobody waited for them.

        Each as ``{"request", "kind", "state", "since"}``: a restarted notebook finds what it left behind.
        """
        asked = {"session": self.session}
        rows: list[dict[str, Any]] = self._channel.ask(protocol.REQUESTS, asked)["requests"]
        return rows

    def result(self, request: str | None = None) -> Any:
        """Wait for a request of this session that was sent before; its answer, as it came from the server.

        What it printed is shown again. Answers are kept of requests that took more than a few seconds or
        from which you detached by a second interrupt, until they are received.

        Args:
            request: its id, of :meth:`pending`; by default the last one.

        Raises:
            BadRequest: there is none.
            GarconError: what the request failed with.
        """
        if request is None:
            found = self.pending()
            if not found:
                raise BadRequest(
                    f"Session {self.session!r} has no request that is unfinished or unread.",
                    "The answers of short requests are not kept.",
                )
            request = found[-1]["request"]
        kind, value = self._channel.outcome(self.session, request, prints.plain)
        return generated(value) if kind == "generate" else value

    def cancel(self, request: str | None = None) -> None:
        """Stop requests of this session that wait or run, also those that an earlier notebook sent.

        Args:
            request: its id, of :meth:`pending`; by default all. One that has ended is left as it is.

        Raises:
            BadRequest: the session has no such request.
        """
        found = {row["request"]: row["state"] for row in self.pending()}
        if request is not None and request not in found:
            raise BadRequest(
                f"Session {self.session!r} has no request {request!r}.",
                f"It has {', '.join(found)}." if found else "Nothing of it waits or runs.",
            )
        for each in found if request is None else [request]:
            if found[each] != "ended":
                self._channel.ask(protocol.CANCEL, {"request": each})

    def status(self) -> dict[str, Any]:
        """What runs, what waits, who is there, and the seconds left of the idle time."""
        return self._channel.ask(protocol.STATUS, {})

    def keep_alive(self) -> float | None:
        """Start the idle time anew, as a request does; the seconds it has now, None for ever."""
        left: float | None = self._channel.ask(protocol.KEEP_ALIVE, {})["idle_left"]
        return left

    def shutdown(self, force: bool = False) -> None:
        """End the server; with `force` even while others use it.

        Raises:
            BadRequest: others use it; names them.
            ServerGone: it does not answer; with `force` it is killed then.
        """
        stop(self.server, force)
