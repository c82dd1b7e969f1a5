"""What an agent may do, and how much of it: told to the agent, checked before a request is run, and counted after."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from garcon_jupyter.agents.estimates import Estimate
from garcon_jupyter.errors import BadRequest, GarconError
from garcon_jupyter.operations.operation import Permission

PERMISSIONS: dict[Permission, str] = {
    "read": "look at the model as it is",
    "edit": "ask what the model does when it is edited, for that request alone",
    "steer": "pause, resume or cancel jobs that somebody began",
}
"""What can be permitted, and what each allows."""


class NotPermitted(GarconError, PermissionError):
    """The owner has not permitted it, or the budget is spent."""


@dataclass(frozen=True)
class Allowance:
    """What the owner grants to one session of an agent.

    Attributes:
        permissions: of :data:`PERMISSIONS`; "read" is always among them.
        tokens: that may run through the model, in all passes together.
        seconds: that the model may work.
        bytes: of numbers that may be made and kept.
    """

    permissions: frozenset[Permission] = frozenset({"read"})
    tokens: int = 2_000_000
    seconds: float = 1800
    bytes: int = 1 << 30

    @classmethod
    def of(cls, permissions: Iterable[str], **budgets: Any) -> Allowance:
        """An allowance in words.

        Raises:
            BadRequest: there is no such permission, or a budget is not above 0.
        """
        for word in permissions:
            if word not in PERMISSIONS:
                raise BadRequest(
                    f"There is no permission {word!r}.", f"There are {', '.join(PERMISSIONS)}."
                )
        for name, value in budgets.items():
            if not value > 0:
                raise BadRequest(f"A budget of {value} {name} allows nothing.", "Give more than 0.")
        chosen = frozenset(word for word in PERMISSIONS if word in {"read", *permissions})
        return cls(chosen, **budgets)

    def need(self, permission: Permission, what: str) -> None:
        """Refuse what is not permitted.

        Raises:
            NotPermitted: with what the owner would have to say.
        """
        if permission not in self.permissions:
            raise NotPermitted(
                f'{what} takes the permission "{permission}": to {PERMISSIONS[permission]}. '
                f"This session has {', '.join(sorted(self.permissions))}.",
                f"Ask the owner to start the tools with --allow {permission} (in Jupyter: GARCON_AGENTS={permission}).",
            )


@dataclass
class Spending:
    """What a session has used of its allowance. Threads may count at once.

    Attributes:
        looks: requests that asked the model something and were answered.
    """

    allowance: Allowance
    tokens: int = 0
    seconds: float = 0
    bytes: int = 0
    looks: int = 0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def left(self) -> dict[str, float]:
        """What is left of each budget."""
        of = self.allowance
        return {
            "tokens": max(0, of.tokens - self.tokens),
            "seconds": round(max(0.0, of.seconds - self.seconds), 3),
            "bytes": max(0, of.bytes - self.bytes),
        }

    def check(self, estimate: Estimate) -> None:
        """Refuse what is over what is left, before it is run.

        Raises:
            NotPermitted: which budget, and both numbers.
        """
        left = self.left
        for name, asked in (("tokens", estimate.tokens), ("bytes", estimate.bytes)):
            if asked > left[name]:
                raise NotPermitted(
                    f"This takes about {asked:,} {name}, and {left[name]:,} are left of a budget of {getattr(self.allowance, name):,}.",
                    f"Ask for less (fewer texts, points, cells or units), or have the owner raise --{name}.",
                )
        if estimate.passes and not left["seconds"]:
            raise NotPermitted(
                f"The budget of {self.allowance.seconds:g} seconds is spent.",
                "What is kept can still be read; the owner may raise --seconds.",
            )

    def count(self, estimate: Estimate, seconds: float, answered: bool) -> int:
        """Count a request; the number of looks so far."""
        with self._lock:
            self.tokens += estimate.tokens
            self.seconds += seconds
            self.bytes += estimate.bytes if answered else 0
            self.looks += answered and estimate.passes > 0
            return self.looks
