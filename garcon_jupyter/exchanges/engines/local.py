"""Processes of this machine, each started by a command: no fork of a notebook, and nothing of a script is run twice.

A process that dies takes its task with it, and no other: the task goes to the next that is free, and a new process is started. So does
one of which nothing was heard for too long.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from garcon_jupyter.errors import LaunchFailed
from garcon_jupyter.exchanges.engines.protocol import in_vain
from garcon_jupyter.exchanges.engines.worker import get, put

PATIENCE = 900.0
"""Seconds that one task may take before its process counts as hung."""

_LOOK = 1.0


class _Worker:
    def __init__(self) -> None:
        start = "from garcon_jupyter.exchanges.engines.worker import main; main()"
        command = [sys.executable, "-c", start]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for who waits, who then ends them
        )
        self.item: int | None = None
        self.since = 0.0

    def give(self, number: int, task: Any) -> None:
        self.item, self.since = number, time.monotonic()
        assert self.process.stdin is not None
        put(self.process.stdin, task)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class HereEngine:
    """This process, for what is done before another has started."""

    workers = 1

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], retries: int
    ) -> Iterator[Any]:
        """What the function returns of each item."""
        return map(function, items)

    def close(self) -> None:
        """There is nothing to end."""


class LocalEngine:
    """Processes of this machine.

    Args:
        workers: how many.
        address: of no use here.
        patience: seconds after which a task counts as hung.
    """

    def __init__(
        self, workers: int, address: str | None = None, patience: float = PATIENCE
    ) -> None:
        self.workers, self._patience = max(1, workers), patience
        self._workers: list[_Worker] = []

    @property
    def pids(self) -> list[int]:
        """Of its processes."""
        return [worker.process.pid for worker in self._workers]

    def map(
        self, function: Callable[[Any], Any], items: Sequence[Any], retries: int
    ) -> Iterator[Any]:
        """What the function returns of each item, in any order."""
        waiting = deque((number, 0) for number in range(len(items)))
        tries: dict[int, int] = {}
        left = len(items)
        try:
            while left:
                self._give(function, items, waiting, tries)
                for worker in self._heard():
                    answer = self._answer(worker)
                    number, worker.item = worker.item, None
                    assert number is not None
                    if answer is not None and answer[0] == "done":
                        left -= 1
                        yield answer[1]
                        continue
                    self._again(waiting, number, tries[number], retries, answer)
        finally:
            if any(worker.item is not None for worker in self._workers):
                self.close()

    def _give(self, function: Any, items: Sequence[Any], waiting: Any, tries: Any) -> None:
        while len(self._workers) < min(self.workers, len(waiting) + self._busy()):
            self._workers.append(_Worker())
        for worker in list(self._workers):
            if worker.item is None and waiting:
                number, tried = waiting.popleft()
                tries[number] = tried
                try:
                    worker.give(number, (function, items[number]))
                except BrokenPipeError:
                    worker.item = None
                    self._drop(worker)
                    waiting.appendleft((number, tried))

    def _busy(self) -> int:
        return sum(worker.item is not None for worker in self._workers)

    def _heard(self) -> Iterator[_Worker]:
        """Workers that have an answer, or are no more, or were silent for too long."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                if worker.item is not None and worker.process.stdout is not None:
                    selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            if not selector.get_map():
                return
            found = [key.data for key, _ in selector.select(_LOOK)]
        yield from found
        now = time.monotonic()
        for worker in list(self._workers):
            late = worker.item is not None and now - worker.since > self._patience
            if late and worker not in found:
                worker.process.kill()
                yield worker

    def _answer(self, worker: _Worker) -> tuple[str, Any] | None:
        assert worker.process.stdout is not None
        try:
            answer: tuple[str, Any] = get(worker.process.stdout)
            return answer
        except (EOFError, OSError):
            self._drop(worker)
            return None

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.end()

    def _again(self, waiting: Any, number: int, tried: int, retries: int, answer: Any) -> None:
        error = answer[1] if answer else None
        if error is not None and (in_vain(error) or tried >= retries):
            raise error
        if tried >= retries:
            raise LaunchFailed(
                f"The process of task {number} died {tried + 1} times.",
                "Does it have the memory that it was promised? Give memory= less, and the same call again.",
            )
        waiting.append((number, tried + 1))

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()
