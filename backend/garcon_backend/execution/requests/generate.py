"""Tokens generated one after the other, with probes on every step."""

from __future__ import annotations

from garcon_backend.execution.generation import generate
from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.requests.probed import ProbedRequestHandler
from garcon_jupyter.errors import PointUnavailable
from garcon_jupyter.wire import requests as wire


class GenerateHandler(ProbedRequestHandler[wire.Generate]):
    """A generation: the leader of the last stage answers."""

    kind = wire.Generate

    batch: Inputs

    def prepare(self) -> None:
        self.batch = self.tools.passes.batch(self.request.batch)
        self.admit_probes()
        self._refuse_unseen()

    def _refuse_unseen(self) -> None:
        """Refuse points that only a forward of the whole text shows.

        Raises:
            PointUnavailable: a probe is at one; says why, and what can be probed.
        """
        family = self.rank.bound.family
        unseen = family.not_while_generating if family else {}
        for probe in self.probes:
            if why := unseen.get(probe.address.template):
                raise PointUnavailable(
                    f"{probe.address.name} cannot be probed while generating: {why}.",
                    "Probe it in a forward, or what it is made of.",
                )
        used = {probe.address.dictionary for probe in self.probes if probe.address.dictionary}
        for name in sorted(used | {splice.dictionary for splice in self.request.splices}):
            form = self.rank.dictionaries[name].description.form
            if not form.per_token and self.request.options.get("use_cache", True):
                raise PointUnavailable(
                    f"The dictionary {name!r} reads a token with all that are before it, which a step of generation does not have.",
                    "Generate with use_cache=False: each step reads everything anew.",
                )

    def run_pass(self) -> wire.GeneratedTokens | None:
        return generate(self.tools.passes, self.request, self.batch, self.probes)
