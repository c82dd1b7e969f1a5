"""The first process of a server on a host, which becomes its supervisor: started in a session of its own, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.servers import forked_start
from garcon_jupyter.servers.hosts import Place
from garcon_jupyter.servers.server import own_directory, shared_directory
from garcon_jupyter.wire.surroundings import at_start

Process = subprocess.Popen[bytes] | forked_start.Forked

END_TIME = 30.0
"""Seconds in which a server that was told to end, or was lost, is gone with all its processes."""

SUPERVISOR = "supervisor.pid"

FIRST = "garcon_backend.supervision.start"
"""The module that runs as the first process of a server on a host, which becomes its supervisor."""


def supervise(
    own: str, spec: Callable[[], dict[str, Any]], place: Place | None, log: Path
) -> Process:
    """Start a supervisor on this host, in a session of its own.

    Args:
        spec: makes the settings. This takes time, in which the process imports what it needs; it waits for the
            spec until its standard input is closed.
    """
    directory, shared = own_directory(own), shared_directory(own)
    _await_end_of_former(directory)
    for path in (directory, shared):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
    file = directory / "spec.json"
    waits, goes_on = os.pipe()
    try:
        with log.open("wb") as stream:
            log.chmod(0o600)
            process = _first_process(file, (waits, stream.fileno()), alone=place is None)
        (directory / SUPERVISOR).write_text(str(process.pid))
        try:
            placed = place.as_dict() if place else None
            content = {**spec(), "directory": str(directory), "shared": str(shared)}
            writing = file.with_suffix(".writing")
            writing.write_text(json.dumps({**content, "hosts": placed}, indent=1))
            writing.replace(file)
        except BaseException:
            terminate(process, signal.SIGKILL)  # it has made nothing yet
            for path in (directory, shared):
                shutil.rmtree(path, ignore_errors=True)
            log.unlink(missing_ok=True)
            raise
    finally:
        os.close(waits)
        os.close(goes_on)
    return process


def _first_process(file: Path, streams: tuple[int, int], alone: bool) -> Process:
    """Start the first process of a server, forked from that of another where one can be.

    Args:
        streams: what it reads from and writes to.
        alone: whether it is the only host's; that of several ends with its launch.
    """
    around, (source, sink) = environment(), streams
    forked = forked_start.start(FIRST, [str(file)], around, (source, sink, sink)) if alone else None
    return forked or subprocess.Popen(
        [sys.executable, "-m", FIRST, str(file)],
        stdin=source,
        stdout=sink,
        stderr=subprocess.STDOUT,
        env=around,
        start_new_session=True,
    )


def terminate(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to the process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


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
        return process_lives(pid) and FIRST in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def environment() -> dict[str, str]:
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
    return at_start({**quiet, **kept, "TOKENIZERS_PARALLELISM": "false"})
