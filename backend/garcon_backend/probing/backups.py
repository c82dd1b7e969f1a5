"""What probes saved outlives a lost rank: each rank writes its save contexts to files, off the request path.

When a request is over its contexts are *due*: what they hold is held as it is, without a copy, and a thread
writes it as soon as requests leave it time. Meanwhile another request may have changed a held tensor in place:
its version tells, and the backup before stays until that request is over. Objects of other kinds tell
nothing, so they are copied when a request opens their context before they were written.

So a backup is what a context held when a *finished* request left it, and it says which. What does not fit
into the limit, or does not pickle, is named in its place (:class:`Lost`).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from garcon_backend.probing.containers import Rows, Table
from garcon_jupyter.errors import CannotTravel
from garcon_jupyter.wire import codec
from garcon_jupyter.wire.failures import text_of

Key = tuple[str, str, str | None]

LIMIT = int(os.environ.get("GARCON_BACKUP_BYTES", 1 << 30))
"""Bytes that the backups of one server may take, over all its ranks on a host."""

QUIET = 0.01
"""Seconds without a request after which backups are written."""

WORK = 0.05
"""Seconds that a request has been running when they are written beside it."""

LATEST = 2.0
"""Seconds after which they are written though short requests follow one another."""

SHARE = 0.05
"""Of the time, that writing may take: large contexts that change all the time are written less often."""


class Lost:
    """Stands for a saved value that could not be kept when a rank was lost; says why."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return f"<lost with its rank: {self.why}>"


@dataclass
class Held:
    """A context as a finished request left it."""

    request: str
    values: dict[str, Any]
    parts: dict[str, Any] = field(default_factory=dict)
    versions: list[tuple[Tensor, int]] = field(default_factory=list)
    opaque: bool = False

    @classmethod
    def now(cls, request: str, values: dict[str, Any], parts: dict[str, Any]) -> Held:
        """What a context holds now: its containers copied, their tensors as they are."""
        held = cls(request, {}, dict(parts))
        held.values = {name: held._frozen(value) for name, value in values.items()}
        return held

    def _frozen(self, value: Any, around: tuple[int, ...] = ()) -> Any:
        inside = (*around, id(value))
        if type(value) is Tensor and not value.is_inference():  # which count no versions
            self.versions.append((value, value._version))
        elif type(value) in (list, tuple, Rows) and id(value) not in around:
            kind = tuple if isinstance(value, tuple) else list
            return kind(self._frozen(item, inside) for item in value)
        elif type(value) in (dict, Table) and id(value) not in around:
            return {key: self._frozen(item, inside) for key, item in value.items()}
        elif not isinstance(value, _IMMUTABLE):
            self.opaque = True
        return value

    @property
    def intact(self) -> bool:
        """Whether no tensor was changed since."""
        return all(tensor._version == version for tensor, version in self.versions)

    def copy_opaque(self) -> None:
        """Before somebody changes objects that would not tell."""
        if self.opaque:
            self.opaque = False
            # Objects may raise anything when asked for a copy.
            with contextlib.suppress(Exception, SystemExit):
                self.values = copy.deepcopy(self.values)
                self.versions = []


_IMMUTABLE = (int, float, complex, str, bytes, bool, type(None))


class Backups:
    """The backups of one rank.

    Args:
        directory: of this rank; made where it is not there.
        limit: bytes that they may take.
    """

    def __init__(self, directory: Path, limit: int = LIMIT) -> None:
        self._directory, self._limit = directory, limit
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._touched: set[Key] = set()
        self._due: dict[Key, Held | None] = {}
        self._writing: tuple[Key, Held | None] | None = None
        self._sizes: dict[Key, int] = {}
        self._busy_since: float | None = None
        self._last = 0.0
        self._oldest = self._not_before = 0.0
        self._wake = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="backups").start()

    # -- told by the main thread -------------------------------------------------------------

    def opened(self, key: Key) -> bool:
        """A request is about to write into a context; whether it must be copied first."""
        with self._lock:
            self._touched.add(key)
            if held := self._due.get(key):
                held.copy_opaque()
            written = self._writing
            return bool(written and written[0] == key and written[1] and written[1].opaque)

    def cleared(self, key: Key) -> None:
        """A context is no more."""
        with self._lock:
            self._touched.add(key)

    def begin(self) -> None:
        """A request begins."""
        self._busy_since = time.monotonic()

    def end(self, request: str, hold: Callable[[Key], tuple[dict[str, Any], Any] | None]) -> None:
        """A request is over.

        Args:
            request: what to call it.
            hold: what a context holds, and what of it are parts; None where it is no more.
        """
        self._busy_since = None
        if not self._touched:
            return
        with self._lock:
            for key in self._touched:
                held = hold(key)
                self._due[key] = None if held is None else Held.now(request, *held)
            self._touched.clear()
        self._last = time.monotonic()
        self._oldest = self._oldest or self._last
        self._wake.set()

    # -- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait()
            now, since = time.monotonic(), self._busy_since
            calm = now - self._last > QUIET if since is None else now - since > WORK
            if not calm and now - self._oldest < LATEST:
                time.sleep(QUIET)
                continue
            if now < self._not_before:
                time.sleep(min(LATEST, self._not_before - now))
                continue
            self._wake.clear()
            self._oldest = 0.0
            self.flush()
            took = time.monotonic() - now
            self._not_before = now + took / SHARE if took > QUIET else 0.0

    def flush(self) -> None:
        """Write all that is due."""
        while True:
            with self._lock:
                if not self._due:
                    return
                key = next(iter(self._due))
                held = self._due.pop(key)
                self._writing = (key, held)
            try:
                self._write(key, held)
            except Exception as error:  # noqa: BLE001 - a full disk, or objects that raise when asked
                with contextlib.suppress(OSError):  # the request is long over, the log tells
                    print(f"[garcon] no backup of {key[1]}: {text_of(error)}", flush=True)
            finally:
                self._writing = None

    def _write(self, key: Key, held: Held | None) -> None:
        file = self._file(key)
        if held is None or not held.values:
            self._sizes.pop(key, None)
            file.unlink(missing_ok=True)
            return
        left = self._limit - sum(size for other, size in self._sizes.items() if other != key)
        pickles = {}
        for name, value in held.values.items():
            pickles[name] = _pickled(value, left)
            left -= _size(pickles[name])
        temporary = file.with_suffix(".writing")
        try:
            with temporary.open("wb") as stream:
                _dump(stream, key, held, pickles)
            if not held.intact:  # the request that changes it will be over, too
                temporary.unlink()
                return
            temporary.replace(file)
        except OSError:
            temporary.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
            raise
        self._sizes[key] = sum(map(_size, pickles.values()))

    def _file(self, key: Key) -> Path:
        return self._directory / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.context"

    # -- after a loss ------------------------------------------------------------------------

    def restored(self) -> Iterator[tuple[Key, Held]]:
        """What was kept, by context."""
        for file in sorted(self._directory.glob("*.context")):
            with (
                contextlib.suppress(OSError, EOFError, pickle.UnpicklingError),
                file.open("rb") as f,
            ):
                key, held, size = _load(f)
                self._sizes[key] = size
                yield key, held


Pickled = tuple[bytes, list[memoryview]] | str
"""A value's pickle and buffers; or why it has none."""


def _pickled(value: Any, left: int) -> Pickled:
    if isinstance(value, Lost):
        return value.why
    nbytes = getattr(value, "nbytes", 0)
    if isinstance(nbytes, int) and nbytes > left:
        return f"{nbytes:,} bytes, with {max(0, left):,} left for backups"
    try:
        payload, buffers = codec.dumps(value)
    except CannotTravel as error:
        return error.problem.rstrip(".")
    size = len(payload) + sum(buffer.nbytes for buffer in buffers)
    if size > left:
        return f"{size:,} bytes, with {max(0, left):,} left for backups"
    return payload, buffers


def _size(pickled: Pickled) -> int:
    if isinstance(pickled, str):
        return 0
    return len(pickled[0]) + sum(buffer.nbytes for buffer in pickled[1])


def _dump(stream: BinaryIO, key: Key, held: Held, pickles: dict[str, Pickled]) -> None:
    sizes = {
        name: p if isinstance(p, str) else [len(p[0]), *(b.nbytes for b in p[1])]
        for name, p in pickles.items()
    }
    pickle.dump((key, held.request, held.parts, sizes), stream, protocol=5)
    for pickled in pickles.values():
        if not isinstance(pickled, str):
            stream.write(pickled[0])
            for buffer in pickled[1]:
                stream.write(buffer)


def _load(stream: BinaryIO) -> tuple[Key, Held, int]:
    key, request, parts, sizes = pickle.load(stream)
    values: dict[str, Any] = {}
    total = 0
    for name, spans in sizes.items():
        if isinstance(spans, str):
            values[name] = Lost(spans)
            continue
        payload, *buffers = [bytearray(stream.read(size)) for size in spans]
        total += sum(spans)
        try:
            values[name] = codec.loads(payload, buffers)
        except Exception as error:  # noqa: BLE001 - objects may raise anything when they are made
            values[name] = Lost(f"it cannot be unpickled: {error}")
    return key, Held(request, values, parts), total
