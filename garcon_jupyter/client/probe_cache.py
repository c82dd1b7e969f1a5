"""Probes travel once: later requests with the same probes name them by digest.

The server keeps the probes of the last requests, as they were shipped. Where it does not know a digest, since it
was started anew or kept others instead, it says so before anything runs, and they are sent again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from garcon_jupyter.wire import codec
from garcon_jupyter.wire.requests import ProbeSet, ProbeSpec

KEPT = 64
"""Sets of probes that are remembered as packed."""


class Installing:
    """What one client has sent to its server. Cells and pictures ask from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packed: OrderedDict[tuple[int, ...], tuple[tuple[ProbeSpec, ...], ProbeSet]] = (
            OrderedDict()
        )
        self._sent: set[str] = set()

    def named(self, probes: tuple[ProbeSpec, ...], again: bool = False) -> ProbeSet:
        """Probes as they travel now: whole for the first time, and by digest from then on.

        Args:
            again: whole, since the server does not know them.
        """
        with self._lock:
            # By identity, which is quick to ask: what is remembered keeps the probes, and so their ids, alive.
            key = tuple(map(id, probes))
            if key not in self._packed:
                payload, _ = codec.dumps(probes)
                self._packed[key] = probes, ProbeSet(codec.digest(payload), payload)
                while len(self._packed) > KEPT:
                    self._packed.popitem(last=False)
            self._packed.move_to_end(key)
            whole = self._packed[key][1]
            if whole.digest in self._sent and not again:
                return ProbeSet(whole.digest)
            self._sent.add(whole.digest)
            return whole
