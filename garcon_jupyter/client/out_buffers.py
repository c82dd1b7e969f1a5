"""Values that are put where the user has room for them.

Memory that nobody has touched yet is slow to write: on a virtual machine a gigabyte of it can take longer than a
network takes to bring one. Who fetches again and again gives the same tensor each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor


def memory_of(out: Tensor, values: int) -> memoryview:
    """The bytes of a tensor into which one value is to be received.

    Args:
        values: how many are asked for.

    Raises:
        BadRequest: there are several, or the tensor is not on the host, contiguous and off the graph.
    """
    import torch

    if values != 1:
        raise BadRequest(f"out= is for one value, not {values}.", "Fetch them one by one.")
    if not isinstance(out, torch.Tensor) or not out.is_contiguous() or out.device.type != "cpu":
        raise BadRequest("out= is no contiguous tensor on the CPU.", "Give torch.empty(shape).")
    if out.requires_grad:
        raise BadRequest("out= requires a gradient.", "Give out.detach().")
    return out.view(-1).view(torch.uint8).numpy().data if out.numel() else memoryview(b"")


def put(value: Any, out: Tensor) -> Tensor:
    """The tensor that was given, with the value in it, wherever that was received.

    Raises:
        BadRequest: the value is another one than the tensor has room for.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise BadRequest(f"The value is a {type(value).__name__}, no tensor.", "Leave out out=.")
    if value.shape != out.shape or value.dtype != out.dtype:
        raise BadRequest(
            f"The value is {list(value.shape)} {value.dtype}, out= is {list(out.shape)} {out.dtype}.",
            "Give a tensor of its shape and dtype.",
        )
    if value.numel() and value.data_ptr() != out.data_ptr():
        out.copy_(value)
    return out
