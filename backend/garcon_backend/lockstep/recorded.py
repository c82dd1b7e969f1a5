"""What is recorded where, over all ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from garcon_backend.save_contexts.ledger import Key


class Recorded:
    """What is recorded where, by session: a table of contents on rank 0, though contexts live on any rank.

    It is brought up to date by what the ranks say of the contexts that a request touched, so that it can be looked
    at while the model is busy.
    """

    def __init__(self) -> None:
        self._points: dict[str, set[tuple[str, str | None]]] = {}

    def learn(self, told: Iterable[Mapping[Key, bool]]) -> None:
        """Take in what ranks say: of each context that was touched, whether something is in it there."""
        touched: dict[Key, bool] = {}
        for contexts in told:
            for context, filled in contexts.items():
                touched[context] = touched.get(context, False) or filled
        for (session, point, name), filled in touched.items():
            points = self._points.setdefault(session, set())
            (points.add if filled else points.discard)((point, name))

    def count(self, session: str) -> int:
        """How many recordings a session has."""
        return len(self._points.get(session, ()))

    def sessions(self) -> list[str]:
        """Those that have recordings."""
        return [session for session, points in list(self._points.items()) if points]

    def drop(self, session: str) -> None:
        """Forget a session."""
        self._points.pop(session, None)
