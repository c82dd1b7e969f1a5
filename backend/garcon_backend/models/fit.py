"""Whether a model fits, and by which degrees it can be cut: asked before anything is loaded.

Memory is told from the headers of the weight files, which hold the shape and dtype of every tensor.
What a rank needs is its share of the weights and a tenth on top, for buffers and the values of a
small batch; large batches and long texts need more.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch

from garcon_backend.models.config import read_config, torch_dtype
from garcon_backend.models.stages import split_layers
from garcon_backend.process.memory import available_bytes
from garcon_jupyter.errors import DoesNotFit, GarconError, NotAModel
from garcon_jupyter.model_files import quantised, weights
from garcon_jupyter.model_files.degrees import check, possible_tp, sizes_of
from garcon_jupyter.wire.failures import describe
from garcon_jupyter.wire.launch_spec import Degrees

GIB = 1 << 30
MARGIN = 1.1
"""Memory needed for each byte of weights."""

_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2}
_LAYER = re.compile(r"\.(\d+)\.")
_BESIDE = re.compile(r"(^|\.)(vision|visual|audio|multi_modal|embed_vision|embed_audio)")
"""Parts of a multimodal model beside that of text: each rank has them whole."""


# -- degrees ---------------------------------------------------------------------------------


def check_degrees(config: Any, degrees: Degrees) -> None:
    """Refuse degrees that do not divide the model; see :func:`garcon_jupyter.model_files.degrees.check`."""
    check(config, degrees.tp, degrees.pp)


def choose_degrees(
    snapshot: Path | str,
    device_count: int,
    device_bytes: int,
    dtype: str | None = None,
    config: Any = None,
) -> Degrees:
    """The fewest devices that a model fits on, as much of it by tensor parallelism as divides.

    Args:
        snapshot: directory of the checkpoint.
        device_count: how many devices there are.
        device_bytes: memory of each that can be used.
        dtype: of the weights; None for the checkpoint's.
        config: the checkpoint's configuration, where it has been read already.

    Raises:
        DoesNotFit: not even on all of them.
    """
    config = config or read_config(Path(snapshot))
    layers = sizes_of(config).layers
    for world in range(1, max(1, device_count) + 1):
        for tp in reversed(possible_tp(config, world)):
            degrees = Degrees(tp, world // tp)
            if degrees.world != world or degrees.pp > layers:
                continue
            if needed_bytes(snapshot, dtype, degrees, layers) <= device_bytes:
                return degrees
    whole = needed_bytes(snapshot, dtype, Degrees(), layers)
    raise DoesNotFit(
        f"The model needs {whole / GIB:.1f} GiB; {device_count} × {device_bytes / GIB:.1f} GiB "
        "cannot hold it in any way that divides it.",
        "Use more or larger devices, or a narrower dtype.",
    )


# -- memory ----------------------------------------------------------------------------------


def needed_bytes(
    snapshot: Path | str, dtype: str | None, degrees: Degrees, layers: int | None = None
) -> int:
    """Memory that the largest share of a rank needs, in bytes.

    Args:
        snapshot: directory of the checkpoint.
        dtype: of the weights once loaded; None for the checkpoint's.
        degrees: over which the weights are shared out.
        layers: number of layers; found in the tensors' names where not given.

    Raises:
        NotAModel: the directory holds no weights, or a file of them is broken.
    """
    tensors = tensor_bytes(Path(snapshot), dtype)
    beside = sum(tensors.pop(name) for name in list(tensors) if _BESIDE.search(name))
    numbers = {name: int(m[1]) for name in tensors if (m := _LAYER.search(name))}
    layers = layers or max(numbers.values(), default=0) + 1
    outside = sum(size for name, size in tensors.items() if name not in numbers)
    shares = []
    for stage in range(degrees.pp):
        held = split_layers(layers, degrees.pp, stage)
        share = sum(tensors[name] for name, number in numbers.items() if number in held)
        if stage in (0, degrees.pp - 1):  # the embedding, the unembedding, or one for both
            share += outside
        shares.append(share)
    return math.ceil(MARGIN * (max(shares) / degrees.tp + beside))


def tensor_bytes(directory: Path, dtype: str | None = None) -> dict[str, int]:
    """Size in bytes of every tensor of a checkpoint, once loaded, by its name.

    Raises:
        NotAModel: there are no weights, or a file of them is broken.
    """
    width = None if dtype is None else torch_dtype(dtype).itemsize
    unpacked = _unpacked_width(directory, dtype)
    tensors: dict[str, int] = {}
    for file in sorted(directory.glob("*.safetensors")):
        for name, entry in _header(file).items():
            stored = entry["dtype"]
            if unpacked and (stored[:2] == "F8" or name.endswith("_blocks")):  # FP8, or two of FP4
                numbers = math.prod(entry["shape"]) * (1 if stored[:2] == "F8" else 2)
                tensors[name] = numbers * unpacked
                continue
            each = (
                width
                if width and stored[0] in "BF" and stored != "BOOL"
                else _WIDTHS.get(stored, 1)
            )
            tensors[name] = math.prod(entry["shape"]) * each
    if not tensors:
        for file in [f for f in directory.glob("*.bin") if f.name.startswith("pytorch_model")]:
            for tensor in weights.stored_tensors(file):
                tensors[tensor.name] = math.prod(tensor.shape) * width if width else tensor.nbytes
    if not tensors:
        raise NotAModel(f"{directory} holds no weights.", "Save *.safetensors beside config.json.")
    return tensors


def _unpacked_width(directory: Path, dtype: str | None) -> int:
    """Bytes of each number of weights that are unpacked while they are loaded; 0 where none are."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    if not quantised.is_unpacked(config):
        return 0
    return torch_dtype(
        dtype or config.get("dtype") or config.get("torch_dtype") or "float32"
    ).itemsize


def _header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: 8 bytes of length, then JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            if length > file.stat().st_size:
                raise ValueError("the file is shorter than its header")
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError as error:
            raise NotAModel(
                f"{file} is no safetensors file: {error}.", "Copy the checkpoint again."
            ) from error
    header.pop("__metadata__", None)
    return header


def check_fits(
    snapshot: Path | str,
    dtype: str | None,
    degrees: Degrees,
    device: torch.device | str,
    available: int | None = None,
) -> None:
    """Refuse a model that needs more memory than there is, before loading it.

    Args:
        snapshot: directory of the checkpoint.
        dtype: of the weights once loaded; None for the checkpoint's.
        degrees: over which the weights are shared out.
        device: of this rank; processes on one CPU share its memory.
        available: memory in bytes; None to ask the device.

    Raises:
        DoesNotFit: with both numbers.
    """
    there_is = available_bytes(device) if available is None else available
    needed = needed_bytes(snapshot, dtype, degrees)
    if torch.device(device).type == "cpu":
        needed *= int(os.environ.get("LOCAL_WORLD_SIZE", degrees.world))
    if needed > there_is:
        raise DoesNotFit(
            f"The model needs {needed / GIB:.1f} GiB on {device} with {degrees}, "
            f"but only {there_is / GIB:.1f} GiB are free.",
            "Use a narrower dtype, more devices, or end what holds the memory.",
        )


def main(
    snapshot: str,
    device_count: str,
    device_bytes: str,
    dtype: str | None = None,
    trusted: str = "",
) -> int:
    """Print the degrees for so many devices of so many bytes, or why there are none, as JSON."""
    try:
        config = read_config(Path(snapshot), bool(trusted))
        room = int(device_bytes)
        degrees = choose_degrees(snapshot, int(device_count), room, dtype or None, config)
    except GarconError as error:
        print(json.dumps(describe(error)))
        return 1
    print(json.dumps({"tp": degrees.tp, "pp": degrees.pp}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
