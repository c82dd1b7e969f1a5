"""Errors across the wire.

An error of Garçon travels by class name and two sentences. An error of user code travels with its
original exception (if that pickles) and the *user's* frames and lines only. What is raised there is both a
:class:`ProbeError` and the original type, so that ``except ZeroDivisionError`` works as if the code had run in
the notebook. Of any other error it is found out whose code it is from (:mod:`garcon_jupyter.user_code.blame`).
"""

from __future__ import annotations

import contextlib
import pickle
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.errors import ERRORS, GarconError, ModelError, ProbeError, ServerError
from garcon_jupyter.user_code import blame, pickling

Frame = tuple[str, int, str, str]
"""(file, line, function, text of the line)"""

LONGEST_TEXT = 20_000
"""Characters of an exception's text that travel."""

MOST_FRAMES = 20
"""Frames of an exception that travel."""

LARGEST_PICKLE = 100_000
"""Bytes of an exception's class and attributes that travel."""


LONGEST_LINE = 300
"""Characters of a line of code that travel."""


@dataclass(frozen=True)
class Happened:
    """Where in a pass an error happened.

    Attributes:
        model: class of the model.
        module: path of the innermost module whose forward ran; "" outside of all.
        edited: what had been edited before, each as "function at point".
    """

    model: str = ""
    module: str = ""
    edited: tuple[str, ...] = ()


def user_frames(error: BaseException) -> tuple[Frame, ...]:
    """Frames of shipped code in a traceback, outermost first; those of the server are left out.

    Frames of libraries below the user's code stay: they tell which operation failed. Of what is refused by
    Garçon itself they would tell how. Of a deep recursion both ends stay.
    """
    frames = [
        (f.filename, f.lineno or 0, f.name, (f.line or "")[:LONGEST_LINE])
        for f in traceback.extract_tb(error.__traceback__)
    ]
    outside = [n for n, frame in enumerate(frames) if not blame.is_ours(frame[0])]
    users = [frames[n] for n in outside]
    if isinstance(error, GarconError):
        while users and blame.is_library(users[-1][0]):
            users.pop()
    half = MOST_FRAMES // 2
    return tuple(users if len(users) <= MOST_FRAMES else [*users[:half], *users[-half:]])


def describe(
    error: BaseException, where: str = "", happened: Happened | None = None
) -> dict[str, Any]:
    """An error as plain data that fits into the content of a message.

    Args:
        where: what code of the user's raised it; "" where it is not known to be the user's.
        happened: where in a pass, if in any.
    """
    if isinstance(error, GarconError) and not where:
        problem, remedy = error.problem, error.remedy
        if happened and happened.module:
            problem += f" It happened in {happened.module}."
        return {"class": type(error).__name__, "problem": problem, "remedy": remedy}
    fault = blame.USER if where else blame.whose(error.__traceback__)
    if fault != blame.USER:
        return _not_the_users(error, fault, happened or Happened())
    return {
        "class": "ProbeError",
        "original": type(error).__name__,
        "text": text_of(error),
        "pickle": _pickled(error),
        "where": where or _place(happened),
        "frames": [list(frame) for frame in user_frames(error)],
    }


def _not_the_users(error: BaseException, fault: str, happened: Happened) -> dict[str, Any]:
    return {
        "class": "ModelError" if fault == blame.MODEL else "ServerError",
        "fault": fault,
        "problem": f"{type(error).__name__}: {text_of(error)}",
        "where": _place(happened),
        "edited": list(happened.edited),
        "trace": _trace_of(error),
    }


def _place(happened: Happened | None) -> str:
    if happened is None or not happened.model:
        return ""
    if not happened.module:
        return f"{happened.model}, outside of its modules"
    return f"{happened.model}, in {happened.module}"


def with_edits_of(failure: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A failure with what had been edited on other ranks, too, when theirs came about."""
    if "edited" not in failure:
        return failure
    known = dict.fromkeys(name for told in (failure, *others) for name in told.get("edited", ()))
    return {**failure, "edited": list(known)}


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
    if "fault" in failure:
        return _revive_others_error(failure)
    kind = ERRORS.get(failure["class"], GarconError)
    return kind(failure["problem"], failure["remedy"])


_LOST_DEVICE = ("CUDA error", "CUDA driver error", "device-side assert")
"""Words of errors after which a device does nothing more for the process."""


def _revive_others_error(failure: dict[str, Any]) -> GarconError:
    """The sentences for an error that is not of the user's code, as far as it is known whose it is."""
    problem, fault = failure["problem"], failure.get("fault", blame.OURS)
    place = f" ({failure['where']})" if failure.get("where") else ""
    edited = ", ".join(failure.get("edited", ()))
    if any(words in problem for words in _LOST_DEVICE):
        advice = "The server cannot use its device any more: rmodel.shutdown(), and launch it anew."
    elif edited:
        advice = (
            f"Edited before it: {edited}. Whether it is for their values shows the same request without "
            "them (probes=[])."
        )
    elif fault == blame.OURS:
        advice = "This is a bug of Garçon."
    else:
        advice = (
            "No probe had edited anything, so it is open whose fault it is: of the checkpoint and its "
            "options, of transformers, or of Garçon."
        )
    if fault == blame.OURS and edited:
        advice += " If it is not, this is a bug of Garçon."
    remedy = f"{advice} Its traceback:\n{failure.get('trace', '')}"
    if fault == blame.MODEL:
        return ModelError(f"The model's own code failed{place}: {problem}.", remedy)
    if fault == blame.OURS:
        return ServerError(f"The server failed in its own code{place}: {problem}.", remedy)
    return ServerError(f"Something failed on the server{place}: {problem}.", remedy)


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
    error.frames = tuple((file, line, name) for file, line, name, *_ in failure["frames"])
    error.sources = tuple("".join(text) for _, _, _, *text in failure["frames"])
    vars(error).update({k: v for k, v in attributes.items() if k not in vars(error)})
    return error


def checked(reply: dict[str, Any]) -> dict[str, Any]:
    """The content of a reply, and its "buffers".

    Raises:
        GarconError: what it says that went wrong.
    """
    content: dict[str, Any] = reply["content"]
    if content.get("status") != "ok":
        raise revive(content["failure"])
    content["buffers"] = reply["buffers"]
    return content


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
