"""Whether what recorders will keep has room, asked of every rank before a pass.

A recorder knows beforehand how many bytes its state takes, and some take much: covariance of the logits of a model has
as many numbers as there are pairs of tokens in its vocabulary. So a pass whose recorders have no room is refused, at no
cost, and does not end in the midst of a run. Anything that is used as a probe may say so by a method ``needs``
(:meth:`garcon_jupyter.recorders.Recorder.needs`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from garcon_backend.execution.admission import NEGLIGIBLE, Need
from garcon_backend.probing.point_places import layout_of, site_here
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import LoadedProbe
from garcon_backend.process import memory
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.points import PointSpec


class RecorderAdmission:
    """Knows what recorders will keep on one rank.

    Args:
        rank: which.
    """

    def __init__(self, rank: Rank) -> None:
        self._rank = rank

    def check(self, session: str, probes: Sequence[LoadedProbe]) -> None:
        """Refuse recorders whose states have no room on this rank.

        Raises:
            DoesNotFit: with the bytes that they need and those that there are.
        """
        states = [state for probe in probes if (state := self._state(session, probe))]
        needed = sum(state.count for state in states)
        if needed < NEGLIGIBLE:
            return
        there = min(self._rank.contexts.room(), memory.left(self._rank.mesh.device))
        if needed <= there:
            return
        largest = max(states, key=lambda state: state.count)
        others = f", and {len(states) - 1} more" if len(states) > 1 else ""
        raise DoesNotFit(
            f"The recorders need {sized(needed)} on a rank ({largest.what} {sized(largest.count)}"
            f"{others}); {sized(there)} may be kept.",
            largest.remedy,
        )

    def _state(self, session: str, probe: LoadedProbe) -> Need | None:
        """What a probe will keep on this rank beyond what it keeps, as far as it says so: a recorder does."""
        spec = probe.spec
        needs = getattr(probe.function, "needs", None)
        if needs is None or not (spec.sharded or self._rank.mesh.runs_probes):
            return None
        if site_here(self._rank, probe.address) is None:
            return None
        kept = self._rank.contexts.names(session, spec.point, spec.name)
        count = needs(spec.point, lambda name: self._units(name, spec.sharded), kept)
        remedy = "Record fewer points, or keep less of each unit."
        return Need(f"{probe.function!r} at {spec.point}", count, remedy)

    def _units(self, name: str, sharded: bool) -> int:
        """Units of a point, of all ranks or of this one; 0 of a module's tensor, whose shape nobody knows."""
        address = self._rank.bound.catalog.point(name)
        if not isinstance(address.spec, PointSpec):
            return 0
        dims = self._rank.bound.catalog.shape(address)[1 if address.expert is not None else 2 :]
        units = math.prod(size for size in dims if isinstance(size, int))
        return units // layout_of(self._rank, address).chunks if sharded else units
