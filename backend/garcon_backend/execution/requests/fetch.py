"""Recorded values: cut where they are, merged where they are parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.save_contexts import merging
from garcon_backend.save_contexts.save_context import there
from garcon_jupyter.errors import CannotTravel, NoRecording
from garcon_jupyter.wire import codec
from garcon_jupyter.wire import requests as wire

Found = dict[int, merging.RankPart]
"""What one rank has of the values that were wanted, by their number in the request."""


class FetchHandler(RequestHandler[wire.Fetch]):
    """A fetch: each rank that holds a value or a part of it answers with that."""

    kind = wire.Fetch

    def prepare(self) -> None:
        """Whether something is there is known when all ranks have answered."""

    def run(self) -> Found:
        found: Found = {}
        for number, (ref, attribute, steps) in enumerate(self.request.wanted):
            contents = self.rank.contexts.contents(self.request.session, ref)
            if contents is None or attribute not in contents.values:
                continue
            of, value = contents.parts.get(attribute), contents.values[attribute]
            # Steps on a part would mean something else than on the whole.
            what = f"{ref.point}.{attribute}"
            if of is not None and not of.counts:  # another rank's is the same
                found[number] = merging.RankPart(None, of)
                continue
            value = there(value, what)
            value = merging.cut(value, steps, what) if of is None else value
            found[number] = merging.RankPart(merging.as_dtype(value, self.request.dtype), of)
        return found

    def combine(self, parts: Sequence[Found]) -> list[Any]:
        values = []
        for number, (ref, attribute, steps) in enumerate(self.request.wanted):
            what = f"{ref.point}.{attribute}"
            found = [part[number] for part in parts if number in part]
            if not found:
                raise NoRecording(
                    f"Nothing is recorded as {what}.", "rmodel.recordings() lists what is."
                )
            value = merging.merged(found, what, self._merge_rule)
            values.append(value if found[0].of is None else merging.cut(value, steps, what))
        return values

    def _merge_rule(self, code: wire.Code) -> Callable[[list[Any]], Any]:
        """A rule of the user's own, as a function of the list of parts."""
        rule = self.tools.code.load(code)
        what = f"the merge rule {code.name}"
        return lambda parts: self.tools.passes.user(0, rule, what, parts)

    def name_culprit(self, value: Any, error: CannotTravel) -> CannotTravel:
        for number, item in value.items() if isinstance(value, dict) else enumerate(value):
            try:
                codec.dumps(item.value if isinstance(item, merging.RankPart) else item)
            except CannotTravel as culprit:
                ref, attribute, _ = self.request.wanted[number]
                problem = f"{ref.point}.{attribute} cannot be fetched. {culprit.problem}"
                return CannotTravel(
                    problem, "The other attributes can; save what you need of this."
                )
        return error
