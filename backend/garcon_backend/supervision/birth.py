"""A forked process becomes what one that was started by command would be.

It has the packages of the preloaded process in memory, and nothing else of it: its session, environment, streams,
working directory, arguments, title, signals and random numbers are its own.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from garcon_backend.supervision.process_title import retitle
from garcon_jupyter.wire import forking


def fork_for(
    link: socket.socket,
    request: dict[str, Any],
    files: Sequence[int],
    may_belong_to: Callable[[int], bool],
    others: Sequence[socket.socket] = (),
) -> None:
    """Fork a process that is not this one's child.

    Its own parent ends at once, so that the kernel gives it to another: the nearest ancestor that takes up such
    processes (a *subreaper*), else the first process of all.

    Args:
        link: to whoever asked; the child speaks there (:mod:`garcon_jupyter.wire.forking`).
        request: with `module`, a name of :data:`RUN`, `arguments`, `environment` and `directory`.
        files: standard input, output and error.
        may_belong_to: whether the parent that it came to is right; else it ends.
        others: sockets of the preloaded process, which are none of the child's.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    try:
        between = os.getpid()
        if os.fork():
            os._exit(0)
        for other in others:
            other.close()
        while os.getppid() == between:
            time.sleep(0.0005)
        if may_belong_to(os.getppid()):
            _introduce(link)
            become(request, files)
            _run(request)
    except (EOFError, OSError):  # nobody wants it any more
        pass
    except BaseException:  # noqa: BLE001 - it must not go on as the preloaded process
        traceback.print_exc()
    finally:
        os._exit(1)


def _introduce(link: socket.socket) -> None:
    """Say who this is, and wait for the word that it may live.

    Raises:
        EOFError, OSError: whoever asked does not want it any more.
    """
    os.setsid()
    link.settimeout(forking.PATIENCE)
    forking.send(link, {"pid": os.getpid()})
    forking.receive(link)
    link.close()


def become(request: dict[str, Any], files: Sequence[int]) -> None:
    """Take on what the request says, and forget what the preloaded process was."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    if not sys.flags.safe_path:
        sys.path[0] = request["directory"]  # as after python -m
    importlib.invalidate_caches()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # Python's own are seeded anew after a fork, numpy's are not
    multiprocessing.current_process().authkey = os.urandom(32)
    gc.enable()  # what was imported stays frozen: memory that is shared with the preloaded process
    module, arguments = request["module"], request["arguments"]
    main = sys.modules["__main__"] = importlib.import_module(_MODULES[module])
    sys.argv[:] = [main.__file__ or module, *arguments]
    with contextlib.suppress(OSError, ValueError, IndexError):
        retitle([sys.executable, "-m", module, *arguments])


def _run(request: dict[str, Any]) -> NoReturn:
    """Run the main function to its end, as Python would run its module."""
    code = 1
    try:
        code = sys.modules["__main__"].main(*request["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(bool(error.code))
    except BaseException:  # noqa: BLE001 - the log has it, as of any process
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


RANK, SUPERVISOR = "garcon_backend", "garcon_backend.supervision.start"

_MODULES = {RANK: "garcon_backend.__main__", SUPERVISOR: SUPERVISOR}
"""What may be run, by the word after ``python -m``: each has a function `main`."""
