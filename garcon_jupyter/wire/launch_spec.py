"""What a server is launched with: one JSON file that the client writes and every rank reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadDegrees


@dataclass(frozen=True)
class Degrees:
    """Degrees of tensor, pipeline and data parallelism."""

    tp: int = 1
    pp: int = 1
    dp: int = 1

    def __post_init__(self) -> None:
        if min(self.tp, self.pp, self.dp) < 1:
            raise BadDegrees(f"A degree is less than one: {self}.", "Degrees count from one.")

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.tp * self.pp * self.dp

    def __str__(self) -> str:
        return f"tp={self.tp}, pp={self.pp}, dp={self.dp}"


HOUR = 3600.0


@dataclass(frozen=True)
class Limits:
    """What a server may use, and for how long it stays.

    Attributes:
        idle_timeout: seconds without a request after which it ends; 0 for never.
        memory: bytes that requests may use on a host beside the model; None for most of what is free.
        keep: bytes of recordings that the ranks of a host keep; None for half of what is free.
        forget: seconds after which a session without a name, whose client is gone, is forgotten; 0 for never.
        threads: that each rank computes with on a CPU; None for its share of the host's cores.
    """

    idle_timeout: float = HOUR
    memory: int | None = None
    keep: int | None = None
    forget: float = HOUR
    threads: int | None = None


@dataclass(frozen=True)
class Hosts:
    """How this host meets the others, where a server runs over several.

    Attributes:
        nnodes: number of hosts.
        nproc_per_node: ranks on each.
        endpoint: ``HOST:PORT`` at which they meet.
        is_host: whether this host is the one of the endpoint.
        node_rank: place of this host's ranks among all; None for any.
        local_addr: address at which the other hosts, and clients, reach this one.
        secret_file: file (0600) with the secret that all hosts share.
    """

    nnodes: int
    nproc_per_node: int
    endpoint: str
    is_host: bool
    node_rank: int | None
    local_addr: str
    secret_file: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the endpoint."""
        host, _, port = self.endpoint.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def first(self) -> bool:
        """Whether rank 0, and with it the connection file, belongs to this host."""
        return self.is_host if self.node_rank is None else self.node_rank == 0


@dataclass(frozen=True)
class LaunchSpec:
    """Launch settings.

    Attributes:
        name: of the server.
        model: directory of the model, or what a loader is called with.
        directory: the server's own directory (0700): sockets and logs of its ranks.
        shared: its directory in shared memory (0700).
        registry: directory of connection files.
        degrees: of parallelism.
        dtype: to load in; None for the checkpoint's.
        device: "cpu" or "cuda".
        loader: ``package.module:function`` of a model of the user's own, or None.
        family: TOML file, or ``package.module:NAME``, of a family of the user's own, or None.
        settings: the settings as asked for, compared when somebody launches again.
        limits: of what it uses, and of how long it stays.
        hosts: where the server runs over several; None on one.
        slurm_job: of which the server is, if any.
        adapters: directories by the names by which requests name them.
        trust_remote_code: whether code that the checkpoint brings may run.
        unchecked: whether the model is served without being held against its own implementation.
    """

    name: str
    model: str
    directory: Path
    shared: Path
    registry: Path
    degrees: Degrees
    dtype: str | None
    device: str
    loader: str | None
    settings: dict[str, Any]
    limits: Limits = Limits()
    hosts: Hosts | None = None
    slurm_job: str | None = None
    family: str | None = None
    adapters: dict[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    unchecked: bool = False

    @classmethod
    def read(cls, file: Path) -> LaunchSpec:
        """The spec of a file."""
        data = json.loads(file.read_text())
        for key in ("directory", "shared", "registry"):
            data[key] = Path(data[key])
        data["degrees"] = Degrees(**data["degrees"])
        data["limits"] = Limits(**data["limits"])
        if hosts := data.get("hosts"):
            data["hosts"] = Hosts(**{**hosts, "secret_file": Path(hosts["secret_file"])})
        return cls(**data)

    @property
    def first(self) -> bool:
        """Whether this is the host of rank 0; only there are connection file and tombstone."""
        return self.hosts is None or self.hosts.first

    @property
    def connection_file(self) -> Path:
        """What clients connect by: written when the server is ready."""
        return self.registry / f"{self.name}.json"

    @property
    def failure_file(self) -> Path:
        """Why the launch failed, for the client that waits."""
        return self.directory / "failure.json"

    @property
    def reason_file(self) -> Path:
        """Why the server ended, for the tombstone."""
        return self.directory / "reason"

    @property
    def losses_file(self) -> Path:
        """Which ranks were lost, and when."""
        return self.directory / "losses.json"

    @property
    def ready_file(self) -> Path:
        """There from the moment at which the ranks of this host serve."""
        return self.directory / "ready"

    @property
    def group_file(self) -> Path:
        """Where the ranks of one host meet; each start appends its number."""
        return self.directory / "group"

    @property
    def pulse_file(self) -> Path:
        """Touched by rank 0 while it lives, so that the launcher notices when it hangs."""
        return self.directory / "pulse"

    @property
    def contexts(self) -> Path:
        """Directory of the saved contexts that outlive a lost rank."""
        return self.directory / "contexts"

    def say_why(self, reason: str) -> None:
        """Leave the reason of the end."""
        self.reason_file.write_text(reason)

    @property
    def tombstone(self) -> Path:
        """Left when the server has ended: when and why."""
        return self.registry / f"{self.name}.tombstone.json"
