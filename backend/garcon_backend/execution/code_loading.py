"""Shipped functions, as functions of this process.

What a function captured is as it was shipped, in every request anew. One that cannot remember anything
(:mod:`garcon_backend.execution.stateless`) is unpickled once, and kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from garcon_backend.execution.stateless import is_stateless
from garcon_backend.process.interrupts import Interrupts
from garcon_jupyter.errors import BadRequest, MissingModule
from garcon_jupyter.user_code import moved
from garcon_jupyter.wire.requests import Code

KEPT = 256
"""Functions without state that are kept from request to request."""


class CodeLoader:
    """Unpickles the functions of requests on this rank."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts
        self._loaded: dict[str, Callable[..., Any]] = {}
        self._stateless: dict[str, Callable[..., Any]] = {}

    def begin(self) -> None:
        """A new request: what the last one's functions remember is forgotten."""
        self._loaded = dict(self._stateless)

    def load(self, code: Code) -> Callable[..., Any]:
        """The function of shipped code; the same object for the same code within a request.

        Raises:
            MissingModule: it needs a module that this server cannot import.
            BadRequest: it cannot be unpickled here.
        """
        try:
            if code.digest not in self._loaded:
                with self._interrupts.user_code("preparing"):
                    function = self._loaded[code.digest] = moved.loads(code.payload)
                if is_stateless(function):
                    self._keep(code.digest, function)
            return self._loaded[code.digest]
        except MissingModule:
            raise
        except ImportError as error:
            module = getattr(error, "name", None) or str(error)
            raise MissingModule(
                f"{code.name} needs the module {module!r}, which the server cannot import.",
                "Install it where the server runs, or garcon.ship(module) to send it along.",
            ) from None
        except Exception as error:
            raise BadRequest(
                f"{code.name} cannot be unpickled on the server: {type(error).__name__}: {error}.",
                "Define it in the notebook, or garcon.ship() the module that defines it.",
            ) from error

    def _keep(self, digest: str, function: Callable[..., Any]) -> None:
        """Keep a function that is the same in every request."""
        if len(self._stateless) >= KEPT:
            del self._stateless[next(iter(self._stateless))]
        self._stateless[digest] = function
