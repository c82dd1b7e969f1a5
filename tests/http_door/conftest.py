"""A door over HTTP to the small Llama, in this process, with real sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere
from garcon_jupyter.http_door.app import application
from garcon_jupyter.http_door.desk import OperationDesk
from garcon_jupyter.operations.limits import RequestLimits

TOKEN = "a-token-of-the-tests"
LISTED = "https://listed.example"


@dataclass
class Asked:
    """An answer over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


@dataclass
class OpenDoor:
    """A door that is open.

    Attributes:
        port: of 127.0.0.1.
        desk: what answers behind it.
    """

    port: int
    desk: OperationDesk
    token: str = TOKEN

    def ask(
        self,
        operation: str,
        content: Any = None,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        token: bool = True,
    ) -> Asked:
        """Ask an operation, or another path that begins with a slash."""
        path = operation if operation.startswith("/") else f"/v1/{operation}"
        sent = {"Authorization": f"Bearer {self.token}"} if token else {}
        sent |= headers or {}
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method, path, body if method == "POST" else None, sent)
            answer = line.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Asked(answer.status, named, answer.read())
        finally:
            line.close()


@contextmanager
def opened(desk: OperationDesk, **options: Any) -> Iterator[OpenDoor]:
    """A door that is open as long as the block lasts."""
    app = application(desk, TOKEN, origins=[LISTED], **options)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))
    listening = server.config.bind_socket()
    listening.listen()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    try:
        yield OpenDoor(listening.getsockname()[1], desk)
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@pytest.fixture(scope="package")
def door(llama_here: ModelHere) -> Iterator[OpenDoor]:
    """A door to the small Llama, in this process."""
    limits = RequestLimits(body_bytes=1 << 20, waiting=8)
    with opened(OperationDesk(lambda: garcon.connect(llama_here), limits)) as it:
        yield it
