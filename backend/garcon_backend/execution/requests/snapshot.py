"""What is recorded now, remembered, and its table of contents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.save_contexts import merging
from garcon_jupyter.wire import requests as wire

Index = dict[tuple[str, str | None], dict[str, merging.RankPart]]
"""One rank's table of contents of a snapshot: for each (point, name), what its attributes are."""

Silent = dict[tuple[str, str | None], str]
"""Why probes at (point, name) did not run; or what the model's certificate was when they did."""

On = dict[tuple[str, str | None], tuple[str, ...]]
"""Which adapters were on when something was saved at (point, name)."""


class SnapshotHandler(RequestHandler[wire.Snapshot]):
    """A snapshot: each rank remembers what it holds; the answer says what there is on any of them."""

    kind = wire.Snapshot

    def prepare(self) -> None:
        """Nothing can be wrong."""

    def run(self) -> tuple[Index, Silent, On, Silent]:
        contexts, session = self.rank.contexts, self.request.session
        index = {
            key: {
                name: merging.RankPart(
                    replace(
                        merging.describe(value), origin=contexts.origin(session, key, name, value)
                    ),
                    saved.parts.get(name),
                )
                for name, value in saved.values.items()
            }
            for key, saved in contexts.snapshot(session, self.request.number).items()
        }
        kept = contexts.adapters(session), contexts.certificates(session)
        return index, contexts.silent(session), *kept

    def combine(self, parts: Sequence[tuple[Index, Silent, On, Silent]]) -> wire.SnapshotIndex:
        found: dict[Any, dict[str, list[merging.RankPart]]] = {}
        silent: Silent = {}
        adapters: On = {}
        certificates: Silent = {}
        for index, of_rank, on, certified in parts:
            silent |= of_rank
            adapters |= on
            certificates |= certified
            for key, attributes in index.items():
                for name, info in attributes.items():
                    found.setdefault(key, {}).setdefault(name, []).append(info)
        table = {
            key: {name: merging.described(infos) for name, infos in attributes.items()}
            for key, attributes in found.items()
        }
        return wire.SnapshotIndex(self.request.number, table, silent, adapters, certificates)
