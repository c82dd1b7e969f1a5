"""One server, as its connection file tells, and where on this host what belongs to it lies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_runtime_dir

from garcon_jupyter.connection.channel import Channel
from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.connection.route import Route
from garcon_jupyter.errors import ServerGone
from garcon_jupyter.servers import slurm
from garcon_jupyter.wire.shared_files import shared_memory_root

Progress = Callable[[str], None]
"""Is told in a line what is going on."""


@dataclass(frozen=True)
class Server:
    """A running server, as its connection file tells."""

    name: str
    file: Path
    facts: dict[str, Any]
    tunnel: Route | None = None

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

    def connect(self) -> Channel:
        """A line to it.

        Raises:
            ServerGone: it has ended, and why.
        """
        if self.tunnel and (lost := self.tunnel.loss()):
            raise lost
        if not self.file.exists():
            raise ServerGone(
                f"Server {self.name!r} has ended: {self.why_gone() or 'reason unknown'}.",
                "garcon list names those that run.",
            )
        return Channel(self.file, self.why_gone, self.tunnel)

    def why_gone(self) -> str:
        """Why it ended, and when; "" where nothing is known."""
        return self.tunnel.why_gone() if self.tunnel else why_gone(self.name)

    def __repr__(self) -> str:
        degrees = ", ".join(f"{k}={v}" for k, v in self.facts["degrees"].items() if v > 1)
        said = "".join(f", {word}" for word in (degrees, unchecked(self.facts)) if word)
        return f"<server {self.name}: {self.facts['path']}{said}>"


def unchecked(facts: dict[str, Any]) -> str:
    """The word for a model whose numbers were not held against its own implementation's, as was asked; else ""."""
    check = facts.get("model", {}).get("check", {})
    return "unchecked" if check.get("outcome") == "unchecked" else ""


# -- where things lie ----------------------------------------------------------------------------


def registry_directory() -> Path:
    """Directory of the connection files: ``GARCON_RUNTIME``, or ``garcon`` in Jupyter's own (0700)."""
    path = Path(os.environ.get("GARCON_RUNTIME") or Path(jupyter_runtime_dir()) / "garcon")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


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


# -- what is left of one -------------------------------------------------------------------------


def forget(server: Server) -> None:
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
