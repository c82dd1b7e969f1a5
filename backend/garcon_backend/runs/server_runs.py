"""The runs of a server: begun, asked about, paused and resumed, and gone on with after a rank was lost."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from garcon_backend.lockstep.coordinator import Lockstep
from garcon_backend.lockstep.turns import Queued
from garcon_backend.runs.dictionary_run import DictionaryRun
from garcon_backend.runs.portions import Portions
from garcon_backend.runs.run import POSITION, DataRun, Where
from garcon_backend.save_contexts import checkpoints
from garcon_jupyter.errors import BadRequest, GarconError, UnknownName
from garcon_jupyter.wire.runs import StartRun

ASKED = "run"


class Runs:
    """The runs of a server. Asked on the control thread; their batches run on the main one.

    Args:
        lockstep: runs batches on all ranks.
        tokenizer: of the model, or None.
        sizes: of the model, by letter.
        directory: for checkpoints.
        put: puts an item into the queue of requests.

    Attributes:
        lock: held while runs are asked about or change.
    """

    def __init__(
        self,
        lockstep: Lockstep,
        tokenizer: Any,
        sizes: dict[str, int],
        directory: Path,
        put: Callable[[Queued], None],
    ) -> None:
        self.lockstep, self._tokenizer, self._sizes = lockstep, tokenizer, sizes
        self._directory, self._put = directory, put
        rank = lockstep.executor.rank
        self._parameters = sum(p.numel() for p in rank.model.parameters())
        self._replicas = rank.mesh.degrees.dp
        self._runs: dict[str, DataRun] = {}
        self._read_by: dict[str, Path | None] = {}
        self._numbers = itertools.count(1)
        self.lock = threading.RLock()

    # -- asked -----------------------------------------------------------------------------------

    def answer(self, content: dict[str, Any], question: Any) -> Any:
        """The answer to a question about runs.

        Raises:
            UnknownName: there is no such run in this session.
            GarconError: it cannot begin, or do what is asked now.
        """
        verb, session = content.get("verb"), str(content.get("session", ""))
        with self.lock:
            if verb == "start":
                return self._start(session, question).status()
            if verb == "resume_from":
                return self._resume_from(session, Path(question)).status()
            if verb == "list":
                return [run.status() for run in self._of(session).values()]
            run = self._find(session, str(content.get("run")))
            if verb in ("pause", "cancel", "resume"):
                getattr(self, f"_{verb}")(run)
            elif verb != "poll":
                raise BadRequest(f"Runs cannot {verb!r}.", "They start, pause, resume and cancel.")
            return run.status(int(content.get("prints", 0)))

    def _of(self, session: str) -> dict[str, DataRun]:
        return {id: run for id, run in self._runs.items() if run.session == session}

    def _find(self, session: str, id: str) -> DataRun:
        mine = self._of(session)
        if id not in mine:
            raise UnknownName.among("run", id, mine, "rmodel.runs() lists those of your session.")
        return mine[id]

    def _start(self, session: str, asked: StartRun) -> DataRun:
        id = self._fresh_id()
        directory = (
            Path(asked.checkpoint).expanduser() if asked.checkpoint else self._directory / id
        )
        run = self._made(id, session, asked, directory)
        self._put_down(run, anew=True)
        return self._begin(run)

    def _put_down(self, run: DataRun, anew: bool = False) -> None:
        """Write what a run was asked for into the directory of its checkpoints, and that it is there.

        Args:
            anew: forget a checkpoint of an earlier run there.

        Raises:
            BadData: the disk does not take it.
        """
        try:
            run.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if anew:
                (run.directory / POSITION).unlink(missing_ok=True)
            checkpoints.put(run.directory / ASKED, (run.session, run.asked))
            self._note(run)
        except OSError as error:
            raise checkpoints.unwritten(run.directory, error) from None

    def _made(
        self, id: str, session: str, asked: StartRun, directory: Path, where: Where | None = None
    ) -> DataRun:
        if where:  # whose directory may have been moved or copied since
            where = replace(where, directory=str(directory / Path(where.directory).name))
        each = where.each if where else 0.0
        portions = Portions(self._parameters, self._replicas, each)
        kind = DataRun if asked.training is None else DictionaryRun
        return kind(id, session, asked, directory, self._tokenizer, self._sizes, portions, where)

    def _note(self, run: DataRun) -> None:
        """Put down in the server's own directory, too, that a run is there, so that a lost rank does not end it."""
        own = self._directory / run.id
        if own != run.directory:
            own.mkdir(mode=0o700, parents=True, exist_ok=True)
            noted = replace(run.asked, checkpoint=str(run.directory))
            checkpoints.put(own / ASKED, (run.session, noted))

    def _fresh_id(self) -> str:
        return next(id for n in self._numbers if (id := f"run-{n}") not in self._runs)

    def _resume_from(self, session: str, directory: Path) -> DataRun:
        directory = directory.expanduser()
        _, asked = checkpoints.get(directory / ASKED)
        where = checkpoints.get(directory / POSITION)
        asked = replace(asked, checkpoint=str(directory))
        id = self._fresh_id()
        run = self._made(id, session, asked, directory, where)
        try:
            self._note(run)
        except OSError as error:
            raise checkpoints.unwritten(directory, error) from None
        return self._begin(run)

    def _begin(self, run: DataRun) -> DataRun:
        self._runs[run.id], self._read_by[run.id] = run, self._weights()
        self._queue(run)
        return run

    def _weights(self) -> Path | None:
        weights = self.lockstep.executor.rank.weights
        return None if weights is None else weights.directory

    def _check_weights(self, run: DataRun) -> None:
        """Refuse to go on with other weights than a run began with.

        Raises:
            BadRequest: they have been exchanged meanwhile.
        """
        began, now = self._read_by[run.id], self._weights()
        if began != now:
            raise BadRequest(
                f"{run.id} began with the weights in {began}, and those in {now} are loaded.",
                "Ask the member of the fleet that began it.",
            )

    def _queue(self, run: DataRun) -> None:
        run.state, run.wanted = "running", ""
        self._put(Queued(run.session, run.id, "run", run, behind=True))

    def _pause(self, run: DataRun) -> None:
        if run.state == "running":
            run.wanted = "paused"

    def _cancel(self, run: DataRun) -> None:
        if run.state == "running":
            run.wanted = "cancelled"
        elif run.state == "paused":
            run.state = "cancelled"
            self._forget_if_over(run)

    def _resume(self, run: DataRun) -> None:
        if run.state == "running":
            run.wanted = ""
        elif run.state in ("paused", "failed", "cancelled"):
            self._check_weights(run)
            run.mend()
            self._put_down(run)
            self._queue(run)
        else:
            raise BadRequest(f"{run.id} is {run.state}.", "Begin another with rmodel.run().")

    # -- run -------------------------------------------------------------------------------------

    def turn(self, run: DataRun) -> None:
        """Run one portion of a run and put it back into the queue, unless it is over."""
        with self.lock:
            if run.wanted:
                run.state, run.wanted = run.wanted, ""
                self._forget_if_over(run)
                return
        goes_on = run.step(self.lockstep)
        with self.lock:
            if goes_on and run.wanted:
                run.state, run.wanted = run.wanted, ""
            elif goes_on:
                self._queue(run)
            self._forget_if_over(run)

    def _forget_if_over(self, run: DataRun) -> None:
        """A run that is over must not come back when a rank is lost."""
        if run.state in ("done", "cancelled"):
            checkpoints.remove(self._directory / run.id)

    def cancel_waiting(self, run: DataRun) -> None:
        """A run that was taken out of the queue by hand."""
        run.state, run.wanted = "cancelled", ""
        self._forget_if_over(run)

    def count(self, session: str) -> int:
        """How many runs of a session there are that have not come to their end."""
        with self.lock:
            return sum(run.state not in ("done", "cancelled") for run in self._of(session).values())

    def going(self) -> list[DataRun]:
        """The runs that go on, of all sessions."""
        with self.lock:
            return [run for run in self._runs.values() if run.state == "running"]

    def active(self, session: str) -> bool:
        """Whether a run of a session goes on."""
        return any(run.state == "running" for run in self._of(session).values())

    def revive(self) -> None:
        """Go on with the runs that a lost rank cut short, each from its last checkpoint."""
        for file in sorted(self._directory.glob(f"*/{ASKED}")):
            with contextlib.suppress(GarconError):
                session, asked = checkpoints.get(file)
                own = file.parent
                directory = Path(asked.checkpoint) if asked.checkpoint else own
                where = None
                if (directory / POSITION).exists():
                    where = checkpoints.get(directory / POSITION)
                run = self._made(own.name, session, asked, directory, where)
                self._begin(run)
