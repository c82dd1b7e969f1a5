"""Two hosts on one machine: network namespaces that a cable joins, each with a name of its own.

They have their own interfaces, addresses, ports and host names; files and processes are the machine's.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class Refused(Exception):
    """The kernel refuses namespaces to this user, and says so."""


class Host:
    """One of them.

    Attributes:
        name: its host name, and that of its namespace.
        address: in the network of the two.
    """

    def __init__(self, name: str, address: str, environment: Mapping[str, str]) -> None:
        self.name, self.address = name, address
        self._environment = {**os.environ, **environment}

    def start(self, *command: str, **more: Any) -> subprocess.Popen[str]:
        """Start a command there; its output is kept, errors in the same stream."""
        enter = ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c"]
        script = f'hostname {self.name} && exec "$@"'
        return subprocess.Popen(
            [*enter, script, "sh", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**self._environment, **more},
        )

    def run(self, *command: str, **more: Any) -> tuple[int, str]:
        """Run a command there to its end; exit code and output."""
        process = self.start(*command, **more)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def processes(self, word: str = "") -> list[int]:
        """What runs there, whose command line has a word."""
        pids = _ip("netns", "pids", self.name).split()
        return [int(pid) for pid in pids if word in _command_line(pid)]

    def cut_cable(self) -> None:
        """From now on nothing comes or goes."""
        _ip("-n", self.name, "link", "set", "eth0", "down")

    def mend_cable(self) -> None:
        """It comes and goes again."""
        _ip("-n", self.name, "link", "set", "eth0", "up")

    def end_all(self) -> None:
        """Leave nothing running there."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def two_hosts(directory: Path, environment: Mapping[str, str]) -> Iterator[tuple[Host, Host]]:
    """Two hosts, and an own registry directory on each.

    Raises:
        Refused: by the kernel. (Where ``ip`` is missing, FileNotFoundError: install iproute2.)
    """
    here = []
    try:
        for n, letter in enumerate("ab"):
            name = f"host{os.getpid()}{letter}"
            own = {"GARCON_RUNTIME": str(directory / letter), **environment}
            _ip("netns", "add", name)
            here.append(Host(name, f"10.77.0.{n + 1}", own))
        a, b = here
        cable = ("type", "veth", "peer", "name", "eth0", "netns", b.name)
        _ip("link", "add", "eth0", "netns", a.name, *cable)
        for host in here:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0")
            for interface in ("lo", "eth0"):
                _ip("-n", host.name, "link", "set", interface, "up")
        yield a, b
    finally:
        for host in here:
            host.end_all()
            _ip("netns", "delete", host.name)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode and words[:2] == ("netns", "add"):
        raise Refused(done.stderr.strip())
    done.check_returncode()
    return done.stdout


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
