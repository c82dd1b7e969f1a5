"""A weight of a loaded dictionary, as its files have it."""

from __future__ import annotations

import torch
from torch import Tensor

from garcon_backend.dictionaries import ReadingPlan, plan_of
from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.process import memory
from garcon_jupyter.amounts import sized
from garcon_jupyter.dictionaries import Description
from garcon_jupyter.errors import BadRequest, DoesNotFit, UnknownName
from garcon_jupyter.wire import requests as wire


class ReadDictionaryHandler(RequestHandler[wire.ReadDictionary]):
    """Rank 0 reads the files anew: what it answers does not depend on what ranks hold, or make of it."""

    kind = wire.ReadDictionary

    plan: ReadingPlan | None = None
    description: Description

    def prepare(self) -> None:
        request = self.request
        there = self.rank.dictionaries.by_name
        if request.name not in there:
            raise UnknownName.among(
                "dictionary", request.name, there, "rmodel.dictionaries lists those loaded."
            )
        self.description = there[request.name].description
        if request.weight:
            self.plan = plan_of(self.description.path)
            self._check(self.plan)

    def _check(self, plan: ReadingPlan) -> None:
        """Refuse what is not there, and what does not fit.

        Raises:
            UnknownName, BadRequest, DoesNotFit: with what there is.
        """
        request, known = self.request, (*plan.weights, *plan.constants)
        if request.weight not in known:
            raise UnknownName.among("weight", request.weight, known, "Its form has no such weight.")
        latents = self.description.latents
        if not 0 <= request.first < (latents if request.stop is None else request.stop) <= latents:
            raise BadRequest(
                f"Latents {request.first} to {request.stop} are none of {latents}.",
                "Give first from 0 and a stop behind it.",
            )
        if request.weight in plan.weights:
            numbers = 1
            for letter, size in zip(
                plan.weights[request.weight].wanted, plan.weights[request.weight].shape, strict=True
            ):
                numbers *= len(self._latents) if letter == "F" else size
            if (needed := 16 * numbers) > (room := memory.left(torch.device("cpu"))):
                raise DoesNotFit(
                    f"{request.weight} takes {sized(needed)} while it is read; {sized(room)} are there.",
                    "Read some of its rows: first=, stop=.",
                )

    @property
    def _latents(self) -> range:
        stop = self.request.stop
        return range(self.request.first, self.description.latents if stop is None else stop)

    def run(self) -> tuple[Description, Tensor | None] | None:
        if self.rank.mesh.rank != 0:
            return None
        if self.plan is None:
            return self.description, None
        name, rows = self.request.weight, self._latents
        if name in self.plan.constants:
            return self.description, torch.full((len(rows),), self.plan.constants[name])
        part = slice(rows.start, rows.stop)
        return self.description, self.plan.weights[name].read(part, torch.float32)
