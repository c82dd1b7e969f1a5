"""A session on a server, held while its object lives: greeted, asked, and let go of."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NoReturn

from garcon_jupyter.client import preload
from garcon_jupyter.client.probe_cache import Installing
from garcon_jupyter.connection import background, called_off, prints
from garcon_jupyter.connection.connection import Connection, Endpoint
from garcon_jupyter.connection.lines import Lines
from garcon_jupyter.errors import BadRequest, CannotTravel, GarconError, ProbesUnknown
from garcon_jupyter.points import Catalog, DictionaryPoints, KnownDictionaries
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire import requests as wire


class Connected:
    """A connection to a served model, with a session of its own.

    It belongs to the process that made it: it is neither pickled nor copied. A server that was started anew is greeted
    in the same session, before the next request goes.

    Attributes:
        server: what it is connected to.
        session: name of the session; save contexts are kept under it.
        resumed: whether the session was there already.
        facts: what the server said of itself when it was greeted.
        catalog: the points and parameters of the model.
        requests: how many requests were sent: where it has not changed, nothing has.
    """

    def __init__(
        self,
        server: Endpoint,
        session: str | None = None,
        prefer: str | None = None,
        lasting: bool = True,
    ) -> None:
        _check_name(session)
        preload.begin()
        self.server = server
        self._released: list[int] = []
        self._channel = server.connect()
        self._channel.warn = partial(_warn, server.name)
        self._lines = Lines(self._channel, server.connect)
        try:
            self._channel.follow(prints.notice)
            self._greet(session, prefer, lasting)
        except BaseException:
            self._channel.close()
            raise
        self.requests = 0
        self._installing = Installing()
        _HOLDING[self._channel.key, self.session] += 1
        self._close = weakref.finalize(self, _hang_up, self._channel, self.session)
        weakref.finalize(self, self._lines.close)
        self._channel.wait_for_prints()

    def _greet(self, session: str | None, prefer: str | None = None, lasting: bool = True) -> None:
        """Open or resume a session."""
        protocol.check_versions(self._channel.facts, protocol.client_facts())
        asked = {"session": session, "prefer": prefer, "lasting": lasting}
        hello = self._channel.ask(protocol.HELLO, {**self._channel.client_facts(), **asked})
        self.session: str = hello["session"]
        self.resumed: bool = hello["resumed"]
        self._lasting: bool = hello["lasting"]
        self.facts: dict[str, Any] = hello["facts"]
        found: Catalog = transport.unpack(hello, hello["buffers"])
        known = KnownDictionaries(found.dictionaries, partial(_dictionaries, self._channel))
        self.catalog = dataclasses.replace(found, dictionaries=known)

    def _run(
        self,
        request: wire.Request,
        show: prints.Show = prints.plain,
        into: memoryview | None = None,
    ) -> Any:
        called_off.check()
        self._follow()
        request.session = self.session
        request.released = self._take_released()
        if not background.is_behind():  # what a picture asks for leaves nothing behind
            self.requests += 1
        try:
            with self._computing(request):
                return self._send(request, show, into)
        except BaseException:
            self._released += request.released  # nobody may have been told of them
            raise

    def _computing(self, request: wire.Request | None = None) -> AbstractContextManager[None]:
        """Entered around what asks the model to compute. Here nothing; a member of a fleet in turn has its weights loaded.

        Args:
            request: None for a run over data.
        """
        return contextlib.nullcontext()

    def _take_released(self) -> tuple[int, ...]:
        """The snapshots that nobody holds any more, each for one request to tell of, whichever thread sends it."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._released.pop())
        return tuple(taken)

    def _send(self, request: Any, show: prints.Show, into: memoryview | None) -> Any:
        """The answer to a request, whose probes travel once."""
        line, behind = self._lines.here(), background.is_behind()
        about = {"session": self.session, "kind": type(request).__name__.lower(), "behind": behind}
        probes = getattr(request, "probes", ())
        if not probes or not hasattr(request, "probe_set"):
            return self._over(line, about, request, show, into)
        named = dataclasses.replace(request, probes=(), probe_set=self._installing.named(probes))
        try:
            return self._over(line, about, named, show, into)
        except ProbesUnknown:
            named.probe_set = self._installing.named(probes, again=True)
            return self._over(line, about, named, show, into)

    @staticmethod
    def _over(line: Connection, *asked: Any) -> Any:
        """The answer to a request on a line; that it took so long is told to whoever measures it."""
        try:
            return line.request(*asked)
        finally:
            background.spend(line.took)

    def _follow(self) -> None:
        """Where the server was started anew, greet it in the same session."""
        self._channel.follow(prints.notice)
        if self._channel.facts["launched"] != self.facts["launched"]:
            self._greet(self.session, lasting=self._lasting)
            self._channel.wait_for_prints()
            prints.notice(
                "the server is back; recordings() tells of which request each saved value is"
            )

    def close(self) -> None:
        """Let go of the session, which stays on the server, and hang up."""
        self._lines.close()
        self._close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return not self._close.alive

    def __reduce__(self) -> NoReturn:
        raise CannotTravel(
            f"The connection to {self.server.name!r} cannot be pickled: it belongs to this process.",
            f'Where it is needed, connect: garcon.connect("{self.server.name}"). '
            "A probe is given what it needs by save_ctx, params= and source=.",
        )


_HOLDING: Counter[tuple[str, str]] = Counter()
"""Open connections of this process by (key of the server, session): the last one says goodbye."""
os.register_at_fork(after_in_child=_HOLDING.clear)


def _warn(server: str, seconds: float) -> None:
    prints.plain(
        0,
        "stderr",
        f"Server {server} ends in {seconds:.0f} seconds, as nobody uses it. A request or "
        "rmodel.keep_alive() keeps it.\n",
    )


def _dictionaries(channel: Connection) -> Mapping[str, DictionaryPoints] | None:
    """Those that a server has now; None where it does not answer."""
    try:
        told = channel.ask(protocol.DICTIONARIES, {})
    except GarconError:
        return None
    found: Mapping[str, DictionaryPoints] = transport.unpack(told, told["buffers"])
    return found


def _hang_up(channel: Connection, session: str) -> None:
    """Let go of a session, if nobody else in this process has it. A fork has nothing to let go of: the session is
    its parent's."""
    if not channel.mine:
        return
    _HOLDING[channel.key, session] -= 1
    if _HOLDING[channel.key, session]:
        channel.close()
        return
    channel.leave(session)
    channel.close()


def _check_name(session: Any) -> None:
    """Refuse what is no name of a session; None is for the one that nobody has named.

    Raises:
        BadRequest: it is not.
    """
    if session is not None and (not isinstance(session, str) or not session):
        raise BadRequest(
            f"{session!r} is no name of a session.",
            "Give a text; garcon.sessions() lists those there are.",
        )
