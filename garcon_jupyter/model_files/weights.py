"""What a snapshot's weight files say of themselves, without reading the weights.

A safetensors file begins with a table of its tensors: eight bytes, the length of the table in
little-endian order, then the table in JSON, ``{name: {dtype, shape, data_offsets}}``; the numbers
follow, and the offsets count from there. A large model is split into several such files and a
``model.safetensors.index.json`` that names them. So the size of a model, and whether a file was cut
short, is known from a few kilobytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from garcon_jupyter.errors import NotAModel

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_LONGEST_TABLE = 100_000_000  # bytes; the limit of the safetensors library
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a weight file: its name, shape and size in bytes."""

    name: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def is_mask(self) -> bool:
        """Whether it is a causal mask ``[1, 1, n, n]``, which some old checkpoints store."""
        return len(self.shape) == 4 and self.shape[:2] == (1, 1)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of the snapshot in `directory`; all of them exist.

    Raises:
        NotAModel: there are none, or the index is unreadable or names a file that is not there.
    """
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    index = directory / INDEX
    if not index.is_file():
        raise _without_safetensors(directory)
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise NotAModel(
            f"{index} is not an index of weight files ({error!r}).", "Copy the snapshot again."
        ) from error
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise NotAModel(
            f"{directory} lacks {len(missing)} of its {len(names)} weight files, "
            f"the first of them {missing[0]}.",
            "Copy the snapshot again, whole.",
        )
    return [directory / name for name in names]


def stored_tensors(file: Path) -> list[StoredTensor]:
    """The table at the head of one safetensors file.

    Raises:
        NotAModel: it is a Git LFS pointer, no safetensors file, or cut short.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if (head + stream.read(len(_LFS_POINTER) - 8)).startswith(_LFS_POINTER):
            raise NotAModel(
                f"{file} is a Git LFS pointer, not the weights.",
                "Run `git lfs pull` in the repository that it was copied from.",
            )
        length = int.from_bytes(head, "little")
        stream.seek(8)
        table = stream.read(length) if length <= _LONGEST_TABLE else b""
    try:
        entries = json.loads(table)
        entries.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        found = [_stored(name, entry) for name, entry in entries.items()]
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise NotAModel(f"{file} is not a safetensors file.", "Copy the snapshot again.") from error
    if size < end:
        raise NotAModel(
            f"{file} is cut short: it has {size:,} of its {end:,} bytes.",
            "Copy the snapshot again.",
        )
    return found


def _stored(name: str, entry: dict[str, list[int]]) -> StoredTensor:
    begin, end = entry["data_offsets"]
    return StoredTensor(name, tuple(entry["shape"]), end - begin)


def total_bytes(files: Iterable[Path]) -> int:
    """Bytes of all tensors in `files`, in the dtypes they are stored in."""
    return sum(tensor.nbytes for file in files for tensor in stored_tensors(file))


def total_parameters(files: Iterable[Path]) -> int:
    """Number of parameters in `files`. Tied ones are stored, and counted, once; masks are none."""
    return sum(
        math.prod(tensor.shape)
        for file in files
        for tensor in stored_tensors(file)
        if not tensor.is_mask
    )


def _without_safetensors(directory: Path) -> NotAModel:
    """The error for a directory with a configuration and no safetensors: names what it has."""
    pickles = _present(directory, "pytorch_model*.bin", "*.pth", "*.pt")
    if pickles:
        return NotAModel(
            f"{directory} has its weights only as a pickle ({pickles[0]}), which can run any code "
            f"when it is read.",
            'If you trust it, convert it once: `python -c "from transformers import '
            f"AutoModelForCausalLM as M; M.from_pretrained('{directory}').save_pretrained('NEW')\"`"
            ", copy the tokenizer files beside it, and give NEW.",
        )
    others = _present(directory, "*.gguf", "*.h5", "*.msgpack", "*.safetensors")
    found = f"; it has {', '.join(others[:3])}" if others else ""
    return NotAModel(
        f"{directory} has a configuration but no weights: neither {SINGLE} nor {INDEX}{found}.",
        "Give a directory as `save_pretrained` writes it.",
    )


def _present(directory: Path, *patterns: str) -> list[str]:
    return sorted(file.name for pattern in patterns for file in directory.glob(pattern))
