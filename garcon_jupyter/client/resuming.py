"""Which session is this notebook's own, and which others there are to go on with.

A session is found again by its name, so a notebook has to have one that it still has when its kernel was restarted.
Who starts the kernel may say it; else the script has a path, and a kernel has the file by which it is reached. And
whatever name there is, a process remembers the session that it had on each server: the launch cell, run again, goes
on in it. A session that was not resumed, though others could be, is told with their names.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from garcon_jupyter import imported
from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.servers import control, registry
from garcon_jupyter.wire import protocol

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

VARIABLES = ("__vsc_ipynb_file__", "PAPERMILL_OUTPUT_PATH")
"""Variables of a notebook into which those who run it put its path: VS Code, and papermill where it is asked to."""

LISTED = 3
"""Sessions that are named where one was not resumed."""


# -- its own -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WishedSession:
    """The session that this process would like to have.

    Attributes:
        name: None for a fresh one.
        lasting: whether a later process will find that name, too; else the session is forgotten some time after
            this one has ended.
    """

    name: str | None
    lasting: bool = False


_HAD: dict[tuple[Any, ...], str] = {}
"""The session that this process had last, by server and by the name that it would have liked."""

os.register_at_fork(after_in_child=_HAD.clear)  # they are its parent's


def own(server: Endpoint) -> WishedSession:
    """The session that this process had on a server; else the one that goes by the notebook's name."""
    wish = _by_name()
    had = _HAD.get((*_identity(server), wish.name))
    return WishedSession(had, wish.lasting and had == wish.name) if had else wish


def remember(model: Client) -> None:
    """This process has this session on its server from now on."""
    _HAD[*_identity(model.server), _by_name().name] = model.session


def _identity(server: Endpoint) -> tuple[Any, ...]:
    return server.name, server.facts["host"], server.facts["supervisor"]


def notebook_session() -> str | None:
    """Session name of this notebook, or script, and user; None where nothing has a name that lasts."""
    wish = _by_name()
    return wish.name if wish.lasting else None


def _by_name() -> WishedSession:
    shell = imported.shell()
    place = os.environ.get("JPY_SESSION_NAME") or (_notebook(shell) if shell else _script())
    lasting = place is not None
    place = place or (_kernel(shell) if shell else None)
    if place is None:
        return WishedSession(None)
    return WishedSession(re.sub(r"[^\w.@/-]+", "-", f"{getpass.getuser()}@{place}"), lasting)


def _notebook(shell: Any) -> str | None:
    """The path of a notebook, where those who run it say so to its variables or with its cells."""
    for name in VARIABLES:
        if isinstance(path := shell.user_ns.get(name), str) and path:
            return path
    parent = shell.get_parent() if hasattr(shell, "get_parent") else None
    cell = urlsplit(str((parent or {}).get("metadata", {}).get("cellId", "")))
    # VS Code's cells are called vscode-notebook-cell:/path/of/the.ipynb#W0sZmlsZQ; others' have no scheme.
    return unquote(cell.path) if cell.scheme.startswith("vscode-notebook") and cell.path else None


def _kernel(shell: Any) -> str | None:
    """The name of a kernel's connection file, which it has still when it was restarted; None in a terminal."""
    if not hasattr(shell, "kernel"):
        return None
    from ipykernel.connect import get_connection_file

    try:
        return Path(get_connection_file()).stem
    except RuntimeError:  # a kernel inside another program has no file
        return None


def _script() -> str | None:
    """The path of the script that this process runs, unless it is an installed program."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if not path:
        return None
    script = Path(path).resolve()
    places = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    installed = {Path(sysconfig.get_path(place)).resolve() for place in places}
    return None if installed & set(script.parents) else str(script)


# -- others --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """A session of a server, as seen from outside.

    Attributes:
        name: to resume it by: ``garcon.connect(server, session=name)``.
        server: name of its server.
        user, host, pid: of the client that has it, or had it last; None where that is not known.
        held: whether that client lives and has it; nobody else can resume it then.
        since: since when it has been held, or free; in seconds since the epoch.
        recordings: how many there are in it.
        requests: those that wait, run, or have ended unread.
        runs: those that go on, or can go on.
    """

    name: str
    server: str
    user: str | None
    host: str | None
    pid: int | None
    held: bool
    since: float
    recordings: int
    requests: int
    runs: int

    @property
    def mine(self) -> bool:
        """Whether it is, or was last, this process's."""
        return (self.host, self.pid) == (socket.gethostname(), os.getpid())

    @property
    def contents(self) -> str:
        """What is in it, in words; "" where it is nothing."""
        counts = {"recording": self.recordings, "request": self.requests, "run": self.runs}
        return ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n)

    def __repr__(self) -> str:
        holder = f"held by {self.user}, process {self.pid} on {self.host}," if self.held else "free"
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"<session {self.name!r} of {self.server}: {holder} since {since}; {self.contents or 'empty'}>"


def sessions(name: str | Endpoint | None = None) -> list[Session]:
    """The sessions of a server: who has them, and what is in them. Answered while the model is busy, too.

    Args:
        name: of the server; None for all that run.

    Raises:
        UnknownServer: none of that name runs.
        ServerGone: it does not answer.
    """
    servers = registry.servers() if name is None else [registry.endpoint(name)]
    return [_session(server, row) for server in servers for row in control.sessions(server)]


def _session(server: Endpoint, row: dict[str, Any]) -> Session:
    return Session(row["session"], server.name, **{k: v for k, v in row.items() if k != "session"})


def tell(model: Client, wish: WishedSession | None = None) -> str:
    """What a person should know of the session of a new connection; "" for nothing.

    Args:
        wish: the session that was looked for; None where a fresh one was, and those that this process has
            left are of interest only.
    """
    if model.resumed:
        return ""
    rows = model._channel.ask(protocol.SESSIONS, {})["sessions"]
    others = [_session(model.server, row) for row in rows if row["session"] != model.session]
    taken = [one for one in others if wish and one.name == wish.name and one.held]
    free = [one for one in others if one.contents and (one.mine or not one.held)]
    free = [one for one in free if one.user in (getpass.getuser(), None) and (wish or one.mine)]
    if not (taken or free):
        return ""
    said = f"this is a new session, {model.session!r}"
    if taken:
        said += f", as process {taken[0].pid} on {taken[0].host} has {taken[0].name!r}"
    return f"{said}{_to_go_on(free, model.server.name)}"


def _to_go_on(free: Sequence[Session], server: str) -> str:
    """How to resume one of these."""
    if not free:
        return ""
    latest = sorted(free, key=lambda one: one.since, reverse=True)
    named = "; ".join(f"session={one.name!r} ({one.contents})" for one in latest[:LISTED])
    more = len(free) - LISTED
    listed = f'; {more} more: garcon.sessions("{server}")' if more > 0 else ""
    return f". To go on with another: {named}{listed}"
