"""What a function of the user's may give as a loss: a number, or one for each row, on which a gradient depends."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from garcon_jupyter.errors import BadRequest


def checked_scalar(value: Any) -> Tensor:
    """A loss of one number.

    Raises:
        BadRequest: it is none, or no gradient comes from it.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise BadRequest(f"The loss is {shape}, not a scalar.", "Return one number, e.g. .mean().")
    return _on_graph(value)


def checked_rows(value: Any, rows: int) -> Tensor:
    """A loss of a number for each row, [row].

    Raises:
        BadRequest: it is none, or no gradient comes from it.
    """
    if not isinstance(value, Tensor) or value.shape != (rows,):
        shape = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise BadRequest(
            f"The function of the logits gives {shape} for {rows} rows, not one number for each row.",
            "Return a tensor [row], such as logits[:, -1, 5].",
        )
    return _on_graph(value)


def _on_graph(value: Tensor) -> Tensor:
    if not value.requires_grad:
        raise BadRequest(
            "The loss does not depend on the logits or the values.",
            "Compute it from the arguments, without .item() or .detach().",
        )
    return value
