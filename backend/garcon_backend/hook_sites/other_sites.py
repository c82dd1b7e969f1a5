"""Sites that few architectures need: what is multiplied or clipped on the way, called twice, or elsewhere by kind of layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from garcon_backend.hook_sites.sites import WHOLE, HookSite, Pass, Remove, Visitor, applied, seen
from garcon_backend.hook_sites.views import PointView


def _inside(path: str, of: str) -> str:
    return f"{path}.{of}" if of else path


@dataclass(frozen=True)
class ByKind(HookSite):
    """A point that is somewhere else in layers of another kind, or in layers of some kinds alone.

    Attributes:
        sites: path of a module that only layers of one kind have, and the site in these; the first that a layer has
            decides.
    """

    sites: tuple[tuple[str, HookSite], ...]

    @property
    def path(self) -> str:  # type: ignore[override]
        """Of the first kind."""
        return self.sites[0][1].path

    def in_layer(self, layer: int | None, has: Callable[[str], bool]) -> HookSite | None:
        return next(
            (site for told, site in self.sites if has(told.replace("{i}", str(layer)))), None
        )

    def told(self) -> str:
        return "; or ".join(dict.fromkeys(site.told() for _, site in self.sites))

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        raise NotImplementedError("the site of a layer is installed")


@dataclass(frozen=True)
class ScaledOutput(HookSite):
    """The output of a module times a number of its configuration: what is added, where the model multiplies on the way.

    Attributes:
        factor: its name in the module's configuration, or in the module where it keeps none; or how it follows from
            the configuration.
        of: the module inside this one whose output it is; "" for this one's own.
    """

    path: str
    factor: str | Callable[[Any], float]
    of: str = ""

    def told(self) -> str:
        factor = self.factor if isinstance(self.factor, str) else "a factor of its configuration"
        return f"the output of {_inside(self.path, self.of)} × {factor}"

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        config: Any = getattr(module, "config", module)
        said = self.factor
        factor = float(getattr(config, said) if isinstance(said, str) else said(config))

        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            put_out = output if isinstance(output, Tensor) else output[0]
            new = visit(put_out * factor)
            if new is None:
                return None
            back = new / factor
            if not torch.is_grad_enabled():  # to the last bit, where nothing was changed
                back = torch.where(new == put_out * factor, put_out, back)
            return back if isinstance(output, Tensor) else (back, *output[1:])

        return module.get_submodule(self.of).register_forward_hook(hook).remove


@dataclass(frozen=True)
class ClippedOutput(HookSite):
    """The output of a projection within the bounds that the module around it clips it to, as that module goes on with it.

    What an edit puts beyond the bounds is clipped in its turn. While the module runs it clips nothing itself, and all that it would clip is
    clipped here: a value at a bound would else be clipped twice, and since torch 2.14 what is clipped at its bound has no gradient
    (findings/clamp_at_its_bound.sh).

    Attributes:
        path: of the module that clips.
        of: the projection inside it.
        bound: where the module has the number, dotted; it may be None there.
        others: the other projections that it clips.
    """

    path: str
    of: str
    bound: str
    view: PointView = WHOLE
    others: tuple[str, ...] = ()

    def told(self) -> str:
        return seen(
            self.view, f"the output of {_inside(self.path, self.of)}, clipped to ±{self.bound}"
        )

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        bound = attrgetter(self.bound)(module)
        inside, name = self.bound.rpartition(".")[::2]
        holder = attrgetter(inside)(module) if inside else module

        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            clipped = _within(output, bound)
            new = applied(clipped, self.view, the_pass, visit)
            return _within(clipped if new is None else new, bound)

        def clip(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            return _within(output, bound)

        hooked = [module.get_submodule(self.of).register_forward_hook(hook)]
        if bound is not None:
            hooked += [
                module.get_submodule(each).register_forward_hook(clip) for each in self.others
            ]
            hooked.append(module.register_forward_pre_hook(lambda *_: setattr(holder, name, None)))
            put_back = module.register_forward_hook(
                lambda *_: setattr(holder, name, bound), always_call=True
            )
            hooked.append(put_back)

        def remove() -> None:
            for handle in hooked:
                handle.remove()

        return remove


def _within(value: Tensor, bound: float | None) -> Tensor:
    """A value within bounds, with the gradient of what is within them or at one; what is there already is not clipped anew."""
    if bound is None:
        return value
    beyond = value.abs() > bound
    return torch.where(beyond, value.detach().clamp(-bound, bound), value)


@dataclass(frozen=True)
class SecondCall(HookSite):
    """A site of a module that a forward calls twice, of which it sees the second call."""

    path: str
    site: HookSite

    def told(self) -> str:
        return f"{self.site.told()}, when it is called a second time"

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        calls = itertools.count(1)

        def second(value: Tensor) -> Tensor | None:
            return None if next(calls) % 2 else visit(value)

        return self.site.install(module, the_pass, second, expert)
