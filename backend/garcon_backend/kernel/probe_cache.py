"""Probes that clients named by digest, as they were shipped.

A request names its probes by a digest; the first one brings them along. What is kept is bounded, and whoever
names what is not kept any more is asked to send it again.
"""

from __future__ import annotations

from collections import OrderedDict

from garcon_jupyter.errors import ProbesUnknown
from garcon_jupyter.wire import codec
from garcon_jupyter.wire.checking import check
from garcon_jupyter.wire.requests import ProbeSet, ProbeSpec, Request

KEPT = 256
"""Sets of probes that are kept, of all sessions."""

LARGEST = 64 << 20
"""Bytes of all that is kept. A single larger set is used and forgotten."""


class ProbeCache:
    """The probes that were used last."""

    def __init__(self) -> None:
        self._sets: OrderedDict[str, tuple[tuple[ProbeSpec, ...], int]] = OrderedDict()
        self._bytes = 0

    def fill(self, request: Request) -> None:
        """Put probes where a request has their digest.

        Raises:
            ProbesUnknown: they are not kept, and the request does not bring them.
        """
        named = getattr(request, "probe_set", None)
        if named is not None:
            request.probes = self._specs(named)  # type: ignore[attr-defined]
            request.probe_set = None  # type: ignore[attr-defined]

    def _specs(self, probes: ProbeSet) -> tuple[ProbeSpec, ...]:
        if found := self._sets.get(probes.digest):
            self._sets.move_to_end(probes.digest)
            return found[0]
        # A digest stands for what has it: nobody can leave other code under the name of somebody's.
        if not probes.payload or codec.digest(probes.payload) != probes.digest:
            raise ProbesUnknown("The server does not have these probes.", "Send them again.")
        specs: tuple[ProbeSpec, ...] = codec.loads(probes.payload)
        check(specs, tuple[ProbeSpec, ...], "probes")
        self._sets[probes.digest] = specs, len(probes.payload)
        self._bytes += len(probes.payload)
        while self._bytes > LARGEST or len(self._sets) > KEPT:
            self._bytes -= self._sets.popitem(last=False)[1][1]
        return specs
