"""What a probe hands back, made a tensor of the model's own.

User code may return anything that calls itself a tensor, and may go on holding what it returned or was
given: in a global, on a thread, in a container of its own. The model goes on with a plain tensor that nobody
else holds, so that a change later on reaches nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from garcon_backend.save_contexts.save_context import uses
from garcon_jupyter.errors import WrongValue

_REMEDY = "Return a plain tensor, or None to leave the value as it is."


def plain(result: Any) -> Any:
    """A probe's result as a plain tensor; what is none as it is.

    Raises:
        WrongValue: a tensor whose class has operations of its own, or one of nested rows.
    """
    if not isinstance(result, Tensor):
        return result
    kind = type(result)
    if kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ or result.is_nested:
        what = "nested tensor" if result.is_nested else kind.__name__
        raise WrongValue(f"A probe returned a {what}, which no model can go on with.", _REMEDY)
    if kind is not Tensor:
        result = result.as_subclass(Tensor)
    return result.clone() if result.is_inference() else result


def _alone() -> int:
    fresh = torch.empty(1)
    return uses(fresh)


ALONE = _alone()
"""Uses of a tensor that one name holds, and nobody else."""


def unshared(result: Any, value: Tensor, users: int) -> Any:
    """What the model goes on with: a copy, where user code kept what it was given or returned.

    Args:
        result: what it returned; None for nothing.
        value: what it was given.
        users: how often `value` was used before, as the caller counted it.
    """
    if result is None or result is value:
        names = 1 if result is None else 3  # of this function, and the caller's own of the result
        return value.clone() if uses(value) > users + names else result
    if not isinstance(result, Tensor) or result.layout is not torch.strided:
        return result  # which is no right answer, as will be said
    return result.clone() if uses(result) > ALONE + 1 else result
