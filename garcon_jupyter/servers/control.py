"""What can be asked of a server without a session, and its end."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

from garcon_jupyter.connection.connection import Connection, Endpoint
from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.errors import ServerGone
from garcon_jupyter.servers import slurm
from garcon_jupyter.servers.server import Server, forget
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire.runs import RunStatus


@contextlib.contextmanager
def _calling(server: Endpoint) -> Iterator[Connection]:
    channel = server.connect()
    try:
        yield channel
    finally:
        channel.close()


def status(server: Endpoint) -> dict[str, Any]:
    """What runs, what waits, who is there, and the seconds left of the idle time.

    Raises:
        ServerGone: it does not answer.
    """
    with _calling(server) as channel:
        return channel.ask(protocol.STATUS, {})


def sessions(server: Endpoint) -> list[dict[str, Any]]:
    """Which sessions a server has, who has them, and what is in them.

    Raises:
        ServerGone: it does not answer.
    """
    with _calling(server) as channel:
        rows: list[dict[str, Any]] = channel.ask(protocol.SESSIONS, {})["sessions"]
    return rows


def runs(server: Endpoint) -> list[tuple[str, RunStatus]]:
    """The runs of all sessions of a server, each with its session: trainings and stores being written among them.

    Raises:
        ServerGone: it does not answer.
    """
    found: list[tuple[str, RunStatus]] = []
    with _calling(server) as channel:
        for row in channel.ask(protocol.SESSIONS, {})["sessions"]:
            session = str(row["session"])
            answer = _about_run(channel, {"verb": "list", "session": session})
            found += [(session, status) for status in transport.unpack(answer, answer["buffers"])]
    return found


def steer(server: Endpoint, session: str, run: str, verb: str) -> RunStatus:
    """Pause, resume or cancel a run of any session; or look at it.

    Args:
        verb: "pause", "resume", "cancel" or "poll".

    Raises:
        UnknownName: the session has no such run.
        ServerGone: it does not answer.
    """
    told = {"verb": verb, "session": session, "run": run, "prints": 0}
    with _calling(server) as channel:
        answer = _about_run(channel, told)
    status: RunStatus = transport.unpack(answer, answer["buffers"])
    return status


def _about_run(channel: Connection, told: dict[str, Any]) -> dict[str, Any]:
    packed, buffers = transport.pack(None)
    return channel.ask(protocol.RUN, {**told, **packed}, buffers)


def keep_alive(server: Endpoint) -> float | None:
    """Start a server's idle time anew; the seconds it has now, None where it never ends by itself.

    Raises:
        ServerGone: it does not answer.
    """
    with _calling(server) as channel:
        left: float | None = channel.ask(protocol.KEEP_ALIVE, {})["idle_left"]
    return left


def cancel(server: Endpoint, request: str) -> bool:
    """Stop one request, whoever sent it; whether it was running.

    Args:
        request: its id, as :func:`status` tells it.

    Raises:
        ServerGone: the server does not answer.
    """
    with _calling(server) as channel:
        ran: bool = channel.ask(protocol.CANCEL, {"request": request})["running"]
    return ran


def stop(server: Endpoint, force: bool = False) -> None:
    """End a server; with `force` even while others use it, and by a signal if it does not answer.

    A model in this process is let go of.

    Raises:
        BadRequest: others use it; names them.
        ServerGone: it does not answer, or said that it would end and runs.
    """
    if not isinstance(server, Server):
        _ask_to_end(server, force)
        return
    try:
        with server.tunnel or contextlib.nullcontext():  # kept until the end is seen
            _ask_to_end(server, force)
            _await_end(server, seconds=5 if force else 30)
    except ServerGone:
        if not force:
            raise
        kill(server)


def _ask_to_end(server: Endpoint, force: bool) -> None:
    with _calling(server) as channel:
        channel.ask(protocol.SHUTDOWN, {**channel.client_facts(), "force": force})


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
    forget(server)
