"""A dictionary held beside the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from garcon_backend.dictionaries import Dictionary, cuts_into, made, plan_of
from garcon_backend.distributed.collectives import span
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.models.stages import split_layers
from garcon_backend.probing.loaded_dictionaries import LoadedDictionary, StagesOfPoints
from garcon_backend.probing.point_places import layout_of, site_here
from garcon_backend.process import memory
from garcon_jupyter.amounts import sized
from garcon_jupyter.dictionaries import Description, NamedPoint, check_belongs
from garcon_jupyter.errors import BadRequest, DoesNotFit
from garcon_jupyter.points import Address, DictionaryPoints, is_pattern, parse_point
from garcon_jupyter.points.dictionary_points import (
    CROSS_LAYER,
    CROSSCODER,
    WORDS,
    is_name,
    name_of,
)
from garcon_jupyter.wire import requests as wire

SEVERAL = (CROSSCODER, CROSS_LAYER)


class LoadDictionaryHandler(RequestHandler[wire.LoadDictionary]):
    """Each rank reads its part of the latents while it prepares: all have theirs then, or nothing has changed."""

    kind = wire.LoadDictionary

    loaded: LoadedDictionary

    def prepare(self) -> None:
        request = self.request
        of = plan_of(request.path)
        description = self._placed(of.description, request.at)
        if (there := self._there(description)) is not None:
            self.loaded = there
            return
        if description.form.activation.joint:
            raise BadRequest(
                f"{description.path} chooses the {description.form.activation.k} largest latents of all layers together, which are not known "
                "where the first layers are written.",
                "It can be computed with (garcon_backend.dictionaries.load), and has no points in a model that runs layer by layer.",
            )
        check_belongs(description, self.rank.bound.catalog)
        self._check_order(description)
        points = self._points(description)
        parts = self.rank.mesh.degrees.tp if points.split else 1
        stages = self._stages(points)
        dictionary: Dictionary | None = None
        if min(stages.each) <= stages.own <= max(stages.each):
            dtype = torch.float64 if self._double else torch.float32
            own = [n for n, stage in enumerate(stages.each) if stage == stages.own]
            sources = range(own[0], own[-1] + 1) if own else range(0)
            self._admit(description, parts, dtype, sources)
            latents = range(*span(description.latents, parts, self.rank.mesh.tp_rank % parts))
            dictionary = made(of, latents, dtype, self.rank.mesh.device, sources)
            dictionary.description = description
        self.loaded = LoadedDictionary(points, description, dictionary, parts, stages)

    @property
    def _double(self) -> bool:
        return next(self.rank.model.parameters()).dtype == torch.float64

    def _there(self, description: Description) -> LoadedDictionary | None:
        """What is loaded by this name, where it is the same.

        Raises:
            BadRequest: it is another one; or no dictionary may be called so.
        """
        name = self._name
        if not is_name(name):
            raise BadRequest(
                f"{name!r} is no name of a dictionary.",
                "Give letters, digits, _ and -, such as name='sae-10'.",
            )
        there = self.rank.dictionaries.by_name.get(name)
        if there is None:
            return None
        same = (there.description.path, there.points.ends)
        if same == (description.path, _ends(description)):
            return there
        raise BadRequest(
            f"A dictionary {name!r} is loaded already, of {there.description.path} at {there.points.where}.",
            f"Give another name=, or let go of that one: rmodel.dictionaries.unload({name!r}).",
        )

    @property
    def _name(self) -> str:
        return self.request.name or name_of(self.request.path)

    def _placed(self, description: Description, at: tuple[str, ...]) -> Description:
        """A description with the points that were said, its path made whole.

        Raises:
            BadRequest: they are not as many as it reads and writes; or, of several, not in the order of a pass.
        """
        description = replace(description, path=str(Path(description.path).resolve()))
        catalog, n = self.rank.bound.catalog, description.inputs
        if at:
            said = [
                name
                for one in at
                for name in (map(_name_of, catalog.select(one)) if is_pattern(one) else [one])
            ]
            if len(said) not in (n, 2 * n):
                raise BadRequest(
                    f"at={list(at)} names {len(said)} point{'s' if len(said) != 1 else ''}, of a dictionary that reads {n}.",
                    "Give the points that it reads, or those and as many that it writes; layers.*.mlp.in stands for those of all layers.",
                )
            reads, writes = (
                tuple(NamedPoint(name, (name,)) for name in side) for side in (said[:n], said[-n:])
            )
            description = replace(description, reads=reads, writes=writes)
        if n > 1:
            parsed = [parse_point(place.point) for place in description.reads]
            layers = [-1 if one is None or one.layer is None else one.layer for one in parsed]
            ordered = min(layers) >= 0 and layers == sorted(layers)
            if not ordered or len({place.point for place in description.reads}) < n:
                raise BadRequest(
                    f"{description.path} reads {', '.join(place.point for place in description.reads)}, which a pass does not come by in that order.",
                    "Give points of layers, each once, in the order of the layers.",
                )
        return description

    def _check_order(self, description: Description) -> None:
        """Refuse what writes a point that a pass has left when it reads.

        Raises:
            BadRequest: says which.
        """
        order = {name: number for number, name in enumerate(self.rank.bound.catalog.names())}
        for reads, writes in _ends(description):
            if order.get(reads, 0) > order.get(writes, len(order)):
                raise BadRequest(
                    f"{description.path} would read {reads} and write {writes}, and a pass comes by {reads} after that.",
                    "Give at= with the point that it reads first, then the one that it writes.",
                )

    def _points(self, description: Description) -> DictionaryPoints:
        parts = self.rank.mesh.degrees.tp
        pursued = description.form.kind == "pursuit"
        ends = _ends(description)
        several = description.form.kind in SEVERAL
        return DictionaryPoints(
            self._name,
            *ends[-1],
            description.latents,
            cuts_into(description, parts),
            description.formula,
            description.path,
            WORDS[1:] if pursued else WORDS,
            kind=description.form.kind if several else "token",
            several=ends if several else (),
            untrained=description.untrained,
            layout=f"{description.format} {description.kind}",
        )

    def _stages(self, points: DictionaryPoints) -> StagesOfPoints:
        """Which stages have the points.

        Raises:
            BadRequest: one has what is read, and another what is written for it; or a rank holds what others hold as well, and not alike.
        """
        mesh, catalog = self.rank.mesh, self.rank.bound.catalog
        each = []
        for ends in points.ends:
            both = [catalog.point(name) for name in ends]
            here = [site_here(self.rank, address) is not None for address in both]
            stage = mesh.stage if here[0] else -1
            if points.several:
                stage = self._stage_of(both[0].layer)
            if here[0] != here[1] or here[0] != (stage == mesh.stage):
                raise BadRequest(
                    f"{ends[0]} and {ends[1]} are on different stages of the pipeline.",
                    "Launch with fewer stages.",
                )
            each.append(stage)
            for address in both:
                self._check_layout(address)
        return StagesOfPoints(mesh.stage, tuple(each))

    def _stage_of(self, layer: int | None) -> int:
        count, degrees = self.rank.bound.catalog.n_layers, self.rank.mesh.degrees.pp
        stages = range(degrees)
        return next(
            (s for s in stages if layer is not None and layer in split_layers(count, degrees, s)),
            -1,
        )

    def _check_layout(self, address: Address) -> None:
        layout = layout_of(self.rank, address)
        if layout.chunks > 1 and (layout.dup > 1 or layout.dim != 2):
            raise BadRequest(
                f"At tp={self.rank.mesh.degrees.tp} several ranks hold the same part of {address.name}, or parts that are not of its units.",
                "Launch with a smaller tp to have dictionaries there.",
            )

    def _admit(
        self, description: Description, parts: int, dtype: torch.dtype, sources: range
    ) -> None:
        """Refuse a dictionary that has no room on this rank.

        Args:
            sources: of a cross-layer transcoder the layers whose latents this stage holds.

        Raises:
            DoesNotFit: with the bytes that it needs and those that there are.
        """
        inputs, decoders = description.inputs, description.inputs
        if description.form.kind == CROSS_LAYER:
            inputs, decoders = len(sources), sum(description.inputs - i for i in sources)
        each = inputs * description.d_in + decoders * description.d_out
        needed = description.latents * each // parts * dtype.itemsize
        there = memory.left(self.rank.mesh.device)
        if 2 * needed <= there:  # one more while it is read
            return
        raise DoesNotFit(
            f"{description.path} needs {sized(needed)} on a rank, and as much again while it is read; {sized(there)} are there.",
            "Let go of others with rmodel.dictionaries.unload(NAME), or launch with a larger tp, which cuts the latents.",
        )

    def run(self) -> tuple[DictionaryPoints, Description, int]:
        loaded, rank = self.loaded, self.rank
        with rank.interrupts.held():
            rank.dictionaries.put(loaded)
            degrees = rank.mesh.degrees  # each of its stage's ranks holds as much
            nbytes = loaded.nbytes * degrees.tp * degrees.dp
            told = replace(loaded.points, nbytes=nbytes)
            rank.bound.catalog.dictionaries[loaded.points.name] = told
        return loaded.points, loaded.description, loaded.nbytes

    def combine(self, parts: Any) -> Any:
        """What the model has by it, with the memory that it takes on all ranks."""
        points, description, _ = parts[0]
        points = replace(points, nbytes=sum(nbytes for _, _, nbytes in parts))
        self.rank.bound.catalog.dictionaries[points.name] = (
            points  # as other clients are told of it
        )
        return points, description


def _name_of(address: Address) -> str:
    return address.name


def _ends(description: Description) -> tuple[tuple[str, str], ...]:
    """Each point that is read, with the one that is written for it."""
    both = zip(description.reads, description.writes, strict=True)
    return tuple((reads.point, writes.point) for reads, writes in both)
