"""Directories that are addresses of fsspec, such as ``s3://bucket/acts``: their files are read in pieces, and written whole.

An object store has no locks, and no files that grow or are mapped. So a store is read at an address, and what is complete is put there; what
is in the making is in a directory. fsspec, and what it needs for an address (s3fs for ``s3://``), are imported when one is given.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from garcon_jupyter.errors import BadRequest, MissingModule, Unreachable

OBJECTS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss")
"""Protocols of object stores, which have no directories; what is made there in place of one is a bucket, and that is not ours to make."""


def is_address(where: object) -> bool:
    """Whether this names a place of fsspec's, and no directory: "s3://bucket/acts"."""
    return isinstance(where, StoreAddress) or (isinstance(where, str) and "://" in where)


def directory_of(where: str | Path | StoreAddress) -> Path | StoreAddress:
    """A directory, of a path or an address; ``file://`` is a path.

    Raises:
        MissingModule: what the address needs is not installed.
        BadRequest: there are no such addresses.
    """
    if isinstance(where, (Path, StoreAddress)) or not is_address(where):
        return where if isinstance(where, StoreAddress) else Path(where).expanduser()
    if urlsplit(where).scheme in ("file", "local"):
        return Path(unquote(where.partition("://")[2]))
    return StoreAddress(where)


def files_in(directory: Path | StoreAddress) -> dict[str, int]:
    """The files in a directory, with their bytes; none where it is not there."""
    if isinstance(directory, StoreAddress):
        return directory.sizes()
    if not directory.exists():
        return {}
    return {path.name: path.stat().st_size for path in directory.iterdir() if path.is_file()}


def need_directory(where: str | Path | StoreAddress, what: str, remedy: str) -> Path:
    """A directory, where it may be no address.

    Raises:
        BadRequest: it is one, of another kind than ``file://``.
    """
    if is_address(where) and not str(where).startswith(("file://", "local://")):
        raise BadRequest(
            f"{what} needs a directory, as it has files that grow or are mapped, and {where} is an address.",
            remedy,
        )
    found = directory_of(where)
    assert isinstance(found, Path)
    return found


WORK = (
    "Give work=, a directory that all of its processes see; what is complete is put to the address."
)
"""What to do where a result is to be at an address."""


def work_directory(to: Path | StoreAddress, work: str | Path | None, what: str) -> Path:
    """The directory in which a result is made: its own, or, where it is to be at an address, one that is named.

    Raises:
        BadRequest: none is named, and it is needed; or one is, and is not.
    """
    if isinstance(to, StoreAddress):
        found = need_directory(to.address if work is None else work, what, WORK)
    elif work is not None:
        raise BadRequest(f"{to} is a directory, so {what} works in it.", "Leave work= out.")
    else:
        found = to
    return found.expanduser().absolute()


class StoreAddress:
    """A directory, or a file in one, at an address; it does what of :class:`pathlib.Path` is asked of a store's.

    Args:
        address: "s3://bucket/acts".
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._process = os.getpid()
        self._system, self._path = _opened(self.address)

    @property
    def _files(self) -> Any:
        """The file system; another after a fork, which connections do not outlive."""
        if self._process != os.getpid():
            self._process, self._system = os.getpid(), _opened(self.address)[0]
        return self._system

    def __truediv__(self, name: str) -> StoreAddress:
        return StoreAddress(f"{self.address}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return posixpath.basename(self.address)

    @property
    def parent(self) -> StoreAddress:
        """What it is in."""
        return StoreAddress(posixpath.dirname(self.address))

    def absolute(self) -> StoreAddress:
        """Itself."""
        return self

    def exists(self) -> bool:
        """Whether there is such a file, or something in such a directory."""
        with _named(self.address):
            self._files.invalidate_cache()
            return bool(self._files.exists(self._path))

    def sizes(self) -> dict[str, int]:
        """The files in it, with their bytes."""
        with _named(self.address):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._path, detail=True)
            except FileNotFoundError:
                return {}
        files = [each for each in found if each["type"] == "file"]
        named = {posixpath.basename(each["name"].rstrip("/")): int(each["size"]) for each in files}
        return {name: size for name, size in named.items() if name}

    def read_bytes(self) -> bytes:
        """All of a file."""
        with _named(self.address):
            return bytes(self._files.cat_file(self._path))

    def part(self, start: int, stop: int) -> bytes:
        """Some bytes of a file."""
        with _named(self.address):
            return bytes(self._files.cat_file(self._path, start=start, end=stop))

    def size(self) -> int:
        """Bytes of a file."""
        with _named(self.address):
            self._files.invalidate_cache()
            return int(self._files.info(self._path)["size"])

    def put(self, file: Path) -> None:
        """Have the content of a file here.

        Raises:
            Unreachable: it cannot be written, or did not arrive whole.
        """
        with _named(self.address, there=False):
            if _protocol(self.address) not in OBJECTS:
                self._files.makedirs(posixpath.dirname(self._path), exist_ok=True)
            self._files.put_file(os.fspath(file), self._path)
        if (there := self.size()) != file.stat().st_size:
            raise Unreachable(
                f"{self.address} has {there:,} bytes of {file.stat().st_size:,}.",
                "Give the same call again: it goes on.",
            )

    def __str__(self) -> str:
        return self.address

    def __repr__(self) -> str:
        return f"StoreAddress({self.address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreAddress) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __reduce__(self) -> tuple[Any, ...]:
        return StoreAddress, (self.address,)


def _protocol(address: str) -> str:
    """By which the files are reached, of several the last: "s3"."""
    return address.partition("://")[0].rpartition("::")[2]


def _opened(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingModule(
            f"{address} needs fsspec, which is not installed.", "pip install garcon-jupyter[s3]."
        ) from None
    try:
        system, path = url_to_fs(address)
    except ImportError as error:
        raise MissingModule(
            f"{address} needs what is not installed: {error}.",
            "For s3:// that is pip install garcon-jupyter[s3]; for others see fsspec's list.",
        ) from None
    except ValueError as error:
        raise BadRequest(
            f"{address} is no address: {error}.",
            "Write it like s3://bucket/acts, or give a directory.",
        ) from None
    return system, str(path)


@contextlib.contextmanager
def _named(address: str, there: bool = True) -> Iterator[None]:
    """What a file system of whatever kind raises, as one error; that there is no such file stays what it is, where it should be `there`.

    Raises:
        Unreachable: it does not answer, or does not let us.
    """
    try:
        yield
    except Exception as error:
        if there and isinstance(error, FileNotFoundError):
            raise
        raise Unreachable(
            f"{address} cannot be reached: {type(error).__name__}: {error}.",
            "Do endpoint and credentials hold? fsspec reads them from the environment, such as AWS_ENDPOINT_URL.",
        ) from error
