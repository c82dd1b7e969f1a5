"""The weights of a model, wherever they are: what of a model is read here.

A client is such a one: it fetches each parameter. On the server there is one on every rank, which has them at hand. What takes many
products is sent there as a function of the weights (:func:`at_the_weights`), so that a model of 7 billion parameters sends
its strongest connections, and not its 14 GB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from garcon_jupyter.client import shipping
from garcon_jupyter.wire import requests as wire

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.points import Catalog

T = TypeVar("T")


class Weights(Protocol):
    """What has the names of a model's parameters, and the parameters."""

    @property
    def catalog(self) -> Catalog:
        """Which points and parameters there are."""

    def get_parameter(self, name: str, index: Any = None) -> Tensor:
        """A parameter by its name in the table, [out, in]; cut by `index`."""


class RankWeights(Weights, Protocol):
    """The weights as a rank of the server has them: all ranks read the same parameters in the same order, and each does its share of
    the work."""

    @property
    def rank(self) -> int:
        """Which of the ranks this is."""

    @property
    def world(self) -> int:
        """How many there are."""


def at_the_weights(rmodel: Client, function: Callable[[RankWeights], T]) -> list[T]:
    """What a function of the weights returns on each rank of the server. It is a request like any other: others take their turn
    before and after it.

    Args:
        function: a function or an object of this package; it is imported on the server by its name.
    """
    code = shipping.pack(function, "function of the weights")
    found: list[T] = rmodel._run(wire.ReadWeights(function=code, adapter=rmodel.adapter))
    return found
