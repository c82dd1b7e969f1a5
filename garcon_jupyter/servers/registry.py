"""Running servers: find them, launch them, learn why one ended.

A server is known by one file, ``NAME.json`` in the registry directory (0600: it holds the keys), which
exists exactly while the server can be used. A tombstone, ``NAME.tombstone.json``, tells when and why the
last one of that name ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from jupyter_core.paths import jupyter_runtime_dir

from garcon_jupyter.connection.channel import Channel
from garcon_jupyter.connection.connection_file import process_lives, read_connection_file
from garcon_jupyter.errors import (
    BadConnectionFile,
    BadDegrees,
    BadRequest,
    ServerGone,
    ServerMismatch,
    UnknownServer,
)
from garcon_jupyter.servers import slurm
from garcon_jupyter.servers.hosts import Several
from garcon_jupyter.servers.limits import Limits
from garcon_jupyter.wire import protocol
from garcon_jupyter.wire.shared_files import shared_memory_root

if TYPE_CHECKING:
    from garcon_jupyter.servers.tunnels import Tunnel

Progress = Callable[[str], None]


def registry_directory() -> Path:
    """Directory of the connection files: ``GARCON_RUNTIME``, or ``garcon`` in Jupyter's own (0700)."""
    path = Path(os.environ.get("GARCON_RUNTIME") or Path(jupyter_runtime_dir()) / "garcon")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


@dataclass(frozen=True)
class Server:
    """A running server, as its connection file tells."""

    name: str
    file: Path
    facts: dict[str, Any]
    tunnel: Tunnel | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs, or starts anew. For one of another host its tunnel or Slurm is asked, or it is
        believed."""
        if self.tunnel:
            return self.tunnel.open
        if self.local:
            return process_lives(self.facts["supervisor"])
        return not (self.facts.get("slurm_job") and slurm.over(self.facts["slurm_job"]))

    @property
    def local(self) -> bool:
        """Whether it runs on this host."""
        return self.facts.get("host") == socket.gethostname()

    def why_gone(self) -> str:
        """Why it ended, and when; "" where nothing is known."""
        return self.tunnel.why_gone() if self.tunnel else why_gone(self.name)

    def __repr__(self) -> str:
        degrees = ", ".join(f"{k}={v}" for k, v in self.facts["degrees"].items() if v > 1)
        return f"<server {self.name}: {self.facts['path']}{', ' + degrees if degrees else ''}>"


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
                _forget(server)
    return found


def find(name: str | Server) -> Server:
    """The running server of a name, or at an address: ``ssh://user@host/name``.

    Raises:
        BadRequest: that is no name.
        UnknownServer: none runs; says why the last one ended, and which names there are.
        BadConnectionFile: the file of that name is no connection file of a server.
        Unreachable: by ssh; says why.
    """
    from garcon_jupyter.servers import tunnels

    if isinstance(name, Server):
        name = name.name
    if not isinstance(name, str) or not name:
        names = ", ".join(server.name for server in servers())
        raise BadRequest(
            f"{name!r} is no name of a server.",
            f"Give one as a text. Running: {names or 'none; garcon launch starts one'}.",
        )
    if name.startswith(tunnels.SCHEME):
        return tunnels.find(name)
    file = registry_directory() / f"{name}.json"
    if not re.fullmatch(r"[\w.@+-]+", name) or not file.exists():
        raise _unknown(name)
    server = Server(name, file, read_connection_file(file)["garcon"])
    if not server.alive:
        _forget(server)
        raise _unknown(name)
    return server


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


def _forget(server: Server) -> None:
    """Remove the file of a server whose processes are gone without having said so.

    Where the supervisor still lives it is about to do this itself, and to say why.
    """
    if process_lives(server.facts["supervisor"]):
        return
    server.file.unlink(missing_ok=True)
    tombstone = server.file.with_suffix(".tombstone.json")
    if not tombstone.exists():
        content = {"name": server.name, "time": time.time(), "reason": "its processes were killed"}
        tombstone.write_text(json.dumps(content))
    job = slurm.directory(registry_directory(), server.name)
    for directory in (own_directory(server.name), shared_directory(server.name), job):
        shutil.rmtree(directory, ignore_errors=True)


def why_gone(name: str) -> str:
    """Why the last server of a name ended, and when; "" where nothing is known."""
    try:
        told = json.loads((registry_directory() / f"{name}.tombstone.json").read_text())
    except (OSError, ValueError):
        return ""
    return f"{told['reason']}, {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(told['time']))}"


def log_file(name: str) -> Path:
    """What the server of a name writes."""
    return registry_directory() / f"{name}.log"


def own_directory(name: str) -> Path:
    """The server's own directory on this host. Short: a socket path has at most about 100 characters."""
    root = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    short = hashlib.sha256(f"{registry_directory()}/{name}".encode()).hexdigest()[:16]
    return root / f"garcon-{os.getuid()}-{short}"


def shared_directory(name: str) -> Path:
    """The server's directory in shared memory."""
    return shared_memory_root() / own_directory(name).name


# -- launching -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What a server is launched with; see :func:`garcon_jupyter.launch`."""

    path: str
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    dtype: str | None = None
    device: str | None = None
    loader: str | None = None

    def differs(self, facts: dict[str, Any]) -> str:
        """In what a running server differs from these settings, or nothing."""
        differences = []
        if facts["path"] != self.path:
            differences.append(f"model {facts['path']}")
        for word in ("tp", "pp", "dp"):
            asked, has = getattr(self, word), facts["degrees"][word]
            if asked is not None and asked != has:
                differences.append(f"{word}={has}")
        for word in ("dtype", "device", "loader"):
            asked, had = getattr(self, word), facts["settings"].get(word)
            has = facts["model"]["dtype"] if word == "dtype" and asked else had
            if asked != has and not (word == "device" and asked is None):
                differences.append(f"{word}={has}")
        return ", ".join(differences)


def launch(
    name: str,
    settings: Settings,
    limits: Limits,
    progress: Progress,
    words: Several | None = None,
) -> tuple[Server, bool]:
    """The server of a name: the running one, or a new one.

    Args:
        words: for one that runs over several hosts.

    Returns:
        The server, and whether it was started now. On another host than its first: the server that has
        ended.

    Raises:
        ServerMismatch: one runs with other settings.
        LaunchFailed: it did not come up; or the typed reason why.
    """
    from garcon_jupyter.servers import launching

    if not re.fullmatch(r"[\w.@+-]+", name):
        raise BadRequest(f"{name!r} is no server name.", "Use letters, digits, and . _ - @ +.")
    for word in ("tp", "pp", "dp"):
        degree = getattr(settings, word)
        if degree is not None and degree < 1:
            raise BadDegrees(f"{word}={degree} is no degree.", "Degrees count from one.")
    start = launching.way(name, settings, limits, progress, words or Several())
    if isinstance(start, launching.BesideOthers):
        return start(), True
    with FileLock(registry_directory() / f"{name}.lock"):
        with contextlib.suppress(UnknownServer):
            server = find(name)
            if different := settings.differs(server.facts):
                raise ServerMismatch(
                    f"Server {name!r} runs with {different}.",
                    f"Stop it (garcon stop {name}), or launch under another name.",
                )
            return server, False
        return start(), True


# -- questions without a session, and the end ----------------------------------------------------


@contextlib.contextmanager
def _calling(server: Server) -> Iterator[Channel]:
    if server.tunnel and (lost := server.tunnel.loss()):
        raise lost
    if not server.file.exists():
        raise ServerGone(
            f"Server {server.name!r} has ended: {server.why_gone() or 'reason unknown'}.",
            "garcon list names those that run.",
        )
    channel = Channel(server.file, server.why_gone, server.tunnel)
    try:
        yield channel
    finally:
        channel.close()


def status(server: Server) -> dict[str, Any]:
    """What runs, what waits, who is there, and the seconds left of the idle time.

    Raises:
        ServerGone: it does not answer.
    """
    with _calling(server) as channel:
        return channel.ask(protocol.STATUS, {})


def sessions(server: Server) -> list[dict[str, Any]]:
    """Which sessions a server has, who has them, and what is in them.

    Raises:
        ServerGone: it does not answer.
    """
    with _calling(server) as channel:
        return channel.ask(protocol.SESSIONS, {})["sessions"]


def keep_alive(server: Server) -> float | None:
    """Start a server's idle time anew; the seconds it has now, None where it never ends by itself.

    Raises:
        ServerGone: it does not answer.
    """
    with _calling(server) as channel:
        return channel.ask(protocol.KEEP_ALIVE, {})["idle_left"]


def cancel(server: Server, request: str) -> bool:
    """Stop one request, whoever sent it; whether it was running.

    Args:
        request: its id, as :func:`status` tells it.

    Raises:
        ServerGone: the server does not answer.
    """
    with _calling(server) as channel:
        return channel.ask(protocol.CANCEL, {"request": request})["running"]


def stop(server: Server, force: bool = False) -> None:
    """End a server; with `force` even while others use it, and by a signal if it does not answer.

    Raises:
        BadRequest: others use it; names them.
        ServerGone: it does not answer, or said that it would end and runs.
    """
    try:
        with server.tunnel or contextlib.nullcontext():  # kept until the end is seen
            with _calling(server) as channel:
                channel.ask(protocol.SHUTDOWN, {**channel.client_facts(), "force": force})
            _await_end(server, seconds=5 if force else 30)
    except ServerGone:
        if not force:
            raise
        kill(server)


def _await_end(server: Server, seconds: float) -> None:
    pids = [server.facts["pid"], server.facts["supervisor"]] if server.local else []
    end = time.monotonic() + seconds
    while server.file.exists() or any(process_lives(pid) for pid in pids):
        if time.monotonic() > end:
            raise ServerGone(
                f"Server {server.name!r} said it would end, but runs.",
                f"garcon stop --force {server.name} ends it.",
            )
        time.sleep(0.02)


def kill(server: Server) -> None:
    """End a server that does not answer: its processes on this host, or its job, and what it left behind.

    Its processes on other hosts notice that and end.

    Raises:
        ServerGone: it runs on other hosts only.
    """
    import psutil

    job, here = server.facts.get("slurm_job"), socket.gethostname()
    pids = [rank["pid"] for rank in server.facts["ranks"] if rank["host"] == here]
    if job:
        slurm.cancel(job)
    elif not pids:
        raise ServerGone(
            f"Server {server.name!r} does not answer, and runs on {server.facts['host']}.",
            f"There, garcon stop --force {server.name.rpartition('/')[2]} ends it.",
        )
    if server.local:
        pids.append(server.facts["supervisor"])
    for pid in reversed(pids):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for child in process.children(recursive=True):
                child.kill()
            process.kill()
    end = time.monotonic() + 5
    while any(map(process_lives, pids)) and time.monotonic() < end:
        time.sleep(0.01)  # a signal is not yet an end
    _forget(server)
