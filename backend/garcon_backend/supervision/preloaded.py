"""The preloaded process of a server: it has imported what a rank imports, and ranks are forked from it.

Importing torch and transformers is most of a start. A server does it once, in its first process
(:mod:`garcon_backend.supervision.start`), of which the preloaded process is a fork that does nothing but wait. From it
come the ranks, at first and whenever they are started anew, and the first process of another server, where the same
user launches one in the same surroundings while this one lives; that has a preloaded process of its own.

- A child belongs to the supervisor, not to the preloaded process: it is an orphan at once, and the supervisor is the
  one that such orphans go to (a *subreaper*) while it asks for them. So the supervisor waits for its ranks as for
  any process of its own, and they do not notice when the preloaded process is killed.
- The preloaded process ends when the supervisor does, however that came about: the other end of its socket closes.
- It touches no device and has no thread but one; before every fork it looks, and refuses where that is not so.
- Where it is gone, or refuses, ranks are started by command, as where nothing can be forked.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from garcon_backend.libraries.quick_import import import_transformers, prepare_loading
from garcon_backend.supervision import birth
from garcon_jupyter.wire import forking
from garcon_jupyter.wire.forking import NotForked
from garcon_jupyter.wire.surroundings import COLD, at_start, surroundings

MODULES = (
    "garcon_backend.__main__",
    "garcon_backend.kernel.startup",
    "garcon_backend.lockstep.worker",
    "garcon_backend.execution.rank_loading",
    "garcon_backend.supervision.supervisor",
)
"""What is imported, with all that these import, before the first fork."""

_PR_SET_CHILD_SUBREAPER = 36


def possible() -> bool:
    """Whether ranks of this process may be forked from one that has imported their packages.

    Not where the environment says so (:data:`~garcon_jupyter.wire.surroundings.COLD`), where this process was
    started without what the C library reads at its start, nor on other systems than Linux.
    """
    given = dict(os.environ)
    return sys.platform == "linux" and not given.get(COLD) and at_start(given) == given


def preload() -> None:
    """Import what ranks import, and leave it out of garbage collections from now on."""
    given = os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = (
        "1"  # whether there are GPUs, without touching one
    )
    gc.disable()  # a collection now and then would take a seventh of the time, and find nothing
    try:
        import_transformers()
        for module in MODULES:
            importlib.import_module(module)
        gc.freeze()
    finally:
        gc.enable()
        del os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]
        if given is not None:
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = given


def unsafe() -> str:
    """Why this process must not be forked; "" where it may be.

    A fork has one thread, whatever its parent had: locks that others hold stay locked. And a device's driver does
    not survive it.
    """
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        return f"it has {threads} threads"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "torch has initialised CUDA"
    devices = ("/dev/nvidia", "/dev/kfd", "/dev/dri")
    for file in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if (opened := str(file.readlink())).startswith(devices):
                return f"it has {opened} open"
    return ""


class Preloaded:
    """The preloaded process, from the supervisor's side.

    Attributes:
        pid: of it.
    """

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid, self._control = pid, control

    @classmethod
    def fork(cls, environment: Mapping[str, str], door: Path | None = None) -> Preloaded:
        """Fork it from this process, which has imported everything and made no thread of its own.

        Args:
            environment: that this process was started with.
            door: the socket file at which it forks for other launches of this user, if any.
        """
        mine, its = socket.socketpair()
        listener = _listener(door) if door else None
        supervisor = os.getpid()
        pid = os.fork()
        if pid:
            its.close()
            if listener:
                listener.close()
            return cls(pid, mine)
        try:
            mine.close()
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            _Waiting(its, listener, supervisor, environment).serve()
        finally:
            os._exit(1)

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start a process like ``python -m module arguments``, with the streams of this one; its number.

        It is a child of this process.

        Raises:
            NotForked: it could not be, and why.
        """
        request = _request(module, arguments, environment)
        link, its = socket.socketpair()
        with link, _adopting():
            try:
                with its:
                    self._control.settimeout(forking.PATIENCE)
                    forking.send(self._control, request, [its.fileno(), 0, 1, 2])
            except OSError as error:
                raise NotForked(f"it is gone: {error}") from error
            return forking.born(link)


def _request(
    module: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> dict[str, Any]:
    where = {"environment": dict(environment), "directory": str(Path.cwd())}
    return {"module": module, "arguments": [str(word) for word in arguments], **where}


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """While this is entered, orphans below this process become its children.

    Raises:
        NotForked: the system does not know this.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise NotForked(f"orphans cannot be taken up: {os.strerror(ctypes.get_errno())}")
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _listener(door: Path) -> socket.socket | None:
    """A socket file that this user alone can reach; None where there can be none."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        former = os.umask(0o177)
        try:
            listener.bind(str(door))
        finally:
            os.umask(former)
        listener.listen(8)
    except OSError:
        listener.close()
        return None
    return listener


class _Waiting:
    """What the preloaded process does.

    Args:
        control: where the supervisor asks for ranks.
        listener: where launches knock; None for a server that forks for no other.
        supervisor: the number of its process.
        environment: that this process was started with.
    """

    def __init__(
        self,
        control: socket.socket,
        listener: socket.socket | None,
        supervisor: int,
        environment: Mapping[str, str],
    ) -> None:
        self._control, self._listener, self._supervisor = control, listener, supervisor
        self._sockets = [control, *([listener] if listener else [])]
        self._environment = environment
        self._files = dict(_module_files())

    def serve(self) -> NoReturn:
        """Fork whenever somebody asks, until the supervisor has gone."""
        prepare_loading()  # while the supervisor gets ready to ask
        while True:
            ready, _, _ = select.select(self._sockets, (), ())
            try:
                if self._control in ready:
                    self._for_supervisor()
                else:
                    self._for_launch()
            except Exception:  # noqa: BLE001 - whoever asked starts by command; others may still ask
                traceback.print_exc()

    def _for_supervisor(self) -> None:
        try:
            request, files = forking.receive(self._control)
        except (EOFError, OSError):
            os._exit(0)
        link = socket.socket(fileno=files[0])
        self._fork(link, request, files[1:], True)

    def _for_launch(self) -> None:
        assert self._listener is not None
        link, _ = self._listener.accept()
        link.settimeout(forking.PATIENCE / 5)  # ranks may be waiting
        if forking.peer(link) != os.getuid():
            link.close()
            return
        try:
            request, files = forking.receive(link)
        except (EOFError, OSError, ValueError):
            link.close()
            return
        if why := self._differs(request):
            self._refuse(link, files, why)
        else:
            self._fork(link, request, files, False)

    def _fork(
        self, link: socket.socket, request: dict[str, Any], files: list[int], for_supervisor: bool
    ) -> None:
        """Fork one; as a child of the supervisor, or of anybody but the supervisor."""

        def right(parent: int) -> bool:
            return (parent == self._supervisor) is for_supervisor

        if why := unsafe():
            self._refuse(link, files, why)
            return
        with link:
            birth.fork_for(link, request, files, right, self._sockets)
        for file in files:
            os.close(file)

    def _refuse(self, link: socket.socket, files: Sequence[int], why: str) -> None:
        with link, contextlib.suppress(OSError):
            forking.send(link, {"refused": why})
        for file in files:
            os.close(file)

    def _differs(self, request: dict[str, Any]) -> str:
        """In what this process is another than one that would start now for a launch; "" for nothing."""
        mine = json.loads(json.dumps(surroundings(self._environment)))
        its = request.get("surroundings", {})
        if different := [word for word in mine if its.get(word) != mine[word]]:
            return f"another {', another '.join(different)}"
        if shadowing := _shadowing(request["directory"]):
            return f"{shadowing} would be imported from another place there"
        changed = [file for file, stamp in self._files.items() if _stamp(file) != stamp]
        return f"{changed[0]} has changed" if changed else ""


def _module_files() -> Iterator[tuple[str, tuple[int, int] | None]]:
    for module in list(sys.modules.values()):
        if isinstance(file := getattr(module, "__file__", None), str):
            yield file, _stamp(file)


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - of thousands of files, in no time
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _shadowing(directory: str) -> str:
    """A module that is in memory, and that ``python -m`` would look for in another place, started in a directory."""
    mine = sys.path[0]
    if sys.flags.safe_path or os.path.realpath(directory) == os.path.realpath(mine):
        return ""
    names = {name.partition(".")[0] for name in sys.modules}
    for place in (directory, mine):
        if place in sys.path[1:]:
            continue
        for entry in Path(place).iterdir():
            if (name := entry.name.partition(".")[0]) in names:
                return name
    return ""
