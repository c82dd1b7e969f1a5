"""One agent with one model: what it may do, what it has asked, what it was told, and what is kept for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.agents.allowances import Allowance, Spending
from garcon_jupyter.agents.kept_arrays import Shelf
from garcon_jupyter.agents.replay import LoggedLook, notebook
from garcon_jupyter.agents.tasks import TaskList
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.operations.operation import Door

if TYPE_CHECKING:
    from garcon_jupyter.atlas import Atlas
    from garcon_jupyter.model import RemoteModel

TELL = Callable[[dict[str, Any]], None]

QUICK_THREADS = 4


class AgentSession:
    """What lasts from one request of an agent to the next.

    Attributes:
        spending: what it has used.
        shelf: arrays that are kept for it.
        tasks: what goes on while it does something else.
        in_turn, quick: threads that ask the model one after the other, and those that answer what takes no pass.
        seed: of controls.
    """

    def __init__(
        self,
        connect: Callable[[], RemoteModel] | None,
        allowance: Allowance | None = None,
        limits: RequestLimits | None = None,
        atlases: Mapping[str, Atlas] | None = None,
        seed: int = 0,
        notebook: Path | None = None,
    ) -> None:
        """Nothing is asked of the model yet.

        Args:
            connect: makes a connection to it, when it is first needed; None for stored records alone.
            notebook: a file that has the log as a notebook after each request.
        """
        self.allowance = allowance or Allowance()
        self.spending, self.shelf = Spending(self.allowance), Shelf(self.allowance.bytes)
        self.tasks, self.seed = TaskList(), seed
        self.in_turn = ThreadPoolExecutor(1, thread_name_prefix="garcon agent's model")
        self.quick = ThreadPoolExecutor(QUICK_THREADS, thread_name_prefix="garcon agent")
        self._connect, self._limits, self._atlases = (
            connect,
            limits or RequestLimits(),
            dict(atlases or {}),
        )
        self._model: RemoteModel | None = None
        self._lock = threading.Lock()
        self._log: list[LoggedLook] = []
        self._file = notebook

    def door(self, tell: TELL) -> Door:
        """What operations work with; the connection is made when it is first needed, and anew when it was lost."""
        with self._lock:
            if self._connect is not None and (self._model is None or self._model.closed):
                self._model = self._connect()
            return Door(self._model, self._limits, self._atlases, tell)

    def log(self, look: LoggedLook) -> None:
        """Remember what was asked and told."""
        with self._lock:
            self._log.append(look)
            if self._file is not None:
                beside = self._file.with_name(f".{self._file.name}.new")
                beside.write_text(self._written(), encoding="utf-8")
                beside.replace(self._file)

    @property
    def looks(self) -> list[LoggedLook]:
        """All that was asked and answered, in order."""
        with self._lock:
            return [*self._log]

    def notebook(self) -> str:
        """The log as a notebook, as JSON."""
        with self._lock:
            return self._written()

    def _written(self) -> str:
        facts = {"path": "", "name": ""} if self._model is None else self._model.facts
        return notebook(self._log, str(facts["path"]), str(facts["name"]))

    def forget(self) -> None:
        """Let go of the connection; the next request makes another."""
        with self._lock:
            model, self._model = self._model, None
        if model is not None:
            with contextlib.suppress(Exception):
                model.close()

    def close(self) -> None:
        """Call off what goes on, and hang up."""
        for task in self.tasks:
            task.gone.set()
        self.in_turn.shutdown(wait=False, cancel_futures=True)
        self.quick.shutdown(wait=False, cancel_futures=True)
        self.forget()
