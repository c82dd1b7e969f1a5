"""What goes on while the agent does something else: begun, asked after, called off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from garcon_jupyter.errors import UnknownName

KEPT = 100
"""Tasks that are remembered."""


@dataclass
class AgentTask:
    """A request that nobody waits for.

    Attributes:
        gone: is set to call it off.
        progress: what it told last.
    """

    name: str
    tool: str
    gone: threading.Event
    future: Future[Any]
    begun: float = field(default_factory=time.monotonic)
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Where it stands: "waiting", "running", "done" or "called off"."""
        if self.future.cancelled() or (self.gone.is_set() and self.future.done()):
            return "called off"
        return "done" if self.future.done() else "running" if self.future.running() else "waiting"

    def told(self) -> dict[str, Any]:
        """Where it stands."""
        seconds = round(time.monotonic() - self.begun, 3)
        where = {"task": self.name, "tool": self.tool, "state": self.state, "seconds": seconds}
        return {**where, "progress": self.progress} if self.progress else where


class TaskList:
    """The tasks of a session."""

    def __init__(self) -> None:
        self._tasks: dict[str, AgentTask] = {}
        self._made = 0

    def begin(
        self,
        tool: str,
        begin: Callable[[threading.Event, Callable[[dict[str, Any]], None]], Future[Any]],
    ) -> AgentTask:
        """Begin one.

        Args:
            begin: is given what calls it off, and whom to tell of progress.
        """
        self._made += 1
        name, gone, progress = f"task {self._made}", threading.Event(), {}  # type: ignore[var-annotated]
        task = AgentTask(name, tool, gone, begin(gone, progress.update), progress=progress)
        self._tasks[name] = task
        for old in [*self._tasks][:-KEPT]:
            del self._tasks[old]
        return task

    def __getitem__(self, name: str) -> AgentTask:
        """A task by its name.

        Raises:
            UnknownName: there is none.
        """
        if name not in self._tasks:
            raise UnknownName.among("task", name, self._tasks, "It is told where one begins.")
        return self._tasks[name]

    def call_off(self, name: str) -> None:
        """Call one off, whether it waits or runs."""
        task = self[name]
        task.gone.set()
        task.future.cancel()

    def __iter__(self) -> Any:
        return iter([*self._tasks.values()])
