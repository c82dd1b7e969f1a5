"""Errors across the wire.

An error of Garçon travels by class name and two sentences. An error of user code travels with its
original exception (if that pickles) and the *user's* frames only; the client, which has the source of
its own cells, shows the lines. What is raised there is both a :class:`ProbeError` and the original
type, so that ``except ZeroDivisionError`` works as if the code had run in the notebook.
"""

from __future__ import annotations

import pickle
import traceback
from types import TracebackType
from typing import Any

import cloudpickle

from garcon_jupyter.errors import ERRORS, GarconError, ProbeError, ServerError

Frame = tuple[str, int, str]


def user_frames(trace: TracebackType | None) -> tuple[Frame, ...]:
    """Frames of shipped code in a traceback, outermost first; those of the server are left out.

    Frames of libraries below the user's code stay: they tell which operation failed.
    """
    frames = [(f.filename, f.lineno or 0, f.name) for f in traceback.extract_tb(trace)]
    first = next((n for n, f in enumerate(frames) if not _is_ours(f[0])), len(frames))
    return tuple(frames[first:])


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
        text = "".join(traceback.format_exception(error))
        return {
            "class": "ServerError",
            "problem": f"{type(error).__name__}: {error}",
            "trace": text,
        }
    return {
        "class": "ProbeError",
        "original": type(error).__name__,
        "text": str(error),
        "pickle": _pickled(error),
        "where": where,
        "frames": [list(frame) for frame in frames],
    }


def _pickled(error: BaseException) -> str | None:
    try:
        bare = error.with_traceback(None)
        bare.__cause__ = bare.__context__ = None
        payload = cloudpickle.dumps(bare)
        pickle.loads(payload)
        return payload.hex() if len(payload) < 100_000 else None
    except Exception:  # noqa: BLE001 - an exception that cannot travel is described by its text
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
    original = None
    if failure["pickle"]:
        try:
            original = pickle.loads(bytes.fromhex(failure["pickle"]))
        except Exception:  # noqa: BLE001 - a class that only the server has
            original = None
    kind = _mixed_class(type(original)) if isinstance(original, Exception) else ProbeError
    error = kind.__new__(kind)
    problem = f"{failure['original']}: {failure['text']}"
    Exception.__init__(error, problem)
    error.problem, error.remedy = problem, ""
    error.original, error.where = failure["original"], failure["where"]
    error.frames = tuple((file, line, name) for file, line, name in failure["frames"])
    if original is not None:
        vars(error).update({k: v for k, v in vars(original).items() if k not in vars(error)})
    return error


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
