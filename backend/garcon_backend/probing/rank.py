"""What one rank is: a frozen object that goes down from the executor to the calls of user code.

It needs no server: :meth:`Rank.around` makes one of any module, in any process, and a pass with probes runs on it
(``tests/backend/probing/test_rank.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from garcon_backend.distributed.collectives import Layout
from garcon_backend.distributed.mesh import Mesh
from garcon_backend.models import sharding
from garcon_backend.models.adapters import Adapters
from garcon_backend.models.binding import BoundFamily, bind
from garcon_backend.models.config import brings_its_code
from garcon_backend.models.current_weights import CurrentWeights
from garcon_backend.models.families import family_of
from garcon_backend.models.family import Family
from garcon_backend.probing.loaded_dictionaries import LoadedDictionaries
from garcon_backend.process import memory
from garcon_backend.process.interrupts import Cancelled, Interrupts
from garcon_backend.process.output import UserOutput
from garcon_backend.process.randomness import kept
from garcon_backend.process.user_code import UserFailure, user_code
from garcon_backend.save_contexts.contexts import Contexts


@dataclass(frozen=True)
class Rank:
    """One rank of a served model.

    Attributes:
        mesh: its place among all ranks, and the groups it belongs to.
        model: its part of the model.
        bound: where the points of that are.
        layouts: how values lie on the tensor-parallel ranks, by the letter along which the table splits them.
        interrupts: when its main thread may be interrupted.
        output: where what user code prints goes.
        contexts: what probes have saved on it.
        tokenizer: of the model, or None.
        adapters: that requests may name.
        weights: the checkpoint that the model is of; None of a module of the user's own.
        dictionaries: that were loaded beside the model.
    """

    mesh: Mesh
    model: nn.Module
    bound: BoundFamily
    layouts: dict[str, Layout]
    interrupts: Interrupts
    output: UserOutput
    contexts: Contexts = field(default_factory=Contexts)
    tokenizer: Any | None = None
    adapters: Adapters = field(default_factory=Adapters)
    weights: CurrentWeights | None = None
    dictionaries: LoadedDictionaries = field(default_factory=LoadedDictionaries)

    def user_code(self, seed: int | None = None) -> AbstractContextManager[None]:
        """While this is entered, code of the user's runs; see :func:`garcon_backend.process.user_code.user_code`."""
        return user_code(self.mesh.device, self.output, self.interrupts, seed)

    def call(
        self, what: str, function: Callable[..., Any], *args: Any, seed: int | None = None
    ) -> Any:
        """Call code of the user's that is no probe.

        Args:
            what: what it is, for the error.
            seed: of a random stream of its own; the process's is put back. None for none.

        Raises:
            UserFailure: it raised.
        """
        device = self.mesh.device
        try:
            with nullcontext() if seed is None else kept(device), self.user_code(seed):
                return function(*args)
        except Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            raise UserFailure(memory.typed(error, device), what) from None

    @classmethod
    def around(
        cls,
        model: nn.Module,
        mesh: Mesh | None = None,
        tokenizer: Any | None = None,
        mapped: bool = True,
        attended: bool = False,
        family: Family | None = None,
        adapters: Adapters | None = None,
        weights: CurrentWeights | None = None,
    ) -> Rank:
        """A rank around a model that is in memory; alone, unless a mesh is given.

        Args:
            mapped: whether to look for the points of its architecture; else it has those of its modules alone.
            family: where its points are, where it is not the one that its architecture has here.
            attended: whether a person sits at this process, to stop a request and to be asked by its code.
            weights: the checkpoint that it was loaded from.
        """
        mesh = mesh or Mesh.solo()
        config = getattr(model, "config", None)
        mapped = mapped and not brings_its_code(type(model))
        family = family or (family_of(config) if mapped else None)
        return cls(
            mesh,
            model,
            bind(model, family, config),
            sharding.layouts(model, mesh),
            Interrupts(mesh.world == 1, attended),
            UserOutput(attended),
            tokenizer=tokenizer,
            adapters=adapters or Adapters(),
            weights=weights,
        )
