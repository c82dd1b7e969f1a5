"""A real ssh server on one of two hosts, and a client of the other, each with keys of its own.

The hosts are network namespaces (:mod:`tests.network`). Only the ``ssh`` process needs to be on the notebook's
host: :class:`Ssh` is an ``ssh`` to be found first in the path, which enters the namespace.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.network import Host

PORT = 2222


class Sshd:
    """One that lets a key of its own in.

    Attributes:
        bin: directory of an ``ssh`` that starts on the other host.
        arguments: for ``GARCON_SSH``: the key, and the known hosts.
    """

    def __init__(self, directory: Path, host: Host, other: Host, runtime: Path) -> None:
        self.directory, self._host = directory, host
        for name in ("host-key", "key", "other-key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(words, check=True)
        public = (directory / "host-key.pub").read_text()
        ports = f"[{host.address}]:{PORT}", f"[{host.address}]:{PORT + 1}"
        (directory / "known").write_text("".join(f"{port} {public}" for port in ports))
        (directory / "authorized").write_text((directory / "key.pub").read_text())
        self._settings = {
            "ListenAddress": host.address,
            "HostKey": directory / "host-key",
            "AuthorizedKeysFile": directory / "authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "SetEnv": f"GARCON_RUNTIME={runtime}",
        }
        self.start(PORT)
        self.bin = directory / "bin"
        self.bin.mkdir()
        ssh = self.bin / "ssh"
        ssh.write_text(f'#!/bin/sh\nexec ip netns exec {other.name} /usr/bin/ssh "$@"\n')
        ssh.chmod(0o755)
        self.arguments = self.arguments_with()

    def start(self, port: int, **settings: str) -> None:
        """Listen on a port."""
        Path("/run/sshd").mkdir(exist_ok=True)  # it insists on this one
        config = self.directory / f"sshd-{port}"
        lines = {**self._settings, "Port": port, **settings}.items()
        config.write_text("".join(f"{word} {value}\n" for word, value in lines))
        sshd = self._host.start("/usr/sbin/sshd", "-D", "-e", "-f", str(config))
        assert sshd.stdout
        said = ""
        while "Server listening" not in said:
            said = sshd.stdout.readline()
            assert said, sshd.wait()

    def arguments_with(self, key: str = "key", known: str = "known") -> str:
        """Arguments of ssh with another key, or other known hosts."""
        own = self.directory
        return (
            f"-F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes "
            f"-o UserKnownHostsFile={own / known} -i {own / key}"
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a client on the other host needs."""
        return {"PATH": f"{self.bin}:{os.environ['PATH']}", "GARCON_SSH": self.arguments}
