"""Parameters whole on every rank, for functions of the weights that ranks share among them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from garcon_backend.execution.parameters import Parameters
from garcon_backend.process.interrupts import Cancelled, Interrupts
from garcon_jupyter.errors import GarconError, PointUnavailable
from garcon_jupyter.points import Catalog

_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.uint8)
_HEAD = 8
"""Numbers that say what comes: whether a rank has it, which dtype, how many dimensions, and their sizes."""


class WholeWeights:
    """The weights of the model, as each rank sees them.

    Args:
        parameters: of this rank.
        interrupts: of the request.
    """

    def __init__(self, parameters: Parameters, interrupts: Interrupts) -> None:
        self._parameters, self._interrupts = parameters, interrupts
        self._everyone = parameters.mesh.everyone

    @property
    def catalog(self) -> Catalog:
        """The names of the model's parameters and points."""
        return self._parameters.bound.catalog

    @property
    def rank(self) -> int:
        """Which of the ranks this is."""
        return self._everyone.rank

    @property
    def world(self) -> int:
        """How many there are."""
        return self._everyone.size

    def get_parameter(self, name: str, index: Any = None) -> Tensor:
        """A parameter [out, in], whole on every rank; cut by `index`. Collective: all ask for the same. It is read, never changed
        in place.

        Raises:
            UnknownParameter: names the nearest ones.
            PointUnavailable: it is packed.
            BadRequest: the index does not fit.
        """
        self.catalog.parameter(name)
        if self.world == 1:
            self._interrupts.check()
            value = self._parameters.cut(name, index)
            assert value is not None
            return value
        if self._everyone.any(self._interrupts.cancelled):
            raise Cancelled
        failure: GarconError | None = None
        mine: Tensor | None = None
        try:
            mine = self._parameters.cut(name, index)
        except GarconError as error:  # on those that hold it: told to all, so that all stop
            failure = error
        value = self._from_who_has_it(mine, failure)
        if failure is not None:
            raise failure
        return value

    def _from_who_has_it(self, mine: Tensor | None, failure: GarconError | None) -> Tensor:
        """The value of the first rank that holds it, on every rank.

        Raises:
            PointUnavailable: a rank that holds it could not read it.
        """
        if failure is not None:
            text = f"{failure.problem}\n{failure.remedy}".encode()
            mine = torch.tensor(list(text), dtype=torch.uint8, device=self._everyone.device)
        head = torch.zeros(_HEAD, dtype=torch.int64, device=self._everyone.device)
        if mine is not None:
            told = [2 if failure else 1, _DTYPES.index(mine.dtype), mine.dim(), *mine.shape]
            head[: len(told)] = torch.tensor(told)
        heads = self._everyone.all_gather(head, _HEAD * self.world).view(self.world, _HEAD).tolist()
        source = next(rank for rank, (holds, *_) in enumerate(heads) if holds)
        holds, dtype, dimensions, *sizes = heads[source]
        if mine is None:
            shape = sizes[:dimensions]
            mine = torch.empty(shape, dtype=_DTYPES[dtype], device=self._everyone.device)
        value = self._everyone.broadcast(mine, source)
        if holds == 2:
            problem, _, remedy = bytes(value.tolist()).decode().partition("\n")
            raise PointUnavailable(problem, remedy)
        return value
