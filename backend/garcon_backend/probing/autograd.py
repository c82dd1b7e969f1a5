"""What a visit leaves in the autograd graph, alike on every rank."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from garcon_backend.probing.user_calls import Point


class Backwards(Protocol):
    """Who handles the gradient that arrives at a visit."""

    def backward_at(self, visit: Visit, gradient: Tensor) -> Tensor:
        """The gradient that flows on to what was before the visit, given the one that arrived there."""
        ...


class Visit:
    """One visit of a point in grad mode: what its backward needs."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self.token_index: Tensor | None = None
        self.enter: Any = None
        self.y: Tensor | None = None
        self.gradient_in: Tensor | None = None
        self.changed = False
        self.joint = False
        self.reach: set[Any] = set()


class Enter(torch.autograd.Function):
    """The value as the user sees it; catches the gradient that flows back into it."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, visit: Visit, box: list[Tensor]) -> Tensor:
        ctx.visit = visit
        return box[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        had = ctx.visit.gradient_in
        ctx.visit.gradient_in = gradient if had is None else had + gradient
        return None, None, None


class Graft(torch.autograd.Function):
    """The visit in the model's graph, alike on every rank. The anchor keeps it there when all
    weights are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, new: Tensor | None, visit: Visit, probed: Backwards
    ) -> Tensor:
        ctx.visit, ctx.probed = visit, probed
        return (x if new is None else new).detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.probed.backward_at(ctx.visit, gradient), None, None, None, None


class Tied(torch.autograd.Function):
    """A value as it is, whose backward comes by others too, with no gradient: visits that nothing goes on from."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *others: Tensor) -> Tensor:
        ctx.like = [(other.shape, other.dtype, other.device) for other in others]
        return value.detach()  # never a view: as above

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        nothing = [torch.zeros(shape, dtype=dtype, device=on) for shape, dtype, on in ctx.like]
        return gradient, *nothing


def nodes_behind(value: Tensor) -> set[Any]:
    """All autograd nodes behind a value."""
    seen: set[Any] = set()
    todo = [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return seen
