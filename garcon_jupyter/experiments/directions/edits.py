"""Probes that add a direction to what a point holds, take it out of it, or read it off."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from garcon_jupyter.experiments.directions.places import PlaceFinder, Places

if TYPE_CHECKING:
    from torch import Tensor


def adding(vector: Tensor, places: Places) -> Callable[[Any, Any], Any]:
    """x + vector, at the places meant; all other tokens stay as they are, to the bit."""
    meant = PlaceFinder(places)

    def add(save_ctx: Any, tensor: Any) -> Any:
        import torch

        flat = tensor.flatten(2)
        moved = flat + vector.to(flat.device, flat.dtype)
        at = meant(save_ctx.here).to(flat.device)[:, :, None]
        return torch.where(at, moved, flat).view(tensor.shape)

    return add


def removing(vector: Tensor, left: float, places: Places) -> Callable[[Any, Any], Any]:
    """x − (x·u − left) u for the unit vector u, at the places meant: what is left along u is `left`."""
    meant = PlaceFinder(places)

    def remove(save_ctx: Any, tensor: Any) -> Any:
        import torch

        flat = tensor.flatten(2)
        wide = flat if flat.dtype == torch.float64 else flat.float()
        unit = vector.to(wide.device, wide.dtype)
        moved = wide - ((wide @ unit) - left)[:, :, None] * unit
        at = meant(save_ctx.here).to(flat.device)[:, :, None]
        return torch.where(at, moved.to(flat.dtype), flat).view(tensor.shape)

    return remove


def reading(vector: Tensor) -> Callable[[Any, Any], None]:
    """x·u of the first text, kept as [p]."""

    def read(save_ctx: Any, tensor: Any) -> None:
        import torch

        flat = tensor[0].flatten(1)
        wide = flat if flat.dtype == torch.float64 else flat.float()
        save_ctx.along = (wide @ vector.to(wide.device, wide.dtype)).cpu()

    return read
