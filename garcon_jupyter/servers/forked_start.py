"""Starting a server from the preloaded process of one that lives: most of a start is importing, which that one has done.

Every server of this host that this user has is asked. Each says no where a process that starts afresh would find
other packages, another environment or other limits (:mod:`garcon_jupyter.wire.surroundings`); then the new one
starts by its command.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from garcon_jupyter.servers.registry import servers
from garcon_jupyter.servers.server import own_directory
from garcon_jupyter.wire import forking
from garcon_jupyter.wire.surroundings import COLD, surroundings

_TICK = 0.05


class Forked:
    """A process that was forked for this one, and is not its child; with what is used of
    :class:`subprocess.Popen`."""

    returncode: int | None = None

    def __init__(self, pid: int) -> None:
        import psutil

        self.pid = pid
        try:
            self._process = psutil.Process(pid)
        except psutil.Error:
            self._process = None

    def poll(self) -> int | None:
        """None while it runs; then 1, for nobody knows its exit code."""
        import psutil

        with contextlib.suppress(psutil.Error):
            if self._process and self._process.is_running():
                return 1 if self._process.status() == psutil.STATUS_ZOMBIE else None
        return 1

    def wait(self) -> int:
        """Wait for its end; 1."""
        while self.poll() is None:
            time.sleep(_TICK)
        return 1


def start(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]
) -> Forked | None:
    """Start ``python -m module arguments`` as a fork of a living server's preloaded process.

    Args:
        streams: the open files of its standard input, output and error.

    Returns:
        The process; None where no server can fork one.
    """
    if environment.get(COLD) or not Path("/proc/self/ns").is_dir():
        return None
    request = {
        "module": module,
        "arguments": list(arguments),
        "environment": dict(environment),
        "directory": str(Path.cwd()),
        "surroundings": surroundings(environment),
    }
    for server in servers():
        if server.local:
            file = own_directory(server.name) / forking.SOCKET
            with contextlib.suppress(forking.NotForked):
                return Forked(forking.knock(file, request, streams))
    return None
