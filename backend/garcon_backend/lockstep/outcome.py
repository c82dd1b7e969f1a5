"""What became of a request on one rank: a part of the answer, or what went wrong.

Nothing that a request does on a rank escapes: every failure is an answer. What users' code raises is agreed upon, so
that all ranks end the pass together. A rank that fails *alone*, where memory ended in the middle of a layer for
instance, would leave the others waiting in a collective: so it leaves its groups, by which theirs end too.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from garcon_backend.execution.failing_module import HAPPENED
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import PassFailed
from garcon_backend.process import memory
from garcon_backend.process.interrupts import Cancelled
from garcon_backend.process.user_code import UserFailure
from garcon_backend.save_contexts.ledger import Key
from garcon_jupyter.errors import GarconError, Interrupted
from garcon_jupyter.wire.failures import describe, with_edits_of
from garcon_jupyter.wire.requests import Request


@dataclass
class RankOutcome:
    """One rank's answer: a part of the value, or what went wrong."""

    value: Any = None
    failure: dict[str, Any] | None = None
    alone: bool = False
    """Whether it failed in the middle of a pass, where others may wait for it."""
    follows: bool = False
    """Whether it failed only because another did."""
    news: Mapping[Key, bool] = field(default_factory=dict)
    """The contexts that were touched, and whether something is in them on that rank."""


class RequestFailed(Exception):
    """A request failed; `failure` is what the client is told."""

    def __init__(self, failure: dict[str, Any]) -> None:
        super().__init__(failure.get("problem") or failure.get("text"))
        self.failure = failure


def failure_of(error: BaseException) -> dict[str, Any]:
    """What the client is told of an error."""
    if isinstance(error, UserFailure):
        return describe(error.error, error.where)
    if isinstance(error, (Cancelled, KeyboardInterrupt)):
        return describe(Interrupted("The request was interrupted.", "Nothing else was lost."))
    happened = getattr(error, HAPPENED, None)
    error = memory.typed(error)
    if not isinstance(
        error, (GarconError, PassFailed)
    ):  # the latter follows from another's failure
        with contextlib.suppress(OSError):  # a full disk
            traceback.print_exception(error)  # perhaps a fault of ours: into the log too
    return describe(error, happened=happened)


def attempt(
    prepare: Callable[[], Callable[[], Any]],
) -> tuple[Callable[[], Any] | None, RankOutcome]:
    """Prepare a request; what runs it, or why it cannot."""
    try:
        return prepare(), RankOutcome()
    except BaseException as error:  # noqa: BLE001 - every failure is an answer
        return None, RankOutcome(failure=failure_of(error))


def perform(rank: Rank, run: Callable[[], Any]) -> RankOutcome:
    """Run a prepared request; nothing escapes. A rank that failed alone has left its groups then."""
    try:
        outcome = _performed(rank, run)
    except Cancelled as error:  # it came again while the first was dealt with
        rank.interrupts.shut()
        return RankOutcome(failure=failure_of(error))
    outcome.news = rank.contexts.news()
    if outcome.alone and rank.mesh.may_rejoin:  # by now no traceback knows the groups
        rank.mesh.leave()
    return outcome


def _performed(rank: Rank, run: Callable[[], Any]) -> RankOutcome:
    rank.output.begin()
    try:
        with rank.interrupts.during("running"), rank.interrupts.the_pass():
            return RankOutcome(run())
    except BaseException as error:  # noqa: BLE001 - every failure is an answer
        rank.interrupts.shut()
        agreed = isinstance(
            error, (GarconError, UserFailure, PassFailed, Cancelled, KeyboardInterrupt)
        )
        follows = isinstance(error, PassFailed) or _cut_off(error)
        return RankOutcome(failure=failure_of(error), alone=not agreed, follows=follows)
    finally:
        rank.interrupts.shut()
        rank.output.end()


def _cut_off(error: BaseException) -> bool:
    """Whether an error says that a rank for which this one waited has gone."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _GONE)


_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""Gloo's words for it."""


def worst(outcomes: Sequence[RankOutcome]) -> dict[str, Any]:
    """The failure to report: the user's own before those that merely followed."""
    failures = [(o.follows, o.failure) for o in outcomes if o.failure]
    order = {"ProbeError": 0, "ServerError": 2}
    worst = min(failures, key=lambda told: (told[0], order.get(told[1]["class"], 1)))[1]
    return with_edits_of(worst, [failure for _, failure in failures])


def between_requests(step: Callable[[], Any]) -> RankOutcome:
    """The outcome of something between two requests."""
    try:
        return RankOutcome(step())
    except Exception as error:  # noqa: BLE001 - rank 0 is told
        return RankOutcome(failure=failure_of(error))


def title_of(number: int, request: Request | None) -> str:
    """What to call a request that is over, to somebody who looks for what it saved."""
    kind = type(request).__name__.lower() if request else "request"
    adapter = getattr(request, "adapter", None)
    kind = f"{kind} {number}" + (f" with adapter {adapter}" if adapter else "")
    return f"{kind}, which ended at {time.strftime('%H:%M:%S')}"
