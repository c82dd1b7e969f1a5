"""A run: data streamed past probes, batch by batch, in the turns of the session that began it.

A run is one item in the queue of requests (:class:`~garcon_backend.lockstep.turns.Turns`), behind those of persons. When its
turn comes it reads one batch, which every rank runs as any other forward, and goes to the end of the queue: other
sessions have their turns in between, and so have requests of its own session, such as reading what it has recorded so
far. A batch that takes longer than a second is run in portions, each in a turn of its own
(:mod:`garcon_backend.runs.portions`).

It belongs to the server and not to a client. Between two turns it may be paused or cancelled, and between two batches
it writes checkpoints from which it goes on after a rank was lost.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from garcon_backend.lockstep.coordinator import Lockstep
from garcon_backend.lockstep.outcome import RequestFailed
from garcon_backend.runs.batches import Batches, Piece, Position
from garcon_backend.runs.portions import Portions
from garcon_backend.runs.sources import open_source
from garcon_backend.save_contexts import checkpoints
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.failures import describe, revive
from garcon_jupyter.wire.runs import RunStatus, StartRun

KEPT_PRINTS = 1000
"""Prints of probes that a run keeps for whoever looks at it."""

_NEXT_SEED = 1 << 32
"""How far seeds of portions of a batch are from one another: further than those of batches ever come."""

POSITION = "position"


@dataclass(frozen=True)
class Where:
    """What rank 0 puts down beside the ranks' files: from where to go on."""

    position: Position
    seconds: float
    directory: str
    each: float = 0.0
    """Seconds that a token takes, by which batches are cut into portions."""

    told: Any = None
    """What else rank 0 has to remember."""


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
        position = where.position if where else Position()
        self.batches = self._opened(tokenizer, sizes, position)
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

    def _opened(self, tokenizer: Any, sizes: dict[str, int], position: Position) -> Batches:
        """The data, from a position on."""
        return Batches(open_source(self.asked.data), self.asked.plan, tokenizer, sizes, position)

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
            if over and self._finished(lockstep):
                self.state = "done"
            self._seconds += time.monotonic() - began
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
        self._hear(lockstep.run(self.id, self._request(self._portions.next())))
        self._portions.ran(time.monotonic() - began)

    def _begin(self, lockstep: Lockstep) -> None:
        """Bring back what the checkpoint has, or forget what was recorded there before."""
        if self._restore or self.asked.fresh:
            lockstep.run(self.id, self._restoring(self._restore))
        self._ready = True

    # What is done with data; other kinds of runs do other things.

    def _request(self, batch: wire.Batch) -> wire.Request:
        """What a portion asks of all ranks."""
        return wire.Forward(
            self.session,
            batch=batch,
            probes=self.asked.probes,
            logits="none",
            seed=self._seed(batch),
            adapter=self.asked.adapter,
            splices=self.asked.splices,
        )

    def _seed(self, batch: wire.Batch) -> int:
        return self.asked.seed + batch.step + self._portions.done * _NEXT_SEED

    def _hear(self, answer: Any) -> None:
        """Take in what a portion came to."""

    def _finished(self, lockstep: Lockstep) -> bool:
        """The data is over: do what is left to do; whether that was all."""
        if self.asked.conclude:
            lockstep.run(self.id, wire.Conclude(self.session, contexts=self._contexts))
        return True

    def _restoring(self, directory: str | None) -> wire.Request:
        """What brings back what a checkpoint has, or the beginning."""
        return wire.Restore(self.session, contexts=self._contexts, directory=directory)

    def _keeping(self, directory: str) -> wire.Request:
        """What writes a checkpoint."""
        return wire.Checkpoint(self.session, contexts=self._contexts, directory=directory)

    def _told(self) -> Any:
        """What rank 0 itself has to remember."""

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
            lockstep.run(self.id, self._keeping(str(target)))
            each = self._portions.each
            where = Where(position, self._seconds, str(target), each, self._told())
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
            store=self._store,
        )

    @property
    def _store(self) -> str:
        """The directory of the store that the run writes, in which its checkpoints are."""
        where = self.asked.checkpoint if self.asked.conclude else None
        return "" if where is None else str(Path(where).parent)
