"""Runs: data streamed past probes, batch by batch, in the turns of the session that began them.

A run is one item in the queue of requests (:class:`~garcon_backend.lockstep.turns.Turns`), behind those of persons. When its
turn comes it reads one batch, which every rank runs as any other forward, and goes to the end of the queue: other
sessions have their turns in between, and so have requests of its own session, such as reading what it has recorded so
far. A batch that takes longer than a second is run in portions, each in a turn of its own
(:mod:`garcon_backend.runs.portions`).

It belongs to the server and not to a client. Between two turns it may be paused or cancelled, and between two batches
it writes checkpoints from which it goes on after a rank was lost.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from garcon_backend.lockstep.coordinator import Lockstep
from garcon_backend.lockstep.outcome import RequestFailed
from garcon_backend.lockstep.turns import Queued
from garcon_backend.runs.batches import Batches, Piece, Position
from garcon_backend.runs.portions import Portions
from garcon_backend.runs.sources import open_source
from garcon_backend.save_contexts import checkpoints
from garcon_jupyter.errors import BadRequest, GarconError, UnknownName
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.failures import describe, revive
from garcon_jupyter.wire.runs import RunStatus, StartRun

KEPT_PRINTS = 1000
"""Prints of probes that a run keeps for whoever looks at it."""

_NEXT_SEED = 1 << 32
"""How far seeds of portions of a batch are from one another: further than those of batches ever come."""

POSITION = "position"
ASKED = "run"


@dataclass(frozen=True)
class Where:
    """What rank 0 puts down beside the ranks' files: from where to go on."""

    position: Position
    seconds: float
    directory: str
    each: float = 0.0
    """Seconds that a token takes, by which batches are cut into portions."""


class DataRun:
    """One run.

    Args:
        directory: of its checkpoints.
        tokenizer: of the model, or None.
        sizes: of the model, by letter.
        portions: of its batches.
        where: a checkpoint to go on from.

    Raises:
        BadData, BadRequest: it cannot begin.
    """

    def __init__(
        self,
        id: str,
        session: str,
        asked: StartRun,
        directory: Path,
        tokenizer: Any,
        sizes: dict[str, int],
        portions: Portions,
        where: Where | None = None,
    ) -> None:
        self.id, self.session, self.asked, self.directory = id, session, asked, directory
        source = open_source(asked.data)
        position = where.position if where else Position()
        self.batches = Batches(source, asked.plan, tokenizer, sizes, position)
        self._portions = portions
        self._at = self._end = position
        """Where the batch began that is being run, or the next one will; and where it ends."""
        self.state = "running"
        self.wanted = ""
        self.failure: dict[str, Any] | None = None
        self.lost = ""
        self.prints = 0
        self._printed: list[tuple[int, str, str]] = []
        self._seconds = where.seconds if where else 0.0
        self._checkpointed = where.position.batches if where else None
        self._last_checkpoint = time.monotonic()
        self._restore = where.directory if where else None
        self._ready = False
        self._torn = False
        self._where = where
        self._contexts = tuple(sorted({(p.point, p.name) for p in asked.probes}, key=repr))

    # -- one turn --------------------------------------------------------------------------------

    def step(self, lockstep: Lockstep) -> bool:
        """Run a portion of a batch, mostly all of it; whether there may be more."""
        began = time.monotonic()
        try:
            if not self._ready:
                self._begin(lockstep)
            if not self._portions.left and (found := self.batches.next()) is not None:
                self._end = self.batches.position
                self._portions.put(found[0])
            over = not self._portions.left
            if not over:
                self._torn = True
                self._run_portion(lockstep)
                self._torn = False
            self._seconds += time.monotonic() - began
            if over:
                self.state = "done"
            if not self._portions.left:
                self._at = self.batches.position
                self._write_checkpoint(lockstep)
        except RequestFailed as error:
            self._fail(error.failure)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the run ends and the server goes on
            self._fail(describe(error))
        return self.state == "running"

    def _run_portion(self, lockstep: Lockstep) -> None:
        began = time.monotonic()
        lockstep.run(self.id, self._forward(self._portions.next()))
        self._portions.ran(time.monotonic() - began)

    def _begin(self, lockstep: Lockstep) -> None:
        """Bring back what the checkpoint has, or forget what was recorded there before."""
        if self._restore or self.asked.fresh:
            restore = wire.Restore(self.session, contexts=self._contexts, directory=self._restore)
            lockstep.run(self.id, restore)
        self._ready = True

    def mend(self) -> None:
        """Make ready to go on after a failure. A batch that failed half-way has left its mark in some recorders
        and not in others: then the run goes back to its last checkpoint, or to its beginning.

        Raises:
            BadRequest: there is nothing to go back to.
        """
        self.failure = None
        if not self._torn:
            return
        if self._where is None and not self.asked.fresh:
            raise BadRequest(
                f"{self.id} failed in the midst of a batch, and has no checkpoint.",
                "Begin it anew, with fresh=True or with checkpoints.",
            )
        self._at = self._where.position if self._where else Position()
        self.batches.back(self._at)
        self._portions.drop()
        self._seconds = self._where.seconds if self._where else 0.0
        self._restore = self._where.directory if self._where else None
        self._ready = self._torn = False

    def _forward(self, batch: wire.Batch) -> wire.Forward:
        return wire.Forward(
            self.session,
            batch=batch,
            probes=self.asked.probes,
            logits="none",
            seed=self.asked.seed + batch.step + self._portions.done * _NEXT_SEED,
        )

    def _fail(self, failure: dict[str, Any]) -> None:
        self.batches.back(self._at)
        if failure["class"] == "Interrupted":
            self.state = "cancelled"
        else:
            self.state, self.failure = "failed", failure

    # -- checkpoints -----------------------------------------------------------------------------

    def _write_checkpoint(self, lockstep: Lockstep) -> None:
        position = self.batches.position
        due = time.monotonic() - self._last_checkpoint >= self.asked.every
        if self._checkpointed == position.batches or not (due or self.state == "done"):
            return
        if self.state == "done" and self.asked.checkpoint is None:
            return  # the server keeps what was recorded; nobody would find these files
        self._last_checkpoint = time.monotonic()
        target = self.directory / f"after-{position.batches}"
        try:
            request = wire.Checkpoint(self.session, contexts=self._contexts, directory=str(target))
            lockstep.run(self.id, request)
            where = Where(position, self._seconds, str(target), self._portions.each)
            checkpoints.put(self.directory / POSITION, where)
            self._where, self.lost = where, ""
        except RequestFailed as error:
            self._give_up_checkpoint(str(revive(error.failure)), target)
        except OSError as error:
            self._give_up_checkpoint(str(checkpoints.unwritten(target, error)), target)
        else:
            if self._checkpointed is not None:
                checkpoints.remove(self.directory / f"after-{self._checkpointed}")
            self._checkpointed = position.batches

    def _give_up_checkpoint(self, why: str, target: Path) -> None:
        """Go on without: what was recorded is in memory, and the checkpoint before is whole."""
        self.lost = why
        checkpoints.remove(target)

    # -- looked at -------------------------------------------------------------------------------

    def print(self, rank: int, stream: str, text: str) -> None:
        """Keep what a probe printed."""
        self._printed.append((rank, stream, text))
        del self._printed[:-KEPT_PRINTS]
        self.prints += 1

    def _done(self) -> Position:
        """How far the model is: in the batch that it is at, by its tokens. What was read ahead counts for nothing."""
        at, end, done = self._at, self._end, self._portions.done
        share = done / max(1, end.tokens - at.tokens)
        fraction = at.fraction + share * (end.fraction - at.fraction)
        return replace(at, tokens=at.tokens + done, fraction=fraction)

    def _fraction(self, position: Position) -> float:
        """Of the data, or of the tokens that were asked for, whichever ends first."""
        most = self.asked.plan.most_tokens
        return max(position.fraction, position.tokens / most if most else 0.0)

    def status(self, prints_from: int = 0) -> RunStatus:
        """How far it is, with the prints since a number."""
        position = self._done()
        new = max(0, self.prints - prints_from)
        return RunStatus(
            self.id,
            self.state,
            position.batches,
            position.document - len({p.document for p in position.waiting if isinstance(p, Piece)}),
            position.tokens,
            position.skipped,
            1.0 if self.state == "done" else self._fraction(position),
            self._seconds,
            self.failure,
            self._checkpointed,
            self.lost,
            tuple(self._printed[len(self._printed) - min(new, len(self._printed)) :]),
            self.prints,
            self.asked.plan.first_document,
        )


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
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (directory / POSITION).unlink(missing_ok=True)
            checkpoints.put(directory / ASKED, (session, asked))
            self._note(run)
        except OSError as error:
            raise checkpoints.unwritten(directory, error) from None
        return self._begin(run)

    def _made(
        self, id: str, session: str, asked: StartRun, directory: Path, where: Where | None = None
    ) -> DataRun:
        if where:  # whose directory may have been moved or copied since
            where = replace(where, directory=str(directory / Path(where.directory).name))
        each = where.each if where else 0.0
        portions = Portions(self._parameters, self._replicas, each)
        return DataRun(id, session, asked, directory, self._tokenizer, self._sizes, portions, where)

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
        self._runs[run.id] = run
        self._queue(run)
        return run

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

    def _resume(self, run: DataRun) -> None:
        if run.state == "running":
            run.wanted = ""
        elif run.state in ("paused", "failed", "cancelled"):
            run.mend()
            self._queue(run)
        else:
            raise BadRequest(f"{run.id} is {run.state}.", "Begin another with rmodel.run().")

    # -- run -------------------------------------------------------------------------------------

    def turn(self, run: DataRun) -> None:
        """Run one portion of a run and put it back into the queue, unless it is over."""
        with self.lock:
            if run.wanted:
                run.state, run.wanted = run.wanted, ""
                return
        goes_on = run.step(self.lockstep)
        with self.lock:
            if goes_on and run.wanted:
                run.state, run.wanted = run.wanted, ""
            elif goes_on:
                self._queue(run)
            if run.state in ("done", "cancelled"):
                checkpoints.remove(self._directory / run.id)

    def cancel_waiting(self, run: DataRun) -> None:
        """A run that was taken out of the queue by hand."""
        run.state, run.wanted = "cancelled", ""

    def count(self, session: str) -> int:
        """How many runs of a session there are that have not come to their end."""
        with self.lock:
            return sum(run.state not in ("done", "cancelled") for run in self._of(session).values())

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
