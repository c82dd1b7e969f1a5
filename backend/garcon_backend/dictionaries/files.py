"""What is in the files of a dictionary, unread until it is asked for.

Three kinds hold tensors: safetensors, of which a slice is read from the disk; NumPy's ``.npz``, whose arrays may not be of
objects; and torch's ``.pt``, which is read with ``weights_only``, so that it makes tensors and calls nothing.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError, safe_open
from torch import Tensor

from garcon_jupyter.errors import NotADictionary

AGAIN = "Copy the dictionary again, whole."
SUFFIXES = (".safetensors", ".npz", ".pt")


@dataclass(frozen=True)
class StoredArray:
    """One tensor of a file, not yet read.

    Attributes:
        key: its name in the file.
        file: that holds it.
        shape: of it.
        dtype: of it, as torch names it.
        read: a slice of one axis, or all of it.
    """

    key: str
    file: Path
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    read: Callable[[int, slice], Tensor]


class Files:
    """A directory of a dictionary, or a single file of one.

    Attributes:
        path: as it was given.
        directory: that the files lie in.
        names: of the files, from the directory; of a single file, its own, and those of JSON and YAML beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.single = path.is_file()
        self.directory = path.parent if self.single else path
        here = sorted(entry.name for entry in self.directory.iterdir() if entry.is_file())
        beside = [name for name in here if name.endswith((".json", ".yaml"))]
        self.names = [path.name, *beside] if self.single else here
        if not self.single and (checkpoints := path / "checkpoints").is_dir():
            self.names += sorted(f"checkpoints/{entry.name}" for entry in checkpoints.iterdir())
        self._tensors: dict[str, dict[str, StoredArray]] = {}
        self._others: dict[str, dict[str, Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def matching(self, suffix: str) -> list[str]:
        """Names that end so."""
        return [name for name in self.names if name.endswith(suffix)]

    def json(self, name: str) -> dict[str, Any]:
        """An object of JSON.

        Raises:
            NotADictionary: it is not there, or none.
        """
        file = self.directory / name
        if name not in self:
            raise NotADictionary(
                f"{self.path} lacks {name}, which says what its tensors mean.", AGAIN
            )
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise NotADictionary(f"{file} is not JSON: {error}.", AGAIN) from error
        if not isinstance(content, dict):
            raise NotADictionary(f"{file} holds a {type(content).__name__}, not an object.", AGAIN)
        return content

    def lines(self, name: str) -> dict[str, str]:
        """The plain ``key: value`` lines of a YAML file, which is all that such configurations need."""
        if name not in self:
            return {}
        pairs = (
            line.partition(":") for line in (self.directory / name).read_text("utf-8").splitlines()
        )
        return {key.strip(): value.strip().strip("'\"") for key, _, value in pairs if value.strip()}

    def tensors(self, name: str) -> dict[str, StoredArray]:
        """The tensors of a file by name, from its header.

        Raises:
            NotADictionary: it cannot be read, or holds what is not a number.
        """
        if name not in self._tensors:
            file = self.directory / name
            try:
                self._tensors[name] = self._read(file, name)
            except (SafetensorError, RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise NotADictionary(f"{file} cannot be read: {reason}.", AGAIN) from error
        return self._tensors[name]

    def others(self, name: str) -> dict[str, Any]:
        """What a ``.pt`` file holds beside tensors, by name."""
        self.tensors(name)
        return self._others.get(name, {})

    def _read(self, file: Path, name: str) -> dict[str, StoredArray]:
        match file.suffix:
            case ".safetensors":
                return _safetensors(file)
            case ".npz":
                return _npz(file)
        tensors, self._others[name] = _pickled(file)
        return tensors


def _safetensors(file: Path) -> dict[str, StoredArray]:
    with safe_open(file, framework="pt") as opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
        found = {}
        for key, each in slices.items():
            shape, dtype = tuple(each.get_shape()), str(each.get_dtype())
            nbytes = int(np.prod(shape)) * _BYTES.get(dtype, 4)
            found[key] = StoredArray(
                key, file, shape, dtype.lower(), nbytes, _from_safetensors(file, key)
            )
        return found


_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "BOOL": 1, "U8": 1, "I8": 1}


def _from_safetensors(file: Path, key: str) -> Callable[[int, slice], Tensor]:
    def read(axis: int, part: slice) -> Tensor:
        with safe_open(file, framework="pt") as opened:
            if part == slice(None):
                return opened.get_tensor(key)  # type: ignore[no-any-return]
            return opened.get_slice(key)[_index(axis, part)]  # type: ignore[no-any-return]

    return read


def _npz(file: Path) -> dict[str, StoredArray]:
    found = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            key = member.removesuffix(".npy")
            with archive.open(member) as stream:
                version = npy.read_magic(stream)
                reader = (
                    npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                )
                shape, _, dtype = reader(stream)
            if dtype.hasobject:
                raise NotADictionary(
                    f"{key} in {file} is an array of objects, which would run code as it is read.",
                    "Store it as an array of numbers.",
                )
            nbytes = int(np.prod(shape)) * dtype.itemsize
            found[key] = StoredArray(
                key, file, tuple(shape), str(dtype), nbytes, _from_npz(file, key)
            )
    return found


def _from_npz(file: Path, key: str) -> Callable[[int, slice], Tensor]:
    def read(axis: int, part: slice) -> Tensor:
        with np.load(file, allow_pickle=False) as arrays:
            return torch.from_numpy(np.ascontiguousarray(arrays[key][_index(axis, part)]))

    return read


def _pickled(file: Path) -> tuple[dict[str, StoredArray], dict[str, Any]]:
    """Tensors of a ``.pt`` file, mapped into memory, and what it holds beside them."""
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise NotADictionary(
            f"{file} holds more than tensors: to read it would run code that it names.",
            "Save its state_dict with torch.save, and give that.",
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("sae"), dict):  # Llama Scope's
        loaded = loaded["sae"]
    if not isinstance(loaded, dict):
        raise NotADictionary(f"{file} holds a {type(loaded).__name__}, not tensors by name.", AGAIN)
    tensors = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    found = {
        key: StoredArray(
            key,
            file,
            tuple(value.shape),
            str(value.dtype).removeprefix("torch."),
            value.nbytes,
            _from_tensor(value),
        )
        for key, value in tensors.items()
    }
    return found, {key: value for key, value in loaded.items() if key not in tensors}


def _from_tensor(value: Tensor) -> Callable[[int, slice], Tensor]:
    def read(axis: int, part: slice) -> Tensor:
        return value.detach()[_index(axis, part)]

    return read


def _index(axis: int, part: slice) -> tuple[Any, ...]:
    """A part of an axis, as an index; of a number, which has no axis, the number."""
    return (...,) if part == slice(None) else (slice(None),) * axis + (part,)
