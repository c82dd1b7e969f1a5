"""Where and how a model is to run: the device and the degrees of parallelism, where nobody said."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from garcon_jupyter.registry import Settings


@dataclass(frozen=True)
class Plan:
    """The device kind, and the degrees by name."""

    device: str
    degrees: dict[str, int]


def plan(settings: Settings) -> Plan:
    """Fill in what the settings leave open.

    On CPU a model runs in one process. On GPUs it is cut by tensor parallelism into the smallest number
    of parts that fit, with room for activations, among the degrees that divide it.
    """
    devices = _gpu_bytes() if settings.device in (None, "cuda") else ()
    device = settings.device or ("cuda" if devices else "cpu")
    degrees = {"tp": settings.tp or 1, "pp": settings.pp or 1, "dp": settings.dp or 1}
    if settings.tp is None and device == "cuda" and devices and not settings.loader:
        degrees["tp"] = _smallest_fitting(settings, devices, degrees["pp"])
    return Plan(device, degrees)


@functools.cache
def _gpu_bytes() -> tuple[int, ...]:
    """Memory of each GPU of this host; none where torch sees none."""
    import torch

    if not torch.cuda.is_available():
        return ()
    count = torch.cuda.device_count()
    return tuple(torch.cuda.get_device_properties(n).total_memory for n in range(count))


def _smallest_fitting(settings: Settings, devices: tuple[int, ...], pp: int) -> int:
    import json

    from garcon_jupyter.weights import total_bytes, weight_files

    directory = Path(settings.path)
    config = json.loads((directory / "config.json").read_text())
    needed = 1.25 * total_bytes(weight_files(directory)) / pp
    if settings.dtype == "float32" and config.get("dtype", config.get("torch_dtype")) != "float32":
        needed *= 2
    heads = config.get("num_attention_heads") or config.get("n_head") or 1
    width = config.get("intermediate_size") or config.get("n_inner") or 4 * config.get("n_embd", 1)
    fitting = [
        degree
        for degree in range(1, len(devices) // pp + 1)
        if heads % degree == 0 and width % degree == 0 and needed / degree <= min(devices)
    ]
    return fitting[0] if fitting else 1
