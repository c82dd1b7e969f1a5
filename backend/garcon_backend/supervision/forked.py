"""Ranks that are forked, as torch's agent sees them: like those that it starts by command.

Torch starts a rank through a `SubprocessHandler`; here is one that asks the preloaded process for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

from garcon_backend.supervision.preloaded import Preloaded
from garcon_jupyter.wire.forking import NotForked

_TICK = 0.01


class ForkedProcess:
    """A child of this process that it did not start itself, with what torch uses of :class:`subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None

    returncode: int | None

    def poll(self) -> int | None:
        """Its exit code, or minus the number of the signal that ended it; None while it runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it runs on after so many seconds.
        """
        end = time.monotonic() + (timeout or 0)
        while self.poll() is None:
            if timeout is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(_TICK)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.Signals(number))


def fork_ranks(source: Preloaded | None) -> None:
    """From now on torch's agent in this process starts ranks by forking them, where that is possible."""

    class Forking(SubprocessHandler):
        def _popen(self, args: tuple[str, ...], env: dict[str, str]) -> Any:
            try:
                if source is None:
                    raise NotForked("the server was started cold")
                if args[:2] != (sys.executable, "-m"):
                    raise NotForked("another command is to start it")
                return ForkedProcess(source.start(args[2], args[3:], env))
            except NotForked as error:
                if source is not None:
                    print(f"[garcon] a rank starts by command: {error}", flush=True)
                return super()._popen(args, env)

    api.get_subprocess_handler = lambda **words: Forking(**words)
