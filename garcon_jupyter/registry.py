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
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from jupyter_core.paths import jupyter_runtime_dir

from garcon_jupyter.channel import Channel, process_lives, read_connection_file
from garcon_jupyter.errors import (
    BadConnectionFile,
    BadDegrees,
    BadRequest,
    LaunchFailed,
    ServerGone,
    ServerMismatch,
    UnknownServer,
)
from garcon_jupyter.wire import protocol
from garcon_jupyter.wire.failures import revive
from garcon_jupyter.wire.transport import shared_memory_root

HOUR = 3600.0
LAUNCH_TIME = 1800.0
"""Seconds after which a launch that says nothing counts as failed."""

END_TIME = 30.0
"""Seconds in which a server that was told to end, or was lost, is gone with all its processes."""

SUPERVISOR = "supervisor.pid"

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

    @property
    def alive(self) -> bool:
        """Whether its rank 0 runs. A server of another host is believed."""
        return not self.local or process_lives(self.facts["pid"])

    @property
    def local(self) -> bool:
        """Whether it runs on this host."""
        return self.facts.get("host") == socket.gethostname()

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


def find(name: str) -> Server:
    """The running server of a name.

    Raises:
        UnknownServer: none runs; says why the last one ended, and which names there are.
        BadConnectionFile: the file of that name is no connection file of a server.
    """
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
    for directory in (_directory(server.name), _shared(server.name)):
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


def _directory(name: str) -> Path:
    """The server's own directory. Short: a socket path has at most about 100 characters."""
    root = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    short = hashlib.sha256(f"{registry_directory()}/{name}".encode()).hexdigest()[:16]
    return root / f"garcon-{os.getuid()}-{short}"


def _shared(name: str) -> Path:
    return shared_memory_root() / _directory(name).name


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


def seconds(timeout: float | str) -> float:
    """Seconds of ``3600``, ``"1h"``, ``"30m"``, ``"45s"``; 0 for ``"never"``.

    Raises:
        BadRequest: it is no duration.
    """
    if isinstance(timeout, int | float):
        return float(timeout)
    if timeout == "never":
        return 0.0
    found = re.fullmatch(r"([0-9.]+)\s*([smh]?)", timeout.strip())
    if not found:
        raise BadRequest(f"{timeout!r} is no duration.", 'Write seconds, or "30m", "1h", "never".')
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def launch(
    name: str, settings: Settings, idle_timeout: float, progress: Progress
) -> tuple[Server, bool]:
    """The server of a name: the running one, or a new one.

    Returns:
        The server, and whether it was started now.

    Raises:
        ServerMismatch: one runs with other settings.
        LaunchFailed: it did not come up; or the typed reason why.
    """
    if not re.fullmatch(r"[\w.@+-]+", name):
        raise BadRequest(f"{name!r} is no server name.", "Use letters, digits, and . _ - @ +.")
    for word in ("tp", "pp", "dp"):
        degree = getattr(settings, word)
        if degree is not None and degree < 1:
            raise BadDegrees(f"{word}={degree} is no degree.", "Degrees count from one.")
    with FileLock(registry_directory() / f"{name}.lock"):
        with contextlib.suppress(UnknownServer):
            server = find(name)
            if different := settings.differs(server.facts):
                raise ServerMismatch(
                    f"Server {name!r} runs with {different}.",
                    f"Stop it (garcon stop {name}), or launch under another name.",
                )
            return server, False
        return _start(name, settings, idle_timeout, progress), True


def _start(name: str, settings: Settings, idle_timeout: float, progress: Progress) -> Server:
    from garcon_jupyter import planning

    plan = planning.plan(settings)
    directory, shared = _directory(name), _shared(name)
    _await_end_of_former(directory)
    for path in (directory, shared):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
    spec = directory / "spec.json"
    content = {
        "name": name,
        "model": settings.path,
        "directory": str(directory),
        "shared": str(shared),
        "registry": str(registry_directory()),
        "degrees": plan.degrees,
        "dtype": settings.dtype,
        "device": plan.device,
        "idle_timeout": idle_timeout,
        "loader": settings.loader,
        "settings": {**settings.__dict__, "device": plan.device},
    }
    spec.write_text(json.dumps(content, indent=1))
    (registry_directory() / f"{name}.tombstone.json").unlink(missing_ok=True)
    log = log_file(name)
    with log.open("wb") as stream:
        log.chmod(0o600)
        process = subprocess.Popen(
            [sys.executable, "-m", "garcon_backend.engine.supervisor", str(spec)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
    (directory / SUPERVISOR).write_text(str(process.pid))
    return _await_ready(name, process, log, directory, progress)


def _await_end_of_former(directory: Path) -> None:
    """Wait until the supervisor of the former server of a name is gone: it would bury the new one.

    One that does not end by itself is killed; its ranks end with it.
    """
    try:
        pid = int((directory / SUPERVISOR).read_text())
    except (OSError, ValueError):
        return
    end = time.monotonic() + END_TIME
    while _supervises(pid):
        if time.monotonic() > end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(0.02)


def _supervises(pid: int) -> bool:
    """Whether a process is a living supervisor, and not another one that got its number."""
    import psutil

    try:
        return process_lives(pid) and "garcon_backend.engine.supervisor" in " ".join(
            psutil.Process(pid).cmdline()
        )
    except psutil.Error:
        return False


def _environment() -> dict[str, str]:
    """The environment of a server: nothing of the notebook's, or it would end with the notebook."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JPY_", "TORCHELASTIC_"))}
    for word in (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
    ):
        kept.pop(word, None)
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}
    return {**quiet, **kept, "TOKENIZERS_PARALLELISM": "false"}


def _await_ready(
    name: str, process: subprocess.Popen[bytes], log: Path, directory: Path, progress: Progress
) -> Server:
    file = registry_directory() / f"{name}.json"
    lines = _new_lines(log)
    end = time.monotonic() + LAUNCH_TIME
    try:
        while time.monotonic() < end:
            for line in next(lines):
                if line.startswith("[garcon] "):
                    progress(line.removeprefix("[garcon] "))
            if file.exists():
                return find(name)
            if process.poll() is not None:
                break
            time.sleep(0.05)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        raise
    raise _failed(name, log, directory)


def _new_lines(log: Path) -> Iterator[list[str]]:
    """What was written since the last look, by whole lines."""
    with log.open(errors="replace") as stream:
        rest = ""
        while True:
            *lines, rest = (rest + stream.read()).split("\n")
            yield lines


def _failed(name: str, log: Path, directory: Path) -> Exception:
    try:
        failure = json.loads((directory / "failure.json").read_text())
    except (OSError, ValueError):
        failure = None
    shutil.rmtree(directory, ignore_errors=True)
    if failure and failure["class"] != "ServerError":
        return revive(failure)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    problem = failure["problem"] if failure else why_gone(name) or "it said nothing"
    return LaunchFailed(
        f"Server {name!r} did not start: {problem}.", f"The end of its log:\n{tail}"
    )


# -- questions without a session, and the end ----------------------------------------------------


@contextlib.contextmanager
def _calling(server: Server) -> Iterator[Channel]:
    if not server.file.exists():
        raise ServerGone(
            f"Server {server.name!r} has ended: {why_gone(server.name) or 'reason unknown'}.",
            "garcon list names those that run.",
        )
    channel = Channel(server.file, lambda: why_gone(server.name))
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


def stop(server: Server, force: bool = False) -> None:
    """End a server; with `force` even while others use it, and by a signal if it does not answer.

    Raises:
        BadRequest: others use it; names them.
        ServerGone: it does not answer, or said that it would end and runs.
    """
    try:
        with _calling(server) as channel:
            channel.ask(protocol.SHUTDOWN, {**protocol.client_facts(), "force": force})
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
    """End a server that does not answer: all its processes, and what it left behind."""
    import psutil

    for pid in [server.facts["supervisor"], *(rank["pid"] for rank in server.facts["ranks"])]:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            for child in process.children(recursive=True):
                child.kill()
            process.kill()
    _forget(server)
