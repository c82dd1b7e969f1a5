"""The live picture: a text and sliders on a served model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.background import answering
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.live_edits import Bench
from garcon_jupyter.widgets import Edit, LiveWidget, Outcome

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client


def live_picture(
    rmodel: Client,
    text: str,
    points: Sequence[str] | str = (),
    edits: Sequence[Edit] = (),
    directions: Mapping[str, Any] | None = None,
) -> LiveWidget:
    """A text and sliders on a served model; see :class:`~garcon_jupyter.widgets.LiveWidget`."""
    patterns = [points] if isinstance(points, str) else list(points)
    names = [a.name for pattern in patterns for a in rmodel.catalog.select(pattern)]
    names = list(dict.fromkeys([*names, *(edit.point for edit in edits)]))
    for name in names:
        dims = getattr(rmodel.catalog.point(name).spec, "dims", ())
        if tuple(dims[:2]) != ("b", "p"):
            raise BadRequest(
                f"{name} has no value for each token.", "Choose points of shape [b, p, …]."
            )
    bench = Bench(rmodel, names[:8], directions or {})

    def outcome(typed: str, made: Sequence[Edit]) -> Outcome:
        found = bench.outcome(typed, made)
        return Outcome(found.tokens, found.predictions, found.activations)

    chosen = list(edits) or [Edit(name, on=False) for name in names[:1]]
    return LiveWidget(answering(outcome), text, names, chosen, list(directions or {}))
