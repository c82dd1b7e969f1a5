"""Errors as data, and as statuses of HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from garcon_jupyter import errors
from garcon_jupyter.errors import GarconError
from garcon_jupyter.operations.plain_data import PlainAnswer

STATUSES: dict[type[GarconError], int] = {
    errors.UnknownName: 404,
    errors.PointUnavailable: 404,
    errors.NoRecording: 404,
    errors.BadTokens: 422,
    errors.BadData: 422,
    errors.BadProbe: 422,
    errors.BadRequest: 422,
    errors.WrongValue: 422,
    errors.WrongDictionary: 422,
    errors.DoesNotFit: 507,
    errors.OutOfMemory: 507,
    errors.Interrupted: 499,
    errors.NotFinished: 504,
    errors.ServerRestarted: 503,
    errors.ServerGone: 503,
    errors.VersionMismatch: 503,
    errors.SessionInUse: 503,
}
"""HTTP's status of each kind of error; those that are none of these are 500. 499 (nginx's) is for what its asker called off."""

INVALID = 422
"""The status of a request that is none."""


class Failure(PlainAnswer):
    """What is wrong, and what to do about it."""

    kind: str = Field(description="the name of the error, as Python has it")
    problem: str = Field(description="what is wrong, a sentence")
    remedy: str = Field(default="", description="what to do about it")
    nearest: list[str] = Field(
        default=[], description="names that exist and are like the one that does not"
    )


def status_of(error: GarconError) -> int:
    """HTTP's status of an error: that of its nearest class in the table."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def failure(error: BaseException) -> tuple[int, Failure]:
    """Status and words of an error; of one that is none of Garçon's, the kind alone, since its words may say what is nobody's business."""
    if isinstance(error, GarconError):
        nearest = [*getattr(error, "nearest", ())]
        told = Failure(
            kind=type(error).__name__, problem=error.problem, remedy=error.remedy, nearest=nearest
        )
        return status_of(error), told
    if isinstance(error, ValidationError):
        return INVALID, Failure(
            kind="BadRequest",
            problem=_said(error),
            remedy="openapi.json has the form of each request.",
        )
    return 500, Failure(
        kind="ServerError",
        problem=f"The door failed in its own code: {type(error).__name__}.",
        remedy="The log of the door has the traceback.",
    )


def _said(error: ValidationError) -> str:
    """The first things that are wrong with a request, each with where it is."""
    found: list[Any] = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [
        f"{'.'.join(map(str, each['loc'])) or 'the request'}: {each['msg']}" for each in found[:3]
    ]
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{'; '.join(lines)}{more}."
