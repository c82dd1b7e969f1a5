"""Probes of a request, made ready to run on this rank."""

from __future__ import annotations

from collections.abc import Sequence

from garcon_backend.distributed.stage_exchange import over_stages
from garcon_backend.execution.code_loading import CodeLoader
from garcon_backend.execution.parameters import Parameters
from garcon_backend.probing.rank import Rank
from garcon_backend.probing.user_calls import LoadedProbe
from garcon_backend.save_contexts.save_context import SourceRecording
from garcon_jupyter.errors import BadRequest, NoRecording
from garcon_jupyter.points import Address, PointSpec
from garcon_jupyter.wire.requests import ProbeSpec


class ProbeLoader:
    """Makes probes of what a request says of them."""

    def __init__(self, rank: Rank, code: CodeLoader, parameters: Parameters) -> None:
        self._rank, self._code, self._parameters = rank, code, parameters
        self._addresses: dict[str, Address] = {}

    def load(self, specs: Sequence[ProbeSpec]) -> list[LoadedProbe]:
        """The probes, while a request is prepared.

        Raises:
            GarconError: a name is unknown, a point has no gradient, or code cannot be loaded.
        """
        return [self._one(spec) for spec in specs]

    def _one(self, spec: ProbeSpec) -> LoadedProbe:
        catalog = self._rank.bound.catalog
        address = self._addresses.get(spec.point)
        if address is None:
            address = self._addresses[spec.point] = catalog.point(spec.point)
        if spec.grad and isinstance(address.spec, PointSpec) and not address.spec.differentiable:
            raise BadRequest(f"{spec.point} has no gradient: it holds indices.", "Leave out grad.")
        for name in spec.params:
            catalog.parameter(name)
        return LoadedProbe(spec, address, self._code.load(spec.code))

    def supply(self, session: str, probes: Sequence[LoadedProbe]) -> None:
        """Give probes the parameters and recordings that they asked for, from whichever stage.

        Collective, so it is done when all ranks are known to go on, not while they prepare.

        Raises:
            NoRecording, BadRequest: a recording is not there, or is in shards; on all ranks.
        """
        self._supply_parameters(probes)
        self._supply_sources(session, probes)

    def _supply_parameters(self, probes: Sequence[LoadedProbe]) -> None:
        for name in sorted({name for probe in probes for name in probe.spec.params}):
            value = over_stages(self._rank.mesh, self._parameters.copy(name))
            for probe in probes:
                if name in probe.spec.params and value is not None:
                    probe.params[name] = value

    def _supply_sources(self, session: str, probes: Sequence[LoadedProbe]) -> None:
        mesh = self._rank.mesh
        refs = {probe.spec.source for probe in probes if probe.spec.source is not None}
        for ref in sorted(refs, key=lambda ref: (ref.snapshot, ref.point, ref.name or "")):
            contents = over_stages(mesh, self._rank.contexts.contents(session, ref))
            # All ranks stop, or none: one that went on alone would wait for ever.
            if mesh.everyone.any(mesh.runs_probes and contents is None):
                raise NoRecording(
                    f"Nothing is recorded at {ref.point} in that snapshot.",
                    "Take recordings() again.",
                )
            in_parts = contents is not None and mesh.world > 1 and bool(contents.parts)
            if mesh.everyone.any(in_parts):
                raise BadRequest(
                    f"The recording of {ref.point} was saved in shards, and a source must be whole.",
                    "Save it by a probe without sharded=True.",
                )
            for probe in probes:
                if probe.spec.source == ref and contents is not None:
                    probe.source = SourceRecording(contents.values)
