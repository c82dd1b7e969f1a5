"""Jobs: what takes long and needs no notebook.

Stores being written, trainings and other runs on servers; shuffles and features in directories. ``garcon.jobs()`` has those of all servers and
all directories, whoever began them; ``garcon.jobs()["acts-mixed"].pause()`` steers one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from garcon_jupyter.client.run import describe
from garcon_jupyter.connection.connection import Endpoint
from garcon_jupyter.errors import BadRequest, ServerGone, UnknownName
from garcon_jupyter.exchanges.announcing import DirectoryJob, directory_jobs
from garcon_jupyter.servers import control, registry
from garcon_jupyter.wire.runs import OVER, RunStatus

STEERING = ("pause", "resume", "cancel")
"""What can be done with a job."""


class Job(Protocol):
    """What takes long and needs no notebook.

    Attributes:
        name: by which it is named: its directory, or ``SERVER/RUN``.
        kind: "store", "training", "run", "shuffle" or "features".
        state: "running", "pausing", "paused", "failed", ….
        directory: that it writes; "" where it writes none.
        told: how far it is, on one line.
        fraction: of it that is done; None where that is not known.
    """

    kind: str

    @property
    def directory(self) -> str | Path:
        """That it writes."""
        ...

    @property
    def fraction(self) -> float | None:
        """How much of it is done."""
        ...

    @property
    def name(self) -> str:
        """By which it is named."""
        ...

    @property
    def state(self) -> str:
        """How it is."""
        ...

    @property
    def told(self) -> str:
        """How far it is."""
        ...

    def pause(self) -> None:
        """Let it stop where it can go on."""
        ...

    def resume(self) -> None:
        """Let it go on, without the notebook that began it."""
        ...

    def cancel(self) -> None:
        """End it."""
        ...


class ServerJob:
    """A run on a server, of whichever session.

    Attributes:
        kind: "store", "training" or "run".
        directory: that it writes; "" of other runs.
    """

    def __init__(self, server: Endpoint, session: str, status: RunStatus) -> None:
        self._server, self._session, self._status = server, session, status
        training = status.training
        self.kind = "training" if training else "store" if status.store else "run"
        self._directory = training.out if training else status.store

    @property
    def directory(self) -> str:
        """That it writes."""
        return self._directory

    @property
    def fraction(self) -> float | None:
        """How much of the data is done."""
        return self._status.fraction

    @property
    def name(self) -> str:
        """The server's, and what it calls the run."""
        return f"{self._server.name}/{self._status.id}"

    @property
    def state(self) -> str:
        """As the server says it."""
        return self._status.state

    @property
    def told(self) -> str:
        """How far it is."""
        where = f"{self.directory}  " if self.directory else ""
        return f"{where}{describe(self._status)}"

    def pause(self) -> None:
        """Let it stop after the batch that it is at."""
        self._steer("pause")

    def resume(self) -> None:
        """Let it go on after a pause, a cancellation or a failure."""
        self._steer("resume")

    def cancel(self) -> None:
        """End it after the batch that it is at; a store or a training goes on when the same is asked again."""
        self._steer("cancel")

    def poll(self) -> RunStatus:
        """How far it is now."""
        return self._steer("poll")

    def _steer(self, verb: str) -> RunStatus:
        self._status = control.steer(self._server, self._session, self._status.id, verb)
        return self._status

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}: {self.state}; {self.told}>"


class Jobs(Mapping[str, Job]):
    """Jobs, by their names; the end of a name does where it means one."""

    def __init__(self, found: list[Job]) -> None:
        self._found = {job.name: job for job in found}

    def __getitem__(self, name: str) -> Job:
        if name in self._found:
            return self._found[name]
        path = str(Path(name).expanduser().absolute())
        meant = [n for n in self._found if n == path or n.endswith(f"/{name}")]
        if len(meant) > 1:
            raise BadRequest(f"{name} may be {' or '.join(meant)}.", "Give the whole name.")
        if not meant:
            raise UnknownName.among("job", name, self._found, "garcon jobs lists them.")
        return self._found[meant[0]]

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._found)

    def __repr__(self) -> str:
        if not self._found:
            return "No job is under way."
        rows = [(job.kind, job.name, job.state, job.told) for job in self._found.values()]
        widths = [max(len(row[n]) for row in rows) for n in range(3)]
        return "\n".join(
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]
            )
            for row in rows
        )


def jobs() -> Jobs:
    """The jobs that are under way, paused or failed, whoever began them: on all servers of this registry, and in directories.

    Each can be paused, resumed and cancelled, also after the notebook that began it is gone. What a server does goes on by
    itself; a shuffle, or features, stops with the process that makes it, and ``resume()`` goes on in one that needs nobody.

    Returns:
        A mapping by names, which shows itself as a table.

    Examples:
        >>> under_way = garcon.jobs()
        >>> "acts-mixed" in under_way
        False
        >>> under_way["acts-mixed"].pause()  # doctest: +SKIP
    """
    found: list[Job] = []
    for server in registry.servers():
        try:
            runs = control.runs(server)
        except ServerGone:
            continue
        found += [
            ServerJob(server, session, status)
            for session, status in runs
            if status.state not in OVER or status.state == "failed"
        ]
    mine: list[DirectoryJob] = directory_jobs()
    return Jobs([*found, *mine])


def steered(what: str, name: str | None) -> str:
    """Pause, resume or cancel a job, in words.

    Args:
        what: "pause", "resume" or "cancel".
        name: of the job.

    Returns:
        What was done.

    Raises:
        BadRequest: no job is named.
        UnknownName: there is no such job, or no such word.
    """
    if what not in STEERING:
        raise UnknownName.among("word", what, STEERING, f"There are {', '.join(STEERING)}.")
    if name is None:
        raise BadRequest(f"Which job to {what} is not said.", f"garcon jobs {what} JOB.")
    job = jobs()[name]
    getattr(job, what)()
    done = {"pause": "stops where it can go on", "resume": "goes on", "cancel": "is ended"}[what]
    return f"The {job.kind} {job.name} {done}."
