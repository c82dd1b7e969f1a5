"""The process of a door: its token in a file that only its owner reads, its address, its end."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.http_door.guard import LOOPBACK
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.servers import registry
from garcon_jupyter.servers.server import registry_directory

SESSION = "http"
"""The session that a door has on the model's server; a second door gets one beside it."""


@dataclass(frozen=True)
class DoorOptions:
    """How a door is opened.

    Attributes:
        server: name of the server whose model is asked; None for stored records alone.
        host, port: where it listens; port 0 takes a free one.
        records: directories of atlases, by the names that requests use.
        allow_hosts: names by which the host is called, beside those of the loopback.
        allow_origins: pages that may read answers.
        certificate, key: files, for TLS; without them a door listens on the loopback alone.
        limits: how much one request may ask for.
    """

    server: str | None = None
    host: str = "127.0.0.1"
    port: int = 8484
    records: Mapping[str, Path] | None = None
    allow_hosts: Sequence[str] = ()
    allow_origins: Sequence[str] = ()
    certificate: Path | None = None
    key: Path | None = None
    limits: RequestLimits | None = None


def serve(options: DoorOptions, say: Callable[[str], None]) -> None:
    """Open a door, and keep it open until the process is interrupted.

    Args:
        say: is told the address, and which file has the token.

    Raises:
        UnknownServer: no server of that name runs.
        BadRequest: what was given makes no sense, or the port is taken.
        BadData: a directory holds no atlas.
    """
    uvicorn = _uvicorn()
    _check(options)
    from garcon_jupyter.atlas import open_atlas
    from garcon_jupyter.http_door.app import application
    from garcon_jupyter.http_door.desk import OperationDesk
    from garcon_jupyter.model import RemoteModel

    name = None if options.server is None else registry.find(options.server).name
    atlases = {each: open_atlas(path) for each, path in (options.records or {}).items()}

    def connect() -> RemoteModel:
        assert name is not None
        return RemoteModel(registry.find(name), prefer=SESSION, lasting=False)

    listening = _listening(options)
    port = listening.getsockname()[1]
    with token_file(name or "records", port) as (token, path):
        desk = OperationDesk(connect if name else None, options.limits, atlases)
        hosts = [*LOOPBACK, *options.allow_hosts]
        app = application(desk, token, hosts, options.allow_origins)
        scheme = "https" if options.certificate else "http"
        say(f"{scheme}://{options.host}:{port}/ is open.")
        say(f"Its token is in {path}; send it as the header Authorization: Bearer TOKEN.")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
        )
        with _ended_by_signals():
            uvicorn.Server(config).run(sockets=[listening])


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """A signal that ends the process does so by an exception, past what has to be cleared away; uvicorn raises it anew when it is done."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(0)

    former = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _uvicorn() -> Any:
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise BadRequest(
            f"A door over HTTP needs {error.name}, which is not installed.",
            'pip install "garcon-jupyter[http]".',
        ) from None
    return uvicorn


def _check(options: DoorOptions) -> None:
    if options.server is None and not options.records:
        raise BadRequest(
            "There is nothing to serve.", "Name a server, or give --records DIR, or both."
        )
    if (options.certificate is None) != (options.key is None):
        raise BadRequest("A certificate comes with its key.", "Give --certificate and --key.")
    if options.certificate is None and options.host not in ("127.0.0.1", "::1", "localhost"):
        raise BadRequest(
            f"{options.host} is reached from other machines, and nothing would be encrypted.",
            "Give --certificate and --key, or listen on 127.0.0.1 and come through ssh -L.",
        )
    for origin in options.allow_origins:
        if origin == "*" or "://" not in origin or origin.endswith("/"):
            raise BadRequest(
                f"{origin!r} is no origin.", "Give scheme and host, such as https://example.org."
            )


def _listening(options: DoorOptions) -> socket.socket:
    """A socket that listens.

    Raises:
        BadRequest: the port is taken.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((options.host, options.port))
        made.listen()
    except OSError as error:
        made.close()
        raise BadRequest(
            f"Port {options.port} of {options.host} cannot be had: {error.strerror}.",
            "Give another: --port P, or --port 0 for any that is free.",
        ) from None
    return made


@contextlib.contextmanager
def token_file(name: str, port: int) -> Iterator[tuple[str, Path]]:
    """A fresh token, and the file (0600) that has it as long as the door is open."""
    directory = registry_directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"{name}-{port}.http-token"
    path.unlink(missing_ok=True)
    token = secrets.token_urlsafe(32)
    opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w") as file:
        file.write(token)
    try:
        yield token, path
    finally:
        path.unlink(missing_ok=True)
