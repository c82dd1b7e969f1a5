"""Tools of the session itself: what is kept, what is left, what goes on, and the log."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from garcon_jupyter.agents import drawing
from garcon_jupyter.agents.agent_session import AgentSession
from garcon_jupyter.agents.allowances import PERMISSIONS
from garcon_jupyter.agents.kept_arrays import Cut
from garcon_jupyter.errors import Interrupted
from garcon_jupyter.operations.failures import failure
from garcon_jupyter.operations.plain_data import Plain


@dataclass(frozen=True)
class ToolAnswer:
    """What a tool answers.

    Attributes:
        structured: plain data.
        failed: whether it says what is wrong.
        text: for a reader of text, beside the data; "" for nothing.
        image: PNG.
    """

    structured: dict[str, Any]
    failed: bool = False
    text: str = ""
    image: bytes | None = None


@dataclass(frozen=True)
class SessionTool:
    """A tool that asks the model nothing.

    Attributes:
        request: what it takes.
    """

    name: str
    what: str
    request: type[Plain]
    work: Callable[[AgentSession, Any], ToolAnswer]


Places = Annotated[
    list[Cut],
    Field(
        default=[],
        description="for each axis in order: a place, [first, end), or null for all of it",
    ),
]


class ArrayRequest(Plain):
    """A kept array, and which part of it."""

    name: str = Field(description='as answers tell it by kept_as: "array 3"')
    places: Places


class StrongestRequest(ArrayRequest):
    """A kept array, and how many of its strongest numbers."""

    strongest: int = Field(
        default=0, ge=0, le=200, description="so many of the largest size in place of all numbers"
    )


class BudgetRequest(Plain):
    """Nothing needs to be said."""


class TaskRequest(Plain):
    """A task, and what about it."""

    name: str = Field(description='"task 1"')
    what: Literal["status", "result", "cancel"] = "status"
    seconds: float = Field(default=30, ge=0, le=600, description='that "result" waits at most')


class NotebookRequest(Plain):
    """Nothing needs to be said."""


def _read_array(session: AgentSession, asked: StrongestRequest) -> ToolAnswer:
    part = session.shelf[asked.name].cut(asked.places)
    if asked.strongest:
        return ToolAnswer(
            {"name": part.name, "of": part.of, "strongest": part.strongest(asked.strongest)}
        )
    return ToolAnswer(part.numbers())


def _draw_array(session: AgentSession, asked: ArrayRequest) -> ToolAnswer:
    part = session.shelf[asked.name].cut(asked.places)
    image = drawing.heat_map(part.values)
    told = {**part.told(), "of": part.of, "as_text": drawing.as_text(part.values)}
    return ToolAnswer(told, text=told["as_text"], image=image)


def _budget(session: AgentSession, asked: BudgetRequest) -> ToolAnswer:
    allowance, spent = session.allowance, session.spending
    return ToolAnswer(
        {
            "permissions": {word: PERMISSIONS[word] for word in sorted(allowance.permissions)},
            "budget": {
                "tokens": allowance.tokens,
                "seconds": allowance.seconds,
                "bytes": allowance.bytes,
            },
            "left": spent.left,
            "looks": spent.looks,
            "kept_bytes": session.shelf.bytes,
        }
    )


def _task(session: AgentSession, asked: TaskRequest) -> ToolAnswer:
    task = session.tasks[asked.name]
    if asked.what == "cancel":
        session.tasks.call_off(asked.name)
    if asked.what != "result":
        return ToolAnswer(task.told())
    try:
        found: ToolAnswer = task.future.result(asked.seconds)
    except NotYet:
        return ToolAnswer(task.told())
    except CancelledError:
        _, told = failure(Interrupted(f"{task.name} was called off.", "Begin it anew."))
        return ToolAnswer(told.model_dump(), failed=True)
    return found


def _notebook(session: AgentSession, asked: NotebookRequest) -> ToolAnswer:
    text = session.notebook()
    return ToolAnswer({"requests": len(session.looks), "format": "ipynb"}, text=text)


_TOOLS = (
    SessionTool(
        "read_array",
        "Read a part of an array that is kept, or its strongest numbers. Costs nothing: the model is not asked.",
        StrongestRequest,
        _read_array,
    ),
    SessionTool(
        "draw_array",
        "Draw a matrix of a kept array as a heat map: PNG, and as text. Blue is below 0, red above. Costs nothing.",
        ArrayRequest,
        _draw_array,
    ),
    SessionTool(
        "budget",
        "Say what is permitted, and what is left of tokens, seconds and bytes; and the number of looks so far. Costs nothing.",
        BudgetRequest,
        _budget,
    ),
    SessionTool(
        "task",
        "Say where a request that was begun in the background stands, wait for its result, or call it off. Costs nothing.",
        TaskRequest,
        _task,
    ),
    SessionTool(
        "notebook",
        "The log of this session as a notebook, whose cells give the same numbers. Costs nothing.",
        NotebookRequest,
        _notebook,
    ),
)

SESSION_TOOLS: dict[str, SessionTool] = {tool.name: tool for tool in _TOOLS}
"""Name → tool; none is the name of an operation."""
