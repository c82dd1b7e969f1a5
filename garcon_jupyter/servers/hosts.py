"""Where this host stands among those of a server that runs over several.

Each host runs the same command. What only it knows (whether the endpoint is its own address, and at which
address the others reach it) is found here; what all must share is a secret, in a file of its owner's:

    (umask 077; openssl rand -hex 32 > ~/.garcon-secret)     # once; then the same file on every host

The ranks derive the keys of their encrypted connections from it. It never travels, and without it a server
does not run over hosts.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadDegrees, BadRequest
from garcon_jupyter.servers.options import OPTIONS, JobOptions, Several

SECRET_VARIABLE = "GARCON_SECRET"
"""Environment variable that names the secret file."""

SHORTEST_SECRET = 32
"""Bytes of a secret file, at least."""


OF_SLURM = tuple(word for word in JobOptions.__annotations__ if word != "launcher")
"""The words that only a job has."""


@dataclass(frozen=True)
class Place:
    """The place of this host; the attributes are those of the keywords."""

    nnodes: int
    nproc_per_node: int
    endpoint: str
    is_host: bool
    node_rank: int | None
    local_addr: str
    secret_file: str

    @property
    def first(self) -> bool:
        """Whether rank 0, and with it the connection file, belongs to this host."""
        return self.is_host if self.node_rank is None else self.node_rank == 0

    @property
    def label(self) -> str:
        """What tells this host from the others of the server."""
        return self.local_addr if self.node_rank is None else str(self.node_rank)

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def by_slurm(words: Several) -> bool:
    """Whether Slurm is to launch.

    Raises:
        BadRequest: the words make no sense together.
    """
    launcher = words.get("launcher")
    given = [
        word for word, value in words.items() if value not in (None, ()) and word != "launcher"
    ]
    if launcher is None:
        wrong, remedy = (
            [w for w in given if w in OF_SLURM],
            "Add --launcher slurm, or leave it out.",
        )
    else:
        allowed = (*OF_SLURM, "nproc_per_node")
        wrong, remedy = [w for w in given if w not in allowed], "Slurm sees to that; leave it out."
    if wrong:
        raise BadRequest(f"{OPTIONS[wrong[0]].flag} does not go with this launcher.", remedy)
    return launcher == "slurm"


def over_several(words: Several) -> bool:
    """Whether the server is to run over hosts that meet at an endpoint.

    Raises:
        BadRequest: a word is missing.
    """
    given = [word for word, value in words.items() if value is not None]
    if not given:
        return False
    for needed in ("nnodes", "rdzv_endpoint"):
        if needed not in given:
            raise BadRequest(
                f"{OPTIONS[given[0]].flag} needs {OPTIONS[needed].flag}.",
                "Several hosts are launched by --nnodes N --rdzv-endpoint HOST:PORT on each.",
            )
    return True


def place(words: Several, degrees: Mapping[str, int]) -> Place:
    """This host's place.

    Raises:
        BadDegrees: the degrees do not give as many ranks as there are; with the numbers.
        BadRequest: the endpoint is none, or no address of this host is found.
    """
    nnodes, endpoint = words.get("nnodes") or 0, words.get("rdzv_endpoint") or ""
    per_node = ranks_per_node(nnodes, words.get("nproc_per_node"), degrees)
    node_rank = words.get("node_rank")
    if node_rank is not None and not 0 <= node_rank < nnodes:
        raise BadRequest(f"There is no node rank {node_rank}.", f"They go from 0 to {nnodes - 1}.")
    host, port = _parsed(endpoint)
    is_host = words.get("is_host")
    return Place(
        nnodes,
        per_node,
        endpoint,
        _is_mine(host) if is_host is None else is_host,
        node_rank,
        words.get("local_addr") or _reachable(address_towards(host, port), host),
        str(checked_secret(words.get("secret_file"))),
    )


def ranks_per_node(nodes: int, asked: int | None, degrees: Mapping[str, int]) -> int:
    """Ranks on each host.

    Raises:
        BadDegrees: the product of the degrees is not the number of hosts by the ranks of each.
    """
    if nodes < 1 or (asked is not None and asked < 1):
        raise BadDegrees(f"{nodes} hosts of {asked} ranks are none.", "Both count from one.")
    world = prod(degrees.values())
    words = " × ".join(f"{word}={n}" for word, n in degrees.items())
    each = asked or world // nodes
    if nodes * each != world:
        of_each = f" of {asked} ranks each" if asked else ""
        raise BadDegrees(
            f"{words} makes {world} ranks, which do not fill {nodes} hosts{of_each}.",
            "The product of the degrees is the number of hosts times the ranks of each.",
        )
    return each


def checked_secret(given: str | os.PathLike[str] | None) -> Path:
    """The file with the secret that all hosts share.

    Raises:
        BadRequest: there is none, it is too short, or others can read it.
    """
    named = given or os.environ.get(SECRET_VARIABLE)
    if not named:
        raise BadRequest(
            "A server over several hosts needs a secret that they share.",
            "Make one with (umask 077; openssl rand -hex 32 > FILE), copy it to every host, and give "
            f"--secret-file FILE or {SECRET_VARIABLE}=FILE.",
        )
    file = Path(named).expanduser().resolve()
    try:
        size, mode = len(file.read_bytes().strip()), stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise BadRequest(
            f"The secret file cannot be read: {error}.", "It must be on every host."
        ) from error
    if mode & 0o077:
        raise BadRequest(f"Others can read the secret file {file}.", f"chmod 600 {file}")
    if size < SHORTEST_SECRET:
        raise BadRequest(
            f"The secret in {file} has only {size} bytes.",
            f"Make one with (umask 077; openssl rand -hex 32 > {file}).",
        )
    return file


def _parsed(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadRequest(
            f"{endpoint!r} is no endpoint.", "Write HOST:PORT, such as 10.0.0.1:29400."
        )
    return host.strip("[]"), int(port)


def _addresses(host: str) -> set[str]:
    try:
        return {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise BadRequest(
            f"{host} has no address that this host knows: {error}.", "Give its IP address."
        ) from error


def _is_mine(host: str) -> bool:
    """Whether a name or address is one of this host."""
    import psutil

    mine = {a.address.split("%")[0] for every in psutil.net_if_addrs().values() for a in every}
    return any(a in mine or ipaddress.ip_address(a).is_loopback for a in _addresses(host))


def address_towards(host: str, port: int) -> str:
    """The address of this host from which a packet to another would go.

    Raises:
        BadRequest: there is no way to it.
    """
    address = sorted(_addresses(host), key=lambda a: ":" in a)[0]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:  # connecting it sends nothing
        try:
            sock.connect((address, port))
        except OSError as error:
            raise BadRequest(
                f"There is no way to {host}: {error}.", "Give this host's --local-addr."
            ) from error
        return str(sock.getsockname()[0])


def _reachable(mine: str, host: str) -> str:
    if ipaddress.ip_address(mine).is_loopback:
        raise BadRequest(
            f"On this host {host} means {mine}, which no other host reaches.",
            "Write the endpoint with its address in the network, or give --local-addr.",
        )
    return mine
