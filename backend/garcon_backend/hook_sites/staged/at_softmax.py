"""Attention classes of their own, looked into where they take a softmax.

Older architectures compute attention inside a class, not by a function that could be another: what stands between their
projections never leaves the forward. But each takes one softmax in it, of what the table calls scores, and goes on with the
pattern. The forward here is the class's own; that one call is met on its way (``torch.overrides``).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from garcon_backend.hook_sites.sites import Pass, Visitor, visited

SOFTMAX = (nn.functional.softmax, torch.softmax, Tensor.softmax)
"""The ways to write it."""


def at_softmax(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
) -> Any:
    """The forward of an attention class; parts are ``scores`` and ``pattern`` [b, H, p_q, p_k]."""
    inner = module.__dict__.get("_garcon_former")
    with _AtSoftmax(visits, type(module).__module__):
        if inner is not None:
            return inner(*args, **kwargs)
        return type(module).forward(module, *args, **kwargs)


class _AtSoftmax(TorchFunctionMode):
    """Visits what a softmax is given and what it gives, where the code of one module calls it.

    Probes of projections run inside the same forward, and may take a softmax of their own.
    """

    def __init__(self, visits: dict[str, Visitor], code: str) -> None:
        super().__init__()
        self.visits, self.code = visits, code

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in SOFTMAX or _caller() != self.code:
            return func(*args, **(kwargs or {}))
        scores = visited(self.visits, "scores", args[0])
        return visited(self.visits, "pattern", func(scores, *args[1:], **(kwargs or {})))


def _caller() -> str:
    """The module whose code is running, but for torch's and this one."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != __name__ and name.partition(".")[0] != "torch":
            return name
        frame = frame.f_back
    return ""
