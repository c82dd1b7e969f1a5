"""Running servers: which there are, and the one of a name.

A server is known by one file, ``NAME.json`` in the registry directory (0600: it holds the keys), which
exists exactly while the server can be used. A tombstone, ``NAME.tombstone.json``, tells when and why the
last one of that name ended.
"""

from __future__ import annotations

import contextlib
import re

from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.connection.connection_file import read_connection_file
from garcon_jupyter.errors import BadConnectionFile, BadRequest, UnknownServer
from garcon_jupyter.servers import tunnels
from garcon_jupyter.servers.server import Server, forget, registry_directory, why_gone
from garcon_jupyter.servers.ssh_address import SCHEME


def servers() -> list[Server]:
    """All running servers of this user on this host. Files of servers that are gone are removed."""
    found = []
    for file in sorted(registry_directory().glob("*.json")):
        if file.name.endswith(".tombstone.json"):
            continue
        with contextlib.suppress(BadConnectionFile):
            server = Server(file.stem, file, read_connection_file(file)["garcon"])
            if server.alive:
                found.append(server)
            else:
                forget(server)
    return found


def only(command: str) -> str:
    """The name of the only server that runs, for a command that was given none.

    Args:
        command: that a name can be given to: ``garcon serve``.

    Raises:
        BadRequest: there is none, or there are several; names them.
    """
    names = [server.name for server in servers()]
    if len(names) != 1:
        raise BadRequest(
            f"{len(names) or 'No'} server{'s run' if names else ' runs'}{': ' if names else ''}{', '.join(names)}.",
            f"Name one: {command} NAME." if names else "garcon launch smollm2 starts one.",
        )
    return names[0]


def find(name: str | Server) -> Server:
    """The running server of a name, or at an address: ``ssh://user@host/name``.

    Raises:
        BadRequest: that is no name.
        UnknownServer: none runs; says why the last one ended, and which names there are.
        BadConnectionFile: the file of that name is no connection file of a server.
        Unreachable: by ssh; says why.
    """
    if isinstance(name, Server):
        name = name.name
    if not isinstance(name, str) or not name:
        names = ", ".join(server.name for server in servers())
        raise BadRequest(
            f"{name!r} is no name of a server.",
            f"Give one as a text. Running: {names or 'none; garcon launch starts one'}.",
        )
    if name.startswith(SCHEME):
        return tunnels.find(name)
    file = registry_directory() / f"{name}.json"
    if not re.fullmatch(r"[\w.@+-]+", name) or not file.exists():
        raise _unknown(name)
    server = Server(name, file, read_connection_file(file)["garcon"])
    if not server.alive:
        forget(server)
        raise _unknown(name)
    return server


def endpoint(of: str | Endpoint) -> Endpoint:
    """What to connect to: a model in this process as it is, else the running server of a name; errors as of :func:`find`."""
    if isinstance(of, Endpoint) and not isinstance(of, Server):
        return of
    return find(of)


def _unknown(name: str) -> UnknownServer:
    names = [server.name for server in servers()]
    ended = why_gone(name)
    past = f"The last one of that name has ended: {ended}." if ended else ""
    running = (
        f"Running: {', '.join(names)}." if names else "No server runs; garcon launch starts one."
    )
    error = UnknownServer.among("running server", name, names, f"{past} {running}".strip())
    assert isinstance(error, UnknownServer)
    return error
