"""The sockets by which rank 0 commands the others.

On one host they are socket files in the server's own directory, which only its user can enter. Over hosts
they are TCP, encrypted by CURVE. The key pairs are derived on every host from the secret that all share
(:mod:`garcon_backend.distributed.secret`) and never travel: whoever lacks the secret does not know rank 0's
public key, without which nobody can so much as greet it, and cannot pass as rank 0. So rank 0 may tell its
address through torch's store, which anybody can write to: a false address leads to nobody who answers.

The tensors of a pass travel by gloo or NCCL, which know no encryption; nor does torch's store check who
speaks. Several hosts belong on a network that is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import zmq

from garcon_backend.distributed.host_rendezvous import Meeting
from garcon_backend.distributed.secret import KeyPair
from garcon_backend.lockstep.liveness import Liveness
from garcon_jupyter.wire import codec
from garcon_jupyter.wire.launch_spec import Hosts, LaunchSpec

RANK_ZERO = {
    "commands": zmq.ROUTER,
    "signals": zmq.PUB,
    "reports": zmq.PULL,
    "liveness": zmq.XPUB,
}
"""The sockets, by what goes over them, with their types on rank 0."""

_OTHERS = {"commands": zmq.DEALER, "signals": zmq.SUB, "reports": zmq.PUSH, "liveness": zmq.SUB}

SILENCE = float(os.environ.get("GARCON_HOST_SILENCE", "30"))
"""Seconds of silence over TCP after which a host counts as lost."""

_BEATS = 6
"""Heartbeats in that time."""


class Link:
    """One rank's end.

    Attributes:
        commands: ROUTER on rank 0; on the others DEALER, named by the rank.
        signals: PUB on rank 0; on the others SUB, of everything.
        reports: PULL on rank 0; on the others PUSH, of what the signals asked.
    """

    def __init__(
        self, commands: Any, signals: Any, reports: Any, liveness: Liveness | None = None
    ) -> None:
        self.commands, self.signals, self.reports = commands, signals, reports
        self._liveness = liveness

    def part(self) -> None:
        """The server ends: from now on a rank that goes is no rank that was lost."""
        if self._liveness:
            self._liveness.part()

    def await_parting(self) -> None:
        """On rank 0, wait until the others have gone, so that they hear the last command."""
        if self._liveness:
            self._liveness.await_parting()


def open_link(
    spec: LaunchSpec, rank: int, meeting: Meeting | None, lost: Callable[[str], None]
) -> Link:
    """The link of a rank; on the others than rank 0 over hosts, waits until rank 0 answers.

    Args:
        lost: is called over hosts, on a thread of its own, with the name of a rank that was lost. (On
            one host the launcher ends all ranks with the first.)
    """
    if spec.degrees.world == 1:
        return Link(None, None, None)
    if meeting is None or spec.hosts is None:
        return _over_files(f"ipc://{spec.directory}/ranks", rank)
    return _over_hosts(spec, spec.hosts, rank, meeting, lost)


def _over_files(prefix: str, rank: int) -> Link:
    sockets = {}
    for what in ("commands", "signals", "reports"):
        sockets[what] = _socket(what, rank)
        attach = sockets[what].connect if rank else sockets[what].bind
        attach(f"{prefix}-{what}")
    return Link(**sockets)


def _over_hosts(
    spec: LaunchSpec, hosts: Hosts, rank: int, meeting: Meeting, lost: Callable[[str], None]
) -> Link:
    zero, other = (
        KeyPair.derived(hosts.secret_file, f"{who} of {spec.name}") for who in ("rank 0", "others")
    )
    sockets = {what: _socket(what, rank) for what in RANK_ZERO}
    for sock in sockets.values():
        sock.heartbeat_timeout = int(SILENCE * 1000)
        sock.heartbeat_ivl = sock.heartbeat_timeout // _BEATS
        sock.curve_secretkey = (other if rank else zero).secret
        sock.curve_publickey = (other if rank else zero).public
        if rank:
            sock.curve_serverkey = zero.public
        else:
            sock.curve_server = True
    if rank == 0:
        for sock in sockets.values():
            sock.bind(f"tcp://{hosts.local_addr}:*")
        meeting.say("link", {what: s.last_endpoint.decode() for what, s in sockets.items()})
        liveness = Liveness.of_rank_zero(sockets["liveness"], lost)
    else:
        addresses = meeting.ask("link")
        liveness = Liveness.of_other(sockets["liveness"], rank, lost)
        for what, sock in sockets.items():
            sock.connect(addresses[what])
        liveness.await_welcome()
    return Link(sockets["commands"], sockets["signals"], sockets["reports"], liveness)


def encoded(value: Any) -> list[Any]:
    """A value as frames of a command."""
    payload, buffers = codec.dumps(value)
    return [payload, *buffers]


def _socket(what: str, rank: int) -> Any:
    context: Any = zmq.Context.instance()
    sock = context.socket((_OTHERS if rank else RANK_ZERO)[what])
    # Queues may grow: a rank that waits to get rid of its prints may be the one that others wait for.
    # How much one request prints is limited elsewhere.
    sock.sndhwm = sock.rcvhwm = 0
    if what == "commands" and rank:
        sock.identity = str(rank).encode()
    elif what == "commands":
        sock.router_mandatory = True
    elif what == "signals" and rank:
        sock.subscribe(b"")
    return sock
