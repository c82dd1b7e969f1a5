"""Parameters by the names of the table: whole, split out of fused ones, oriented [out, in]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.hook_sites.weights import ADAPTED, weight_of
from garcon_backend.models.binding import BoundFamily
from garcon_backend.models.family import Reading
from garcon_backend.models.sharding import gather_parameter
from garcon_jupyter.errors import BadRequest


class Parameters:
    """Reads parameters and their gradients; every rank takes part in each call."""

    def __init__(self, mesh: Mesh, bound: BoundFamily) -> None:
        self.mesh, self.bound = mesh, bound

    def stored(self, name: str) -> tuple[Reading, nn.Parameter | None]:
        """How a name is read and the stored parameter; None where another stage holds it."""
        reading, path = self.bound.parameter(self.bound.catalog.parameter(name))
        holder_path, _, leaf = path.rpartition(".")
        try:
            holder = self.bound.model.get_submodule(holder_path)
        except AttributeError:
            return reading, None
        found = getattr(holder, leaf, None)
        return reading, found if isinstance(found, nn.Parameter) else None

    def _computed_with(self, name: str, stored: nn.Parameter) -> Tensor:
        """A stored parameter, or, while an adapter is on, what the module computes with.

        Raises:
            PointUnavailable: it is packed.
        """
        path, _, leaf = self.bound.parameter(self.bound.catalog.parameter(name))[1].rpartition(".")
        holder = self.bound.model.get_submodule(path)
        packed = not stored.is_floating_point() or stored.element_size() < 2
        return (
            weight_of(holder)
            if packed or (leaf == "weight" and ADAPTED in vars(holder))
            else stored
        )

    def get(self, name: str) -> Tensor | None:
        """The parameter on the leader of the stage that holds it; None elsewhere. While an adapter is on, with
        what that adds to it."""
        reading, stored = self.stored(name)
        if stored is None:
            return None
        whole = gather_parameter(self._computed_with(name, stored), self.mesh)
        if whole is None:
            return None
        value = reading.read(whole.detach())
        return value + reading.offset if reading.offset else value

    def copy(self, name: str) -> Tensor | None:
        """As :meth:`get`, in memory of its own: code of the user may change it in place."""
        value, stored = self.get(name), self.stored(name)[1]
        if value is None or stored is None:
            return value
        mine = stored.to_local() if hasattr(stored, "to_local") else stored
        own = value.untyped_storage().data_ptr() != mine.untyped_storage().data_ptr()
        return value if own else value.clone()

    def cut(self, name: str, index: Any) -> Tensor | None:
        """The parameter, or what an index leaves of it, ready to travel.

        Raises:
            BadRequest: the index does not fit.
        """
        value = self.get(name)
        if value is None or index is None:
            return value
        try:
            return value[index]
        except (IndexError, TypeError, ValueError) as error:
            raise BadRequest(
                f"{name} {list(value.shape)} cannot be indexed so: {error}.",
                "Give an index, a slice or a tuple of them.",
            ) from None

    def gradients(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The gradients of parameters after a backward, and none left behind."""
        found = {}
        for name in names:
            reading, stored = self.stored(name)
            if stored is None or stored.grad is None:
                continue
            gradient = self.mesh.replicas.sum(stored.grad)
            whole = gather_parameter(gradient, self.mesh, like=stored)
            if whole is not None:
                found[name] = reading.read(whole).clone()
        return found

    def require_gradients(self, names: Sequence[str], on: bool) -> None:
        """Make the stored parameters of these names part of the graph, or no longer."""
        for name in names:
            stored = self.stored(name)[1]
            if stored is not None:
                stored.requires_grad_(on)
                stored.grad = None
