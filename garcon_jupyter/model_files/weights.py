"""What a snapshot's weight files say of themselves, without reading the weights.

A safetensors file begins with a table of its tensors: eight bytes, the length of the table in
little-endian order, then the table in JSON, ``{name: {dtype, shape, data_offsets}}``; the numbers
follow, and the offsets count from there. A large model is split into several such files and a
``model.safetensors.index.json`` that names them. So the size of a model, and whether a file was cut
short, is known from a few kilobytes.

Older checkpoints have a pickle instead, ``pytorch_model.bin``, or several with an index. It is read by torch's reader that makes
tensors and calls nothing (``weights_only``); one that holds more is refused.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from garcon_jupyter.errors import NotAModel

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLES = "pytorch_model.bin.index.json"

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
        return len(self.shape) == 4 and self.shape == (1, 1, self.shape[3], self.shape[3])


def weight_files(directory: Path) -> list[Path]:
    """The weight files of the snapshot in `directory`, safetensors where it has both; all of them exist.

    Raises:
        NotAModel: there are none, or the index is unreadable or names a file that is not there.
    """
    for single, several in ((SINGLE, INDEX), (PICKLE, PICKLES)):
        if (directory / single).is_file():
            return [directory / single]
        if (directory / several).is_file():
            return _named_by(directory / several)
    raise _without_weights(directory)


def _named_by(index: Path) -> list[Path]:
    """The files that an index names."""
    directory = index.parent
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


def check_whole(file: Path) -> None:
    """Refuse a weight file that is damaged, as far as that is seen without reading it.

    Raises:
        NotAModel: it is a Git LFS pointer, no weight file, or cut short.
    """
    if file.suffix == ".safetensors":
        stored_tensors(file)
        return
    with file.open("rb") as stream:
        head = stream.read(len(_LFS_POINTER))
    if head == _LFS_POINTER:
        raise _pointer(file)
    # torch writes a zip archive, whose table is at its end; before 1.6 it wrote pickles one after the other.
    if not zipfile.is_zipfile(file) and head[:1] != b"\x80":
        what = "is cut short" if head[:2] == b"PK" else "is no file that torch wrote"
        raise NotAModel(f"{file} {what}.", "Copy the snapshot again.")


def stored_tensors(file: Path) -> list[StoredTensor]:
    """The tensors of one weight file, from the table at the head of a safetensors file.

    Raises:
        NotAModel: it is a Git LFS pointer, no weight file, cut short, or a pickle that holds more than tensors.
    """
    if file.suffix != ".safetensors":
        return _pickled(file)
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        if (head + stream.read(len(_LFS_POINTER) - 8)).startswith(_LFS_POINTER):
            raise _pointer(file)
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


def _pickled(file: Path) -> list[StoredTensor]:
    """The tensors of a pickle, without their numbers where torch wrote an archive."""
    import torch

    check_whole(file)
    mapped = zipfile.is_zipfile(file)
    try:
        found = torch.load(file, map_location="meta", weights_only=True, mmap=mapped or None)
        return [
            StoredTensor(name, tuple(value.shape), value.numel() * value.element_size())
            for name, value in found.items()
        ]
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NotAModel(
            f"{file} is a pickle that holds more than tensors, or a damaged one, and is not read: {reason}",
            "If you trust it, load it with torch.load(…, weights_only=False), and save its tensors as safetensors.",
        ) from error


def _pointer(file: Path) -> NotAModel:
    return NotAModel(
        f"{file} is a Git LFS pointer, not the weights.",
        "Run `git lfs pull` in the repository that it was copied from.",
    )


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


def _without_weights(directory: Path) -> NotAModel:
    """The error for a directory with a configuration and no weights: names what it has."""
    others = _present(directory, "*.gguf", "*.h5", "*.msgpack", "*.safetensors", "*.pt*")
    found = f"; it has {', '.join(others[:3])}" if others else ""
    return NotAModel(
        f"{directory} has a configuration but no weights: neither {SINGLE} nor {INDEX}, nor {PICKLE}{found}.",
        "Give a directory as `save_pretrained` writes it.",
    )


def _present(directory: Path, *patterns: str) -> list[str]:
    return sorted(file.name for pattern in patterns for file in directory.glob(pattern))
