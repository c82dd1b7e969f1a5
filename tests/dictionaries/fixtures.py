"""The dictionaries that `make_fixtures.py` had their own libraries write, unpacked once, with what these computed."""

from __future__ import annotations

import atexit
import functools
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ARCHIVE = Path(__file__).with_name("fixtures.tar.xz")


@dataclass(frozen=True)
class Expected:
    """What a library computed of its own file."""

    path: Path
    x: Tensor
    codes: Tensor
    reconstruction: Tensor


@functools.cache
def root() -> Path:
    """A folder with all of them."""
    folder = Path(tempfile.mkdtemp(prefix="garcon-dictionaries-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    return folder


@functools.cache
def _expected() -> dict[str, Tensor]:
    with np.load(root() / "expected.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def names() -> list[str]:
    """Paths of all that can be read, from the folder."""
    with tarfile.open(ARCHIVE) as tar, tempfile.TemporaryDirectory() as folder:
        tar.extract("expected.npz", folder, filter="data")
        with np.load(Path(folder) / "expected.npz", allow_pickle=False) as arrays:
            return sorted({key.split("|")[0] for key in arrays.files})


def expected(name: str) -> Expected:
    """One of them."""
    found = (_expected()[f"{name}|{what}"] for what in ("x", "codes", "reconstruction"))
    return Expected(root() / name, *found)


def copied(name: str, to: Path) -> Path:
    """A copy of its directory (or file), for a test that breaks it."""
    source = root() / name
    if source.is_file():
        shutil.copytree(source.parent, to / source.parent.name)
        return to / source.parent.name / source.name
    return Path(shutil.copytree(source, to / source.name))
