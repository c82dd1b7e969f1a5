"""A dictionary held beside the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from garcon_backend.dictionaries import Dictionary, cuts_into, made, plan_of
from garcon_backend.distributed.collectives import span
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.probing.loaded_dictionaries import LoadedDictionary
from garcon_backend.probing.point_places import layout_of, site_here
from garcon_backend.process import memory
from garcon_jupyter.amounts import sized
from garcon_jupyter.dictionaries import Description, NamedPoint, check_belongs
from garcon_jupyter.errors import BadRequest, DoesNotFit
from garcon_jupyter.points import DictionaryPoints
from garcon_jupyter.points.dictionary_points import WORDS, is_name, name_of
from garcon_jupyter.wire import requests as wire

SERVED = ("token", "pursuit", "context")
"""Kinds that read one point of a token and write one."""


class LoadDictionaryHandler(RequestHandler[wire.LoadDictionary]):
    """Each rank reads its part of the latents while it prepares: all have theirs then, or nothing has changed."""

    kind = wire.LoadDictionary

    loaded: LoadedDictionary

    def prepare(self) -> None:
        request = self.request
        of = plan_of(request.path)
        description = _placed(of.description, request.at)
        if (there := self._there(description)) is not None:
            self.loaded = there
            return
        if description.form.kind not in SERVED:
            raise BadRequest(
                f"{description.path} is a {description.form.kind} dictionary, which reads several points at once.",
                "It can be read and computed with (garcon_backend.dictionaries.load), but has no points in a served model yet.",
            )
        check_belongs(description, self.rank.bound.catalog)
        points = self._points(description)
        parts = self.rank.mesh.degrees.tp if points.split else 1
        here = self._here(points)
        dictionary: Dictionary | None = None
        if here:
            dtype = torch.float64 if self._double else torch.float32
            self._admit(description, parts, dtype)
            latents = range(*span(description.latents, parts, self.rank.mesh.tp_rank % parts))
            dictionary = made(of, latents, dtype, self.rank.mesh.device)
            dictionary.description = description
        self.loaded = LoadedDictionary(points, description, dictionary, parts)

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
        same = (there.description.path, there.points.reads, there.points.writes)
        if same == (description.path, description.reads[0].point, description.writes[0].point):
            return there
        raise BadRequest(
            f"A dictionary {name!r} is loaded already, of {there.description.path} at {there.points.reads}.",
            f"Give another name=, or let go of that one: rmodel.dictionaries.unload({name!r}).",
        )

    @property
    def _name(self) -> str:
        return self.request.name or name_of(self.request.path)

    def _points(self, description: Description) -> DictionaryPoints:
        parts = self.rank.mesh.degrees.tp
        pursued = description.form.kind == "pursuit"
        return DictionaryPoints(
            self._name,
            description.reads[0].point,
            description.writes[0].point,
            description.latents,
            cuts_into(description, parts),
            description.formula,
            description.path,
            WORDS[1:] if pursued else WORDS,
        )

    def _here(self, points: DictionaryPoints) -> bool:
        """Whether this rank's stage has the points.

        Raises:
            BadRequest: it has one of two; or a rank holds what others hold as well, and not alike.
        """
        addresses = [self.rank.bound.catalog.point(name) for name in (points.reads, points.writes)]
        stages = [site_here(self.rank, address) is not None for address in addresses]
        if stages[0] != stages[1]:
            raise BadRequest(
                f"{points.reads} and {points.writes} are on different stages of the pipeline.",
                "Launch with fewer stages.",
            )
        for address in addresses:
            layout = layout_of(self.rank, address)
            if layout.chunks > 1 and (layout.dup > 1 or layout.dim != 2):
                raise BadRequest(
                    f"At tp={self.rank.mesh.degrees.tp} several ranks hold the same part of {address.name}, or parts that are not of its units.",
                    "Launch with a smaller tp to have dictionaries there.",
                )
        return stages[0]

    def _admit(self, description: Description, parts: int, dtype: torch.dtype) -> None:
        """Refuse a dictionary that has no room on this rank.

        Raises:
            DoesNotFit: with the bytes that it needs and those that there are.
        """
        numbers = description.latents * (description.d_in + description.d_out) // parts
        needed = numbers * dtype.itemsize
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
            rank.bound.catalog.dictionaries[loaded.points.name] = loaded.points
        return loaded.points, loaded.description, loaded.nbytes

    def combine(self, parts: Any) -> Any:
        """What the model has by it, with the memory that it takes on all ranks."""
        points, description, _ = parts[0]
        return replace(points, nbytes=sum(nbytes for _, _, nbytes in parts)), description


def _placed(description: Description, at: tuple[str, ...]) -> Description:
    """A description with the points that were said, its path made whole."""
    path = str(Path(description.path).resolve())
    if not at:
        return replace(description, path=path)
    reads, writes = (NamedPoint(at[0], (at[0],)), NamedPoint(at[-1], (at[-1],)))
    return replace(description, path=path, reads=(reads,), writes=(writes,))
