"""A server on another machine, reached by ssh: ``ssh://user@host/name``.

The system's own OpenSSH client does it, so that names, keys, agents and jump hosts of ``~/.ssh/config`` mean what they
mean in a terminal. For each server one process of it stays. What it runs there
(:mod:`~garcon_jupyter.servers.remote_watch`) says what the server's connection file holds, whenever it changes. The
sockets of the file are forwarded to sockets in a directory of our own (0700).

Beside them lies a copy of the connection file (0600), with the addresses of these sockets. It is there exactly
while the server can be reached, and says of the server what is true here: that it runs on another host. So
tensors travel over the socket for data and never by shared memory, and no process number of there is looked up here.

Arguments for ssh that are not in the user's configuration come from ``GARCON_SSH``, such as ``-i FILE``.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from garcon_jupyter.connection.connection_file import read_connection_file
from garcon_jupyter.errors import ServerGone, UnknownServer, Unreachable
from garcon_jupyter.servers.private_directory import LockedDirectory
from garcon_jupyter.servers.remote_watch import WATCH, RemoteWatch
from garcon_jupyter.servers.server import Server
from garcon_jupyter.servers.ssh_address import SCHEME, SshAddress
from garcon_jupyter.wire.protocol import PORTS

ARGUMENTS = "GARCON_SSH"
"""Environment variable with further arguments of ssh, quoted as a shell reads them."""

CONNECT_TIME, ALIVE_TIME, ALIVE_COUNT = 10, 2, 3
"""Seconds to connect in; seconds between two looks at whether the other side still answers; how many of
them may fail."""

ANSWER_TIME = 30.0
"""Seconds in which the watch says its first word."""

BURIAL_TIME = 5.0
"""Seconds in which it says why the server ended, once that is gone."""


def find(text: str) -> Server:
    """The running server at an address; a tunnel that is open already serves again.

    Raises:
        BadRequest: it is no address.
        Unreachable: there is no ssh client, or it cannot connect; says what it said.
        UnknownServer: no server of this name runs there; names those that do.
    """
    address = SshAddress.of(text)
    with _FINDING:
        tunnel = _OPEN.get(text)
        if tunnel is None or not tunnel.open:
            tunnel = _OPEN[text] = Tunnel(address)
    return Server(text, tunnel.file, read_connection_file(tunnel.file)["garcon"], tunnel)


class Tunnel:
    """The way to one server; closed by the last who holds it, or when nobody knows of it any more.

    Attributes:
        file: the copy of the connection file.
    """

    def __init__(self, address: SshAddress) -> None:
        self.address = address
        self._held = 0
        self._lock = threading.Lock()
        self._ssh = _Ssh(address)
        self.close = weakref.finalize(self, self._ssh.end)
        self.file = self._ssh.directory / "connection.json"
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        watch = self._ssh.watch
        watch.await_word(ANSWER_TIME)
        if watch.lost:
            raise _refusal(self.address, self._ssh.last_words())
        if not watch.heard:
            raise _refusal(self.address, f"it said nothing for {ANSWER_TIME:.0f} seconds")
        if watch.info is None:
            raise _no_server(self.address, watch)
        self._ssh.forward(_addresses(watch.info))
        if not (
            self._ssh.greeted() or watch.info is None or watch.info["garcon"].get("restarting")
        ):
            raise self._ssh.refused("")
        watch.copy_to(
            self.file, partial(seen_from_here, address=self.address, directory=self.file.parent)
        )

    @property
    def open(self) -> bool:
        """Whether the server can be reached through it."""
        return self.close.alive and not self._ssh.watch.lost and self.file.exists()

    def __enter__(self) -> Tunnel:
        with self._lock:
            self._held += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._held -= 1
            last = self._held == 0
        if last:
            self.close()

    def loss(self) -> ServerGone | None:
        """The error where it is not the server that is gone but the way to it."""
        if self.close.alive and not self._ssh.watch.lost:
            return None
        how = f"was lost: {self._ssh.last_words()}" if self.close.alive else "was closed"
        return ServerGone(
            f"The ssh connection to {self.address.target} {how}.",
            "The server there goes on: connect again, and a named session has its recordings.",
        )

    def why_gone(self) -> str:
        """Why the server ended; "" where nothing is known. It needs a moment to say so."""
        end = time.monotonic() + BURIAL_TIME
        while not (self._ssh.watch.tombstone or self.loss()) and time.monotonic() < end:
            time.sleep(0.05)
        return self._ssh.watch.tombstone


_OPEN: weakref.WeakValueDictionary[str, Tunnel] = weakref.WeakValueDictionary()
os.register_at_fork(after_in_child=_OPEN.clear)  # a fork has not the threads that watch them
_FINDING = threading.Lock()


class _Ssh:
    """One process of ssh, and its directory, which ends with it."""

    def __init__(self, address: SshAddress) -> None:
        self._address = address
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        self._place = LockedDirectory("garcon-ssh-", runtime)
        self.directory = self._place.path
        self._owner = os.getpid()
        self._errors = self.directory / "errors"
        script = " ".join(WATCH.split("\n"))
        watch = shlex.join(["sh", "-c", script, "garcon", address.name, address.registry])
        options = {
            "BatchMode": "yes",  # a question would be asked where nobody can answer
            "ConnectTimeout": CONNECT_TIME,
            "ServerAliveInterval": ALIVE_TIME,
            "ServerAliveCountMax": ALIVE_COUNT,
            "ControlPersist": "no",
            "ClearAllForwardings": "yes",
            "RemoteCommand": "none",
            "StreamLocalBindMask": "0177",
        }
        words = [f"-o{option}={value}" for option, value in options.items()]
        try:
            with self._errors.open("w") as errors:
                self._process = subprocess.Popen(
                    self._command("-M", "-T", "-a", "-x", *words, last=[watch]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    errors="replace",
                    start_new_session=True,  # an interrupt of the notebook is not for it
                )
        except FileNotFoundError:
            self._place.remove()
            raise Unreachable(
                "There is no ssh on this machine.", "Install the OpenSSH client."
            ) from None
        assert self._process.stdout
        self.watch = RemoteWatch(self._process.stdout)

    def _command(self, *words: str, last: list[str]) -> list[str]:
        """A command of ssh; what the user says in ``GARCON_SSH`` comes first, and so wins."""
        own = shlex.split(os.environ.get(ARGUMENTS, ""))
        port = ["-p", self._address.port] if self._address.port else []
        control = ["-S", str(self.directory / "control")]
        return ["ssh", *own, *port, *control, *words, "--", self._address.target, *last]

    def forward(self, addresses: Iterator[tuple[str, str]]) -> None:
        """Forward sockets of our directory to addresses there.

        Raises:
            Unreachable: it is not allowed there, or the connection is lost.
        """
        words = [f"-L{self.directory}/{name}:{address}" for name, address in addresses]
        command = self._command("-O", "forward", *words, last=[])
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=ANSWER_TIME
        )
        if done.returncode:
            raise self.refused(done.stderr.strip())

    def greeted(self) -> bool:
        """Whether a forwarded socket is answered. What is forbidden is refused only when something connects."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(ANSWER_TIME)
            sock.connect(str(self.directory / "kernel-1"))
            return bool(sock.recv(1))  # whoever listens there greets
        return False

    def refused(self, said: str) -> Unreachable:
        """The error where nothing is forwarded, with what ssh said."""
        return Unreachable(
            f"ssh cannot forward sockets of {self._address.target}: {said or self.last_words()}.",
            "Its ssh server may forbid it (AllowTcpForwarding, AllowStreamLocalForwarding), or the "
            "server has just ended: try again.",
        )

    def last_words(self) -> str:
        """What ssh said last."""
        try:
            lines = self._errors.read_text(errors="replace").split("\n")
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        return said[-1].rstrip(".") if said else f"ssh ended with code {self._process.poll()}"

    def end(self) -> None:
        """End the process and what it forwards; what it ran there ends with it."""
        if os.getpid() != self._owner:
            return
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._place.remove()


def _addresses(info: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each socket of a server: the name that it has here, and its address there."""
    for number, port in _numbered(info):
        ip = f"[{info['ip']}]" if ":" in info["ip"] else info["ip"]
        yield f"kernel-{number}", f"{ip}{'-' if info['transport'] == 'ipc' else ':'}{info[port]}"


def _numbered(info: dict[str, Any]) -> list[tuple[int, str]]:
    """The sockets that a server has, by the numbers that they have here."""
    return [(number, port) for number, port in enumerate(PORTS, 1) if port in info]


def seen_from_here(info: dict[str, Any], address: SshAddress, directory: Path) -> dict[str, Any]:
    """A connection file as it is true on this side of a tunnel, with sockets in `directory`."""
    facts = info["garcon"]

    def there(host: str) -> str:  # no host is called so
        return f"{host} by {SCHEME}{address.target}"

    ranks = [{**rank, "host": there(rank["host"])} for rank in facts["ranks"]]
    own = {"name": address.text, "host": there(facts["host"]), "ranks": ranks, "slurm_job": None}
    ports = {port: number for number, port in _numbered(info)}
    place = {"transport": "ipc", "ip": str(directory / "kernel"), **ports}
    return {**info, **place, "garcon": {**facts, **own}}


# -- what can go wrong ---------------------------------------------------------------------------


def _no_server(address: SshAddress, watch: RemoteWatch) -> UnknownServer:
    past = f"The last one of that name has ended: {watch.tombstone}." if watch.tombstone else ""
    names = ", ".join(watch.names)
    running = f"Running there: {names}." if names else "No server runs there."
    kind = f"running server on {address.target}"
    error = UnknownServer.among(kind, address.name, watch.names, f"{past} {running}".strip())
    assert isinstance(error, UnknownServer)
    return error


_REFUSALS = {
    "permission denied": (
        "lets nobody in by the keys that there are",
        "Give a key by ssh-agent, by ~/.ssh/config or by GARCON_SSH='-i FILE'; "
        "ssh {target} in a terminal must ask no question.",
    ),
    "host key verification failed": (
        "is not known to ssh, or has another host key than it had",
        "Run ssh {target} in a terminal once, and compare the fingerprint with that of the machine.",
    ),
    "could not resolve hostname": (
        "has no address that this machine knows",
        "Correct the name, or add it to ~/.ssh/config.",
    ),
}
"""What ssh says when it cannot connect (any of it in the C locale): what that means, and what to do."""


def _refusal(address: SshAddress, said: str) -> Unreachable:
    for words, (problem, remedy) in _REFUSALS.items():
        if words in said.lower():
            problem = f"{address.target} {problem}: {said}."
            return Unreachable(problem, remedy.format(target=address.target))
    return Unreachable(
        f"ssh cannot connect to {address.target}: {said}.",
        f"Try ssh {address.target} in a terminal; {ARGUMENTS} holds further arguments, "
        "such as -p PORT.",
    )
