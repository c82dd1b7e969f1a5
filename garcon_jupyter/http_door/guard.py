"""Who may come in: whoever has the token, calls the host by a name that it has, and asks for no more bytes than are taken.

A browser lets any page ask 127.0.0.1, under a name of its own that points there (DNS rebinding). So the ``Host`` of a request must be one of
the door's, whatever the token. Pages of other origins may read answers only where their origin was listed; then errors have the headers that say so
as well, or their words would be hidden from the page.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from garcon_jupyter.operations.failures import Failure

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names by which this machine is called from itself."""


class BodyTooLong(Exception):
    """The body has more bytes than are taken, so many."""


def too_long(limit: int) -> tuple[int, Failure]:
    """Status and words for a body of more bytes."""
    return 413, Failure(
        kind="BadRequest",
        problem=f"The request has more than {limit:,} bytes (limits.body_bytes).",
        remedy="Ask for less at a time.",
    )


@dataclass
class Guard:
    """Stands before an application.

    Attributes:
        app: what is guarded.
        token: that a request must have.
        open_paths: that need none: they say nothing of the model.
        body_bytes: of a request at most.
        hosts: names by which the door may be called, without ports.
        origins: whose pages may read answers: ``https://example.org``, exactly.
    """

    app: Application
    token: str
    open_paths: Collection[str]
    body_bytes: int
    hosts: Collection[str] = LOOPBACK
    origins: Collection[str] = field(default_factory=tuple)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or say why not."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        origin = headers.get("origin", "")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._shared(origin)]
            await send(message)

        if refusal := self._refused(scope, headers, origin):
            await _say(sending, *refusal)
            return
        if scope["method"] == "OPTIONS" and origin:
            await _say(sending, 204, None)
            return
        await self.app(scope, self._bounded(receive), sending)

    def _shared(self, origin: str) -> list[tuple[bytes, bytes]]:
        """Headers that let a page of a listed origin read an answer."""
        always = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
        if origin not in self.origins:
            return [*always, (b"vary", b"Origin")] if self.origins else always
        return [
            *always,
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-headers", b"Authorization, Content-Type"),
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-expose-headers", b"Retry-After"),
            (b"access-control-max-age", b"600"),
            (b"vary", b"Origin"),
        ]

    def _refused(
        self, scope: Scope, headers: dict[str, str], origin: str
    ) -> tuple[int, Failure] | None:
        """Status and words, where a request is not let in."""
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name.lower() not in self.hosts:
            return 403, Failure(
                kind="Forbidden",
                problem="The host was called by a name that this door does not have.",
                remedy=f"Call it {' or '.join(self.hosts)}, or start it with --allow-host.",
            )
        if scope["method"] == "OPTIONS" and origin:
            if origin in self.origins:
                return None
            return 403, Failure(
                kind="Forbidden",
                problem="Pages of this origin may not ask.",
                remedy="Start the door with --allow-origin.",
            )
        if int(headers.get("content-length") or 0) > self.body_bytes:
            return too_long(self.body_bytes)
        if scope["path"] in self.open_paths:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = secrets.compare_digest(given.strip().encode("latin-1"), self.token.encode())
        if scheme.lower() == "bearer" and right:
            return None
        return 401, Failure(
            kind="Unauthorized",
            problem="The request has no token, or a wrong one.",
            remedy="Send the header Authorization: Bearer TOKEN; garcon serve prints which file has it.",
        )

    def _bounded(self, receive: Receive) -> Receive:
        """The body, which is given up when it grows over the limit: it need not say beforehand how long it is."""
        got = 0

        async def receiving() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.body_bytes:
                raise BodyTooLong(self.body_bytes)
            return message

        return receiving


async def _say(send: Send, status: int, told: Failure | None) -> None:
    """Answer with words, or with nothing."""
    body = told.model_dump_json().encode() if told else b""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
