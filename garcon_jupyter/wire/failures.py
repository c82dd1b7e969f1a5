"""Errors across the wire.

An error of Garçon travels by class name and two sentences. An error of user code travels with its
original exception (if that pickles) and the *user's* frames only; the client, which has the source of
its own cells, shows the lines. What is raised there is both a :class:`ProbeError` and the original
type, so that ``except ZeroDivisionError`` works as if the code had run in the notebook.
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from types import TracebackType
from typing import Any

from garcon_jupyter.errors import ERRORS, GarconError, ProbeError, ServerError
from garcon_jupyter.wire import pickling

Frame = tuple[str, int, str]

LONGEST_TEXT = 20_000
"""Characters of an exception's text that travel."""

MOST_FRAMES = 20
"""Frames of an exception that travel."""

LARGEST_PICKLE = 100_000
"""Bytes of an exception's class and attributes that travel."""


def user_frames(trace: TracebackType | None) -> tuple[Frame, ...]:
    """Frames of shipped code in a traceback, outermost first; those of the server are left out.

    Frames of libraries below the user's code stay: they tell which operation failed. Of a deep
    recursion both ends do.
    """
    frames = [(f.filename, f.lineno or 0, f.name) for f in traceback.extract_tb(trace)]
    first = next((n for n, f in enumerate(frames) if not _is_ours(f[0])), len(frames))
    users = frames[first:]
    half = MOST_FRAMES // 2
    return tuple(users if len(users) <= MOST_FRAMES else [*users[:half], *users[-half:]])


def _is_ours(filename: str) -> bool:
    path = filename.replace("\\", "/")
    return "/garcon_backend/" in path or "/garcon_jupyter/" in path


def describe(error: BaseException, where: str = "") -> dict[str, Any]:
    """An error as plain data that fits into the content of a message."""
    if isinstance(error, GarconError) and not where:
        problem, remedy = error.problem, error.remedy
        return {"class": type(error).__name__, "problem": problem, "remedy": remedy}
    frames = user_frames(error.__traceback__)
    if not where:
        return {
            "class": "ServerError",
            "problem": f"{type(error).__name__}: {text_of(error)}",
            "trace": _trace_of(error),
        }
    return {
        "class": "ProbeError",
        "original": type(error).__name__,
        "text": text_of(error),
        "pickle": _pickled(error),
        "where": where,
        "frames": [list(frame) for frame in frames],
    }


def text_of(error: BaseException) -> str:
    """What an exception says, cut where it says too much; it may raise anything when asked."""
    try:
        text = str(error)
    except BaseException as broken:  # noqa: BLE001 - user code
        return f"(its __str__ raised {type(broken).__name__})"
    more = len(text) - LONGEST_TEXT
    return text if more <= 0 else f"{text[:LONGEST_TEXT]}… ({more:,} more characters)"


def _trace_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001 - an exception that cannot even be printed
        return "".join(traceback.format_tb(error.__traceback__))


def _pickled(error: BaseException) -> str | None:
    """The class of an exception with its attributes; without them, or the nearest class that Python
    knows itself, where that is all that can travel."""
    kind = type(error)
    known = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    ways: tuple[tuple[type, dict[str, Any]], ...] = ((kind, vars(error)), (kind, {}), (known, {}))
    for what in ways:
        try:
            payload = pickling.dumps(what)
            pickle.loads(payload)
        except Exception:  # noqa: BLE001 - it cannot travel
            continue
        if len(payload) < LARGEST_PICKLE:
            return payload.hex()
    return None


def revive(failure: dict[str, Any]) -> GarconError:
    """The error to raise in the notebook for what :func:`describe` said on the server."""
    if failure["class"] == "ProbeError":
        return _revive_user_error(failure)
    if failure["class"] == "ServerError":
        error = ServerError(
            f"The server failed in its own code: {failure['problem']}.",
            f"This is a bug of Garçon; its traceback:\n{failure.get('trace', '')}",
        )
        return error
    kind = ERRORS.get(failure["class"], GarconError)
    return kind(failure["problem"], failure["remedy"])


def _revive_user_error(failure: dict[str, Any]) -> ProbeError:
    original, attributes = ProbeError, {}
    if failure["pickle"]:
        with contextlib.suppress(Exception):  # a class that only the server has
            original, attributes = pickle.loads(bytes.fromhex(failure["pickle"]))
    error = _made(_mixed_class(original) if issubclass(original, Exception) else ProbeError)
    problem = f"{failure['original']}: {failure['text']}"
    Exception.__init__(error, problem)
    error.problem, error.remedy = problem, ""
    error.original, error.where = failure["original"], failure["where"]
    error.frames = tuple((file, line, name) for file, line, name in failure["frames"])
    vars(error).update({k: v for k, v in attributes.items() if k not in vars(error)})
    return error


def _made(kind: type[ProbeError]) -> ProbeError:
    """An instance that was not initialised: what an exception's own class asks for is unknown."""
    for make in (kind.__new__, Exception.__new__):
        with contextlib.suppress(TypeError):  # which of them is right depends on its bases
            return make(kind)
    return ProbeError.__new__(ProbeError)  # it asks for it even so, as groups of exceptions do


def _mixed_class(original: type[Exception]) -> type[ProbeError]:
    """A class that is both ProbeError and the original, so that either `except` catches it."""
    if issubclass(original, ProbeError):
        return original
    members = {
        "__str__": ProbeError.__str__,  # KeyError and its kin have their own
        "__module__": original.__module__,
        "__reduce__": lambda self: (ProbeError, (self.problem, self.remedy)),
    }
    try:
        return type(original.__name__, (ProbeError, original), members)
    except TypeError:  # an incompatible memory layout
        return ProbeError
