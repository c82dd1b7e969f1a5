"""Where and how a model is to run: the device and the degrees of parallelism, where nobody said."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.errors import LaunchFailed
from garcon_jupyter.servers.settings import Settings
from garcon_jupyter.wire.failures import revive

USABLE = 0.8
"""Share of a device's memory that weights may take; the rest is for activations."""


@dataclass(frozen=True)
class Placement:
    """The device kind, and the degrees by name."""

    device: str
    degrees: dict[str, int]


def plan(settings: Settings) -> Placement:
    """Fill in what the settings leave open.

    On CPU a model runs in one process. On GPUs it is given the fewest that it fits on, as much of it by
    tensor parallelism as divides it. Degrees that were asked for are taken as they are.

    Raises:
        DoesNotFit: not even on all devices.
    """
    devices = _gpu_bytes() if settings.device in (None, "cuda") else ()
    device = settings.device or ("cuda" if devices else "cpu")
    asked = {"tp": settings.tp, "pp": settings.pp, "dp": settings.dp}
    degrees = {word: degree or 1 for word, degree in asked.items()}
    if device == "cuda" and devices and not settings.loader and not any(asked.values()):
        room = int(USABLE * min(devices))
        degrees |= _chosen(
            settings.path,
            len(devices),
            room,
            settings.dtype or "",
            bool(settings.trust_remote_code),
        )
    return Placement(device, degrees)


def device_of(settings: Settings) -> str:
    """The kind of device that a model is put on."""
    return settings.device or ("cuda" if _gpu_bytes() else "cpu")


def gpu_memory(settings: Settings) -> int:
    """Bytes for weights on the GPUs that a model is put on; each server counts its GPUs from the first."""
    ranks = math.prod(plan(settings).degrees.values())
    return int(USABLE * sum(_gpu_bytes()[:ranks]))


@functools.cache
def _gpu_bytes() -> tuple[int, ...]:
    """Memory of each GPU of this host; none where torch sees none."""
    import torch

    if not torch.cuda.is_available():
        return ()
    count = torch.cuda.device_count()
    return tuple(torch.cuda.get_device_properties(n).total_memory for n in range(count))


@functools.cache
def _chosen(path: str, count: int, room: int, dtype: str, trusted: bool) -> dict[str, int]:
    """Degrees chosen by the server's own code, in a process of its own: the client does not have it."""
    command = [
        sys.executable,
        "-m",
        "garcon_backend.models.fit",
        path,
        str(count),
        str(room),
        dtype,
        *(["trusted"] if trusted else []),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise LaunchFailed(
            "The degrees could not be chosen.", f"Give --tp and --pp. It said:\n{told.stderr}"
        ) from None
    if told.returncode:
        raise revive(answer)
    return answer
