"""The tools: one of each operation, and those of the session itself.

A tool takes the request of its operation, and three words of its own: `estimate` (say what it costs, and do not run it), `background`
(begin it, and answer at once), and where there is one `control`. An answer never has more than a few thousand numbers.
"""

from __future__ import annotations

import difflib
import json
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from garcon_jupyter.agents.agent_session import TELL, AgentSession
from garcon_jupyter.agents.allowances import NotPermitted
from garcon_jupyter.agents.bounding import Bounding, by_bytes
from garcon_jupyter.agents.controls import CONTROLS, control
from garcon_jupyter.agents.estimates import Estimate, estimate
from garcon_jupyter.agents.replay import LoggedLook
from garcon_jupyter.agents.session_tools import SESSION_TOOLS, SessionTool, ToolAnswer
from garcon_jupyter.connection import called_off, prints
from garcon_jupyter.errors import BadRequest, Interrupted, ServerGone, UnknownName
from garcon_jupyter.operations.failures import Failure, failure
from garcon_jupyter.operations.operation import Operation, Permission
from garcon_jupyter.operations.table import OPERATIONS

LOG = logging.getLogger("garcon.agents")

WORDS = {
    "estimate": {
        "type": "boolean",
        "default": False,
        "description": "only say what it would cost: passes, tokens, bytes",
    },
    "background": {
        "type": "boolean",
        "default": False,
        "description": "begin it and answer at once with a task; the tool `task` has the rest",
    },
    "control": {
        "type": "boolean",
        "default": True,
        "description": "also say what chance would have found, at a cost that `estimate` tells",
    },
}
"""What tools take beside the requests of their operations."""


@dataclass(frozen=True)
class ToolCall:
    """A request, read.

    Attributes:
        asked: the request of the operation, or of the session's tool.
        words: of :data:`WORDS`.
    """

    tool: Operation[Any, Any] | SessionTool
    asked: Any
    words: Mapping[str, bool] = field(default_factory=dict)


def names() -> list[str]:
    """The names of all tools."""
    return [*OPERATIONS, *SESSION_TOOLS]


def words_of(name: str) -> dict[str, Any]:
    """Which of :data:`WORDS` a tool takes."""
    if name in SESSION_TOOLS or OPERATIONS[name].quick:
        return {}
    left_out = set() if name in CONTROLS else {"control"}
    return {word: schema for word, schema in WORDS.items() if word not in left_out}


def description(name: str) -> str:
    """What a tool does, what it costs, and what it takes."""
    if name in SESSION_TOOLS:
        return SESSION_TOOLS[name].what
    operation = OPERATIONS[name]
    permission = f"Permission: {operation.permission}"
    if "edits" in operation.request.model_fields:
        permission += '; with edits or splice: "edit"'
    parts = [operation.what, operation.more, f"Cost: {operation.cost}.", f"{permission}."]
    if name in CONTROLS:
        parts.append("Comes with a control, the seed, and the number of looks so far.")
    return "\n\n".join(part for part in parts if part)


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of what a tool takes."""
    kind = SESSION_TOOLS[name].request if name in SESSION_TOOLS else OPERATIONS[name].request
    made = kind.model_json_schema()
    own = {key: value for key, value in made.get("properties", {}).items() if key != "form"}
    return {**made, "properties": {**own, **words_of(name)}}


def read(name: str, arguments: Mapping[str, Any]) -> ToolCall:
    """A request, held against its schema.

    Raises:
        UnknownName: there is no such tool.
        BadRequest: it is none; says what is wrong, and names that exist.
    """
    if name not in names():
        raise UnknownName.among("tool", name, names(), "tools/list has all.")
    tool: Any = SESSION_TOOLS.get(name) or OPERATIONS[name]
    given, words = dict(arguments), {}
    for word in words_of(name):
        words[word] = given.pop(word, WORDS[word]["default"])
        if not isinstance(words[word], bool):
            raise BadRequest(f"{word} is {words[word]!r}.", "It is true or false.")
    try:
        return ToolCall(tool, tool.request.model_validate_json(json.dumps(given)), words)
    except ValidationError as error:
        raise _none(name, tool.request, error) from None


def _none(name: str, kind: type[BaseModel], error: ValidationError) -> UnknownName | BadRequest:
    """The error for a request that is none."""
    _, told = failure(error)
    known = [*kind.model_fields, *words_of(name)]
    unknown = [str(each["loc"][0]) for each in error.errors() if each["type"] == "extra_forbidden"]
    nearest = [near for word in unknown for near in difflib.get_close_matches(word, known, 2, 0.5)]
    remedy = f"The tool's input schema has the form; {name} takes {', '.join(known) or 'nothing'}."
    return (
        UnknownName(told.problem, remedy, nearest) if nearest else BadRequest(told.problem, remedy)
    )


def submit(
    session: AgentSession, wanted: ToolCall, gone: threading.Event, tell: TELL
) -> Future[ToolAnswer]:
    """Put a request where it is answered in its turn.

    Args:
        gone: is set when nobody waits for it any more.
        tell: is told of progress: `progress`, `total` and `message`.
    """
    quick = isinstance(wanted.tool, SessionTool) or wanted.tool.quick
    if wanted.words.get("background") and not wanted.words.get("estimate"):
        task = session.tasks.begin(
            wanted.tool.name,
            lambda gone, tell: session.in_turn.submit(answer, session, wanted, gone, tell),
        )
        done: Future[ToolAnswer] = Future()
        done.set_result(ToolAnswer({**task.told(), "remedy": f'Ask task with name "{task.name}".'}))
        return done
    pool = session.quick if quick or wanted.words.get("estimate") else session.in_turn
    return pool.submit(answer, session, wanted, gone, tell)


def answer(
    session: AgentSession, wanted: ToolCall, gone: threading.Event, tell: TELL
) -> ToolAnswer:
    """Answer a request; what is wrong is an answer, too."""
    try:
        with called_off.by(gone), prints.shown_by(prints.silent):
            if isinstance(wanted.tool, SessionTool):
                return wanted.tool.work(session, wanted.asked)
            return _operated(session, wanted.tool, wanted, gone, tell)
    except KeyboardInterrupt:
        if not session.spending.left["seconds"]:
            return failed(
                NotPermitted(
                    f"The budget of {session.allowance.seconds:g} seconds ran out meanwhile; it was called off.",
                    "What is kept can still be read; the owner may raise --seconds.",
                )
            )
        return failed(Interrupted("The request was called off.", "Ask again."))
    except Exception as error:
        if isinstance(error, ServerGone):
            session.forget()
        told = failed(error)
        if told.structured["kind"] == "ServerError":
            LOG.exception("%s failed", wanted.tool.name)
        return told


def failed(error: BaseException) -> ToolAnswer:
    """An error as an answer: problem, remedy and nearest names."""
    told: Failure = failure(error)[1]
    return ToolAnswer(told.model_dump(), failed=True)


def permission_of(operation: Operation[Any, Any], asked: Any) -> Permission:
    """What a request takes: "edit" where it says what the model does when it is changed."""
    changed = getattr(asked, "edits", None) or getattr(asked, "splice", None)
    return "edit" if changed and operation.permission == "read" else operation.permission


def _operated(
    session: AgentSession,
    operation: Operation[Any, Any],
    wanted: ToolCall,
    gone: threading.Event,
    tell: TELL,
) -> ToolAnswer:
    asked, name = wanted.asked, operation.name
    session.allowance.need(permission_of(operation, asked), f"This use of {name}")
    steps = _Steps(tell)
    at = session.door(steps.told)
    with_control = bool(wanted.words.get("control"))
    cost = estimate(at, name, asked, with_control)
    if wanted.words.get("estimate"):
        left = session.spending.left
        fits = cost.tokens <= left["tokens"] and cost.bytes <= left["bytes"]
        return ToolAnswer({"estimate": cost.told(), "left": left, "fits": fits})
    session.spending.check(cost)
    own = estimate(at, name, asked, False)
    steps.begin(own, cost, name)
    begun, answered = time.monotonic(), False
    late = threading.Timer(session.spending.left["seconds"], gone.set)
    late.daemon = True
    if not operation.quick:
        late.start()
    seed, held = None, None
    try:
        found = operation.work(at, by_bytes(operation, asked))
        if with_control:
            steps.at(own.passes, "the control")
            seed = session.seed + session.spending.looks + 1
            held = control(at, name, asked, found, seed)
        answered = True
    finally:
        late.cancel()
        seconds = 0.0 if operation.quick else time.monotonic() - begun
        look = session.spending.count(cost, seconds, answered)
    steps.at(cost.passes, "done")
    told: dict[str, Any] = {"answer": Bounding(session.shelf, f"{name}, look {look}").small(found)}
    if held is not None:
        told["control"] = held
    if cost.passes:
        told["looks"] = _looks(look)
    if not operation.quick:
        told["cost"] = {**cost.told(), "seconds": round(seconds, 3)}
        told["left"] = session.spending.left
    if name not in ("describe", "points", "status", "jobs", "steer"):
        request = asked.model_dump(mode="json", exclude_defaults=True)
        session.log(LoggedLook(look, name, request, told, seed))
    return ToolAnswer(told)


def _looks(count: int) -> dict[str, Any]:
    """The number of looks so far, and what follows of it."""
    words = "the more looks, the more is found by chance: hold what is strong against its control, and on texts that you have not looked at"
    return {"so_far": count, "note": words}


class _Steps:
    """Progress in passes, which never goes back."""

    def __init__(self, tell: TELL) -> None:
        self._tell, self._now, self._total, self._each = tell, 0, 0, 1

    def begin(self, own: Estimate, cost: Estimate, name: str) -> None:
        self._total = cost.passes
        self._tell({"progress": 0, "total": cost.passes, "message": f"{name} begins"})

    def told(self, what: dict[str, Any]) -> None:
        """What an operation tells: the new tokens of a step."""
        new = what.get("tokens", [])
        self.at(self._now + max(1, len(new)), f"tokens {new}")

    def at(self, passes: int, message: str) -> None:
        if self._now < passes <= self._total:
            self._now = passes
            self._tell({"progress": passes, "total": self._total, "message": message})
