"""What a server is launched with: one JSON file that the client writes and every rank reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garcon_backend.engine.mesh import Degrees


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
        idle_timeout: seconds; 0 for never.
        loader: ``package.module:function`` of a model of the user's own, or None.
        settings: the settings as asked for, compared when somebody launches again.
    """

    name: str
    model: str
    directory: Path
    shared: Path
    registry: Path
    degrees: Degrees
    dtype: str | None
    device: str
    idle_timeout: float
    loader: str | None
    settings: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> LaunchSpec:
        """The spec of a file."""
        data = json.loads(file.read_text())
        for key in ("directory", "shared", "registry"):
            data[key] = Path(data[key])
        data["degrees"] = Degrees(**data["degrees"])
        return cls(**data)

    @property
    def link(self) -> str:
        """Address of the socket files between ranks."""
        return f"ipc://{self.directory}/ranks"

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

    def say_why(self, reason: str) -> None:
        """Leave the reason of the end."""
        self.reason_file.write_text(reason)

    @property
    def tombstone(self) -> Path:
        """Left when the server has ended: when and why."""
        return self.registry / f"{self.name}.tombstone.json"
