"""What one rank does with a request: prepare it, run it.

Preparing unpickles and resolves and may fail at no cost; running drives the model. Every rank does both, in unison.
What there is to do for a request is its handler's business (:mod:`garcon_backend.execution.requests`); here is what
is true of all of them: limits, and that the process is left as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from garcon_backend.execution.requests import HANDLERS
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.execution.tools import Tools
from garcon_backend.probing.rank import Rank
from garcon_backend.process import memory, state
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire.requests import Request


class Executor:
    """Runs requests on this rank."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.tools = Tools(rank)

    def handler(self, request: Request) -> RequestHandler[Any]:
        """The handler of a request, made for it alone.

        Raises:
            BadRequest: there is none for its kind.
        """
        kind = HANDLERS.get(type(request))
        if kind is None:
            raise BadRequest(
                f"The server knows no request of the kind {type(request).__name__}.",
                "Use the same version on both sides.",
            )
        return kind(request, self.tools)

    def prepare(self, handler: RequestHandler[Any]) -> Callable[[], Any]:
        """Check a request and make it ready: what is returned runs it, and returns this rank's part of the answer.

        Raises:
            GarconError: the request is wrong; nothing has happened.
        """
        request = handler.request
        self.tools.code.begin()
        self.rank.contexts.release(request.session, request.released)
        handler.prepare()
        return state.unchanged(lambda: self._within_limits(handler.run))

    def _within_limits(self, run: Callable[[], Any]) -> Any:
        """Run a request; where it was too much, it fails, and what it saved is taken back.

        Raises:
            DoesNotFit: more was saved than this rank keeps.
        """
        contexts = self.rank.contexts
        contexts.quota.begin()
        memory.adjust()
        try:
            value = run()
            if contexts.quota.grown:
                contexts.check_room()
        except BaseException as error:
            if isinstance(memory.typed(getattr(error, "error", error)), MemoryError):
                with self.rank.interrupts.held():
                    contexts.quota.take_back()
                memory.recover()
            raise
        return value
