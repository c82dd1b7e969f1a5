"""What takes long and needs no notebook, told to any number of browsers at the price of one.

Stores being written, trainings, runs, shuffles, features: those that ``garcon jobs`` lists, whoever began them. All servers are asked together, at
most once in :data:`~garcon_jupyter.server_extension.watching.FRESH` seconds; while one of them takes long to answer, what was known before is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath
from typing import Any

from garcon_jupyter.client.jobs import STEERING, Job, jobs
from garcon_jupyter.errors import BadRequest, GarconError, UnknownName
from garcon_jupyter.server_extension.watching import FRESH, PATIENCE

Rows = list[dict[str, Any]]


class JobsWatcher:
    """Looks at the jobs.

    Args:
        threads: where the blocking questions are asked.
    """

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._asked: tuple[float, asyncio.Future[Rows]] | None = None
        self._known: Rows = []

    async def look(self) -> Rows:
        """All jobs, as the side bar shows them."""
        loop = asyncio.get_running_loop()
        if self._asked is None or (self._asked[1].done() and loop.time() - self._asked[0] > FRESH):
            self._asked = loop.time(), loop.run_in_executor(self._threads, rows)
        with contextlib.suppress(TimeoutError, GarconError, OSError):
            self._known = await asyncio.wait_for(asyncio.shield(self._asked[1]), PATIENCE)
        return self._known

    def forget(self) -> None:
        """Look anew: somebody has just changed something."""
        self._asked = None


def rows() -> Rows:
    """All jobs, each as :func:`row` has it."""
    return [row(job) for job in jobs().values()]


def row(job: Job) -> dict[str, Any]:
    """One job as the side bar shows it: what it is called and what for short, its kind and ``state``, how far it is in words and,
    where that is known, as a ``fraction``."""
    return {
        "name": job.name,
        "title": PurePath(job.directory or job.name).name,
        "kind": job.kind,
        "state": job.state,
        "told": job.told,
        "fraction": job.fraction,
    }


def steer(what: str, asked: Any) -> dict[str, Any]:
    """Pause, resume or cancel a job.

    Args:
        what: which of them.
        asked: ``{"job": NAME}``.

    Raises:
        BadRequest: no job is named, or it cannot be done to it.
        UnknownName: there is no such job.
    """
    if what not in STEERING:
        raise UnknownName.among("word", what, STEERING, f"There are {', '.join(STEERING)}.")
    name = asked.get("job") if isinstance(asked, dict) else None
    if not isinstance(name, str):
        raise BadRequest("No job was named.", 'Give {"job": NAME} of garcon/servers.')
    getattr(jobs()[name], what)()
    return {}
