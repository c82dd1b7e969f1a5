"""Files that are read in pieces, on a disk or at an address."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from garcon_jupyter.activation_stores.addresses import StoreAddress
from garcon_jupyter.activation_stores.journal import damaged


def bytes_of(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def read_into(file: int, out: np.ndarray, at: int, path: Path) -> None:
    """Fill an array from a place of a file.

    Raises:
        BadData: there is not so much.
    """
    view = bytes_of(out)
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], at + done)
        if not count:
            raise damaged(path, f"it ends at {at + done:,} bytes")
        done += count


def write_from(file: int, array: np.ndarray, at: int) -> None:
    """Write an array to a place of a file."""
    view = bytes_of(np.ascontiguousarray(array))
    done = 0
    while done < len(view):
        done += os.pwrite(file, view[done:], at + done)


class DiskFile:
    """A file on a disk that is read in pieces.

    Raises:
        OSError: it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, -1
        self._file = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._file).st_size

    def part(self, start: int, stop: int) -> bytes:
        """Some bytes; fewer where it ends."""
        return os.pread(self._file, stop - start, start)

    def into(self, out: np.ndarray, at: int) -> None:
        """Fill an array from a place on.

        Raises:
            BadData: there is not so much.
        """
        read_into(self._file, out, at, self._path)

    def expect(self, at: int, count: int) -> None:
        """Tell the system that bytes will be read soon: it reads ahead meanwhile."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, at, count, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        if os.close is not None:  # Python itself may be at its end
            self.close()


class AddressFile:
    """The same at an address: each piece is a request.

    Raises:
        OSError: it is not there.
    """

    def __init__(self, address: StoreAddress) -> None:
        self._address = address
        self.size = address.size()

    def part(self, start: int, stop: int) -> bytes:
        """As :meth:`DiskFile.part`."""
        return self._address.part(start, min(stop, self.size))

    def into(self, out: np.ndarray, at: int) -> None:
        """As :meth:`DiskFile.into`."""
        if not out.nbytes:
            return
        found = self._address.part(at, at + out.nbytes)
        if len(found) != out.nbytes:
            raise damaged(self._address, f"it ends at {at + len(found):,} bytes")
        bytes_of(out)[:] = found

    def expect(self, at: int, count: int) -> None:
        """Nothing: a request takes what is asked for."""

    def close(self) -> None:
        """There is nothing to let go of."""


def opened(path: Path | StoreAddress) -> DiskFile | AddressFile:
    """A file that is read in pieces.

    Raises:
        OSError: it is not there.
    """
    return AddressFile(path) if isinstance(path, StoreAddress) else DiskFile(path)
