"""Whether the members of a fleet fit into memory together: n × bytes against what is free, before anything starts.

Each server asks for itself whether its model fits, and several that load at once would each find the same memory free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.model_files import weights
from garcon_jupyter.servers import placement
from garcon_jupyter.servers.settings import DEGREES, Settings

MARGIN = 1.1
"""Memory that a member needs for each byte of its weights."""

PROCESSES = 300 << 20
"""Bytes of a server's processes beside its weights; the first imports, and the others share most of that."""

REQUESTS = 0.85
"""Share of what the members leave free that their requests may use, all together."""

_CGROUP = Path("/sys/fs/cgroup")


def check(members: Mapping[str, Settings], free: int | None = None) -> int:
    """Refuse members that do not fit together.

    Args:
        members: how those that do not run yet are to be launched, by label.
        free: bytes that there are; None to ask the host, or its GPUs.

    Returns:
        Bytes that are left for the requests of all of them.

    Raises:
        DoesNotFit: with the numbers.
    """
    if not members:
        return 0
    needed = {label: _needed(settings) for label, settings in members.items()}
    there = _free(next(iter(members.values()))) if free is None else free
    total = sum(needed.values())
    if total > there:
        label, largest = max(needed.items(), key=lambda item: item[1])
        raise DoesNotFit(
            f"{len(needed)} members need {sized(total)} together, up to {sized(largest)} each ({label}),"
            f" and {sized(there)} are free.",
            'Take fewer at a time, a narrower dtype="bfloat16", or end what holds the memory.',
        )
    return there - total


def check_in_turn(settings: Settings, free: int | None = None) -> None:
    """Refuse a fleet in turn where two models do not fit: while weights are exchanged, both are in memory.

    Args:
        settings: how its server is to be launched.
        free: bytes that there are; None to ask the host, or its GPUs.

    Raises:
        DoesNotFit: with the numbers.
    """
    needed = 2 * _needed(settings)
    there = _free(settings) if free is None else free
    if needed > there:
        raise DoesNotFit(
            f"To exchange weights, two models are in memory at once: {sized(needed)}, and {sized(there)} are free.",
            'Take a narrower dtype="bfloat16", or launch the members one by one.',
        )


def share(left: int, members: int) -> dict[str, int]:
    """The limits of each member, so that the requests of all fit beside each other: as options of a launch.

    Args:
        left: bytes beside all models.
        members: how many share them.
    """
    return {"memory": int(REQUESTS * left / members), "keep": left // (2 * members)}


def _needed(settings: Settings) -> int:
    """Bytes of one member, all its ranks together."""
    import torch

    files = weights.weight_files(Path(settings.path))
    tensors = [tensor for file in files for tensor in weights.stored_tensors(file)]
    dtype = getattr(torch, settings.dtype or "", None)
    width = dtype.itemsize if isinstance(dtype, torch.dtype) else None
    size: int = sum(math.prod(t.shape) * width if width else t.nbytes for t in tensors)
    ranks: int = math.prod(getattr(settings, word) or 1 for word in DEGREES)
    return math.ceil(MARGIN * size * (settings.dp or 1)) + PROCESSES * ranks


def _free(settings: Settings) -> int:
    """Bytes that can be used: of this host within its control group, or of the GPUs that all members share."""
    if placement.device_of(settings) == "cuda":
        return placement.gpu_memory(settings)
    import psutil

    found: int = psutil.virtual_memory().available
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        rows = (_CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # no such limit
        return found
    cached = sum(int(row.split()[1]) for row in rows if row.startswith("inactive_file "))
    return min(found, limit - used + cached)
