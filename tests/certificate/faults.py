"""Families that are wrong in one place: what a certificate must find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.execution.launch_check.check import UNCHECKED
from garcon_backend.hook_sites import attention
from garcon_backend.hook_sites.sites import HookSite, Pass, Remove, Visitor
from garcon_backend.in_process.opening import ModelHere
from garcon_backend.models import loading
from garcon_backend.models.binding import bind
from garcon_backend.models.families import FAMILIES
from garcon_backend.models.family import Family, Weight
from garcon_backend.probing.rank import Rank

Fault = Callable[[Family], Family]


class Loaded:
    """A checkpoint in memory, to be looked at through any family."""

    def __init__(self, path: Path) -> None:
        attention.register()
        self.path, self.model = path, loading.load(path, Mesh.solo(), None)
        config: Any = self.model.config
        self.family = FAMILIES[config.model_type]

    def through(self, fault: Fault | None = None) -> ModelHere:
        """The model as its family shows it, with a fault."""
        rank = Rank.around(self.model, Mesh.solo(), attended=True)
        if fault is not None:
            rank = replace(rank, bound=bind(self.model, fault(self.family), self.model.config))
        return ModelHere(rank, self.path.name, str(self.path), UNCHECKED)


# -- faults of a declaration ---------------------------------------------------------------------


def site(template: str, new: Callable[[HookSite], HookSite]) -> Fault:
    """Another site for a point."""

    def fault(family: Family) -> Family:
        return replace(family, points={**family.points, template: new(family.points[template])})

    return fault


def field(template: str, **changed: Any) -> Fault:
    """The same site, with something of its declaration changed."""
    return site(template, lambda old: replace(old, **changed))  # type: ignore[type-var]


def swapped(one: str, other: str) -> Fault:
    """Two points, each where the other is."""

    def fault(family: Family) -> Family:
        points = family.points
        return replace(family, points={**points, one: points[other], other: points[one]})

    return fault


def instead(template: str, other: str) -> Fault:
    """A point where another one is."""
    return lambda family: replace(family, points={**family.points, template: family.points[other]})


def weight(template: str, new: Callable[[Weight], Weight]) -> Fault:
    """Another reading of a parameter."""

    def fault(family: Family) -> Family:
        parameters = {**family.parameters, template: new(family.parameters[template])}
        return replace(family, parameters=parameters)

    return fault


def weights_swapped(one: str, other: str) -> Fault:
    """Two parameters, each where the other is."""

    def fault(family: Family) -> Family:
        of = family.parameters
        return replace(family, parameters={**of, one: of[other], other: of[one]})

    return fault


def without_weight(template: str) -> Fault:
    """A parameter that is not declared."""
    return lambda family: replace(
        family, parameters={name: w for name, w in family.parameters.items() if name != template}
    )


# -- faults of a site ----------------------------------------------------------------------------

Wrong = Callable[[Tensor, Visitor], Tensor | None]
"""What becomes of a value and of who visits it."""


@dataclass(frozen=True)
class WrongSite(HookSite):
    """A site at which something goes wrong."""

    right: HookSite
    wrong: Wrong
    path: str = ""

    def at(self, layer: int | None, expert: int | None) -> str:
        return self.right.at(layer, expert)

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        return self.right.install(module, the_pass, lambda x: self.wrong(x, visit), expert)


def going_wrong(template: str, wrong: Wrong) -> Fault:
    """A point at whose site something goes wrong."""
    return site(template, lambda old: WrongSite(old, wrong, old.path))


def seen(there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Wrong:
    """The point's value is shown as something else; what comes back is turned back."""

    def wrong(x: Tensor, visit: Visitor) -> Tensor | None:
        new = visit(there(x))
        return None if new is None else back(new)

    return wrong


def edit_lost(x: Tensor, visit: Visitor) -> Tensor | None:
    """The model goes on with what it had."""
    new = visit(x.clone())
    return new if torch.is_grad_enabled() else None


def edit_of_the_first_token(x: Tensor, visit: Visitor) -> Tensor | None:
    """Only the first token of an edit reaches the model."""
    new = visit(x.clone())
    if new is None or torch.is_grad_enabled():
        return new
    return torch.cat([new[:, :1], x[:, 1:]], 1)


def edit_doubled(x: Tensor, visit: Visitor) -> Tensor | None:
    """The model goes on with twice the change."""
    new = visit(x.clone())
    return new if new is None or torch.is_grad_enabled() else 2 * new - x


def gradient_cut(x: Tensor, visit: Visitor) -> Tensor | None:
    """What comes before the point is given no gradient."""
    return visit(x.detach())


def gradient_unseen(x: Tensor, visit: Visitor) -> Tensor | None:
    """No gradient comes to the point."""
    if torch.is_grad_enabled():
        visit(x.detach())
        return None
    return visit(x)


def gradient_times(factor: float) -> Wrong:
    """The gradient at the point, and of what comes before it, times a number."""

    def wrong(x: Tensor, visit: Visitor) -> Tensor | None:
        new = visit(x)
        if new is None or not torch.is_grad_enabled():
            return new
        return factor * new + (1 - factor) * new.detach()

    return wrong


def half_zero(x: Tensor) -> Tensor:
    """The second half of what is last is not there."""
    return torch.cat([x[..., : x.shape[-1] // 2], torch.zeros_like(x[..., x.shape[-1] // 2 :])], -1)


SEEN: dict[str, Wrong] = {
    "unscaled": seen(lambda x: 2 * x, lambda x: x / 2),
    "negated": seen(lambda x: -x, lambda x: -x),
    "a token late": seen(lambda x: x.roll(1, 1), lambda x: x.roll(-1, 1)),
    "half a shard": seen(half_zero, lambda x: x),
    "rounded": seen(lambda x: x.bfloat16().to(x.dtype), lambda x: x),
    "edit lost": edit_lost,
    "edit of the first token": edit_of_the_first_token,
    "edit doubled": edit_doubled,
    "gradient cut": gradient_cut,
    "gradient unseen": gradient_unseen,
    "gradient doubled": gradient_times(2.0),
    "gradient negated": gradient_times(-1.0),
}
"""What goes wrong at any point."""

HEADS: dict[str, Wrong] = {
    "heads in another order": seen(lambda x: x.flip(2), lambda x: x.flip(2)),
    "dimensions in another order": seen(lambda x: x.flip(3), lambda x: x.flip(3)),
    "first head everywhere": seen(lambda x: x[:, :, :1].expand_as(x).clone(), lambda x: x),
}
"""What goes wrong at a point of heads [b, p, head, d]."""

PAIRS: dict[str, Wrong] = {
    "queries and keys exchanged": seen(lambda x: x.transpose(2, 3), lambda x: x.transpose(2, 3)),
    "heads in another order": seen(lambda x: x.flip(1), lambda x: x.flip(1)),
}
"""What goes wrong at a point [b, head, query, key]."""
