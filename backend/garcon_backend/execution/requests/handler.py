"""What a handler of requests is: one object for each request, on each rank."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from garcon_backend.execution.tools import Tools
from garcon_jupyter.errors import CannotTravel
from garcon_jupyter.wire.requests import Request

R = TypeVar("R", bound=Request)


class RequestHandler(ABC, Generic[R]):
    """One request on one rank, from its admission to its answer.

    The methods are called in the order in which they stand here. What :meth:`prepare` finds out it may keep as
    attributes for :meth:`run`; both are called on the same object. Those that are called on rank 0 alone may be called
    on another object of the same request.
    """

    kind: ClassVar[type[Request]]
    """The requests that it handles: the key under which it is registered."""

    def __init__(self, request: R, tools: Tools) -> None:
        self.request, self.tools, self.rank = request, tools, tools.rank

    def admit(self, shared: Path | None) -> None:
        """Refuse what could not be answered. Called on rank 0, by the kernel, before any rank hears of the request.

        Args:
            shared: directory in shared memory by which the answer would travel; None where it goes in the message.

        Raises:
            DoesNotFit: there is no room for it.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Check the request, and unpickle and resolve what it names. Called on every rank, before any of them runs.

        It takes part in no collective and changes nothing that outlives the request: if it fails on one rank, the
        request is skipped by all.

        Raises:
            GarconError: the request is wrong, or does not fit.
        """

    @abstractmethod
    def run(self) -> Any:
        """Do it, and return this rank's part of the answer. Called on every rank, when all have prepared.

        Collectives happen here, and only here: so every rank must come to the same ones, whatever it holds.

        Raises:
            UserFailure: code of the user's failed.
        """

    def combine(self, parts: Sequence[Any]) -> Any:
        """One answer from what all ranks returned, in their order. Called on rank 0, while the others are done.

        As it stands here: the one part that is not None, where at most one rank answers.
        """
        return next((part for part in parts if part is not None), None)

    def pack(self, value: Any, by_socket: bool) -> Any:
        """The answer, ready to travel. Called on rank 0, by the kernel, before the next request runs.

        Args:
            by_socket: whether its memory is read bit by bit, while later requests run.
        """
        return value

    def name_culprit(self, value: Any, error: CannotTravel) -> CannotTravel:
        """The error for an answer that cannot be pickled, with the name of what in it cannot.

        Called on the rank that tried: with its part, as :meth:`run` returned it, or on rank 0 with the whole answer.
        """
        return error
