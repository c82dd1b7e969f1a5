"""Where a point is inside a model.

A family file says of each point which *place* it is. A place knows how to put a visit there for the
length of one request and how to take it away again: a hook on a side of a module, or, for values
that never leave a module (the denominator of a norm, one head's output), a replacement of its forward
that computes the same thing in steps. Nothing stays behind when the request is over.

A visit is ``visit(value) -> value | None``; None says that the value was left as it is (or edited in
place).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from garcon_backend.distributed.collectives import Ranks
from garcon_backend.hook_sites.views import Frame, View
from garcon_jupyter.errors import PointUnavailable

Visit = Callable[[Tensor], Tensor | None]
Remove = Callable[[], None]

WHOLE = View()


class Pass(Frame, Protocol):
    """What places need of the running request."""

    token_index: Tensor | None
    """While an expert is visited: which tokens were routed to it."""
    caching: bool
    """Whether keys go through a cache, which then visits them."""

    @property
    def ranks(self) -> Ranks:
        """The tensor-parallel group, for modules that are cut over it."""
        ...


class Place:
    """A place, with ``{i}`` and ``{e}`` as holes in its path."""

    path: str

    def at(self, layer: int | None, expert: int | None) -> str:
        """The dotted path of the module for one layer."""
        return self.path.replace("{i}", str(layer)).replace("{e}", str(expert))

    def install(
        self, module: nn.Module, run: Pass, visit: Visit, expert: int | None = None
    ) -> Remove:
        """Let `visit` see the value in every forward of `module` until the result is called.

        Args:
            module: the module at the path.
            run: the running pass.
            visit: is given the value; what it returns, if not None, replaces it.
            expert: whose value, where one module holds all experts.

        Returns:
            What takes it away again, whole.
        """
        raise NotImplementedError


def _applied(value: Tensor, view: View, run: Pass, visit: Visit) -> Tensor | None:
    """Visit what a view shows of a tensor; the changed tensor, or None where nothing changed."""
    shown = view.extract(value, run)
    changed = visit(shown)
    return None if changed is None else view.insert(value, changed, run)


def _first_tensor(candidates: Iterable[tuple[Any, Any]], what: str) -> Any:
    """The key of the first tensor among (key, value)."""
    for key, value in candidates:
        if isinstance(value, Tensor):
            return key
    raise PointUnavailable(f"{what} holds no tensor.", "Probe a module inside it.")


@dataclass(frozen=True)
class Output(Place):
    """The output of a module, or one item of it where it puts out several: the first tensor,
    unless said otherwise."""

    path: str
    view: View = WHOLE
    item: int | None = None

    def install(
        self, module: nn.Module, run: Pass, visit: Visit, expert: int | None = None
    ) -> Remove:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, Tensor):
                return _applied(output, self.view, run, visit)
            named = isinstance(output, dict)  # as transformers' own output classes are
            items = output if named else dict(enumerate(output or ()))
            item = self.item
            if item is None:
                item = _first_tensor(items.items(), f"The output of {type(module).__name__}")
            new = _applied(items[item], self.view, run, visit)
            if new is None:
                return None
            if named:
                output[item] = new
                return output
            return type(output)([*output[:item], new, *output[item + 1 :]])

        return module.register_forward_hook(hook).remove


@dataclass(frozen=True)
class Input(Place):
    """The first tensor that a module is called with.

    Attributes:
        aside: the model goes on using the same tensor beside the module, and a change is for the
            module alone: the visit is given a copy.
    """

    path: str
    view: View = WHOLE
    aside: bool = False

    def install(
        self, module: nn.Module, run: Pass, visit: Visit, expert: int | None = None
    ) -> Remove:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
            key = _first_tensor(given.items(), f"The input of {type(module).__name__}")
            value = given[key].clone() if self.aside else given[key]
            new = _applied(value, self.view, run, visit)
            if new is None:
                return None
            if isinstance(key, str):
                return args, {**kwargs, key: new}
            return (*args[:key], new, *args[key + 1 :]), kwargs

        return module.register_forward_pre_hook(hook, with_kwargs=True).remove


@dataclass(frozen=True)
class SharedInput(Place):
    """The input of a module when the model goes on using the same tensor beside the module.

    The residual stream between attention and MLP has no module of its own: it enters the second
    norm and, as the same tensor, the next addition. A changed value is therefore written into that
    tensor, which reaches both; on the autograd graph its gradient is then that of both uses.
    """

    path: str

    def install(
        self, module: nn.Module, run: Pass, visit: Visit, expert: int | None = None
    ) -> Remove:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            shared = args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor))
            # In grad mode the visit must hold the value apart, or writing would destroy it.
            value = shared.clone() if torch.is_grad_enabled() else shared
            new = visit(value)
            if new is not None and new is not shared:
                shared.copy_(new)

        return module.register_forward_pre_hook(hook, with_kwargs=True).remove


@dataclass(frozen=True)
class LogitsOf(Place):
    """The logits in the output object of the whole model."""

    path: str = ""

    def install(
        self, module: nn.Module, run: Pass, visit: Visit, expert: int | None = None
    ) -> Remove:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            new = visit(output.logits)
            if new is not None:
                output.logits = new
            return output

        return module.register_forward_hook(hook).remove


StagedForward = Callable[[nn.Module, dict[str, Visit], Pass, tuple[Any, ...], dict[str, Any]], Any]
"""A module's forward in steps: (module, visits by part, run, args, kwargs) -> its usual output."""


@dataclass(frozen=True)
class Inside(Place):
    """A value inside a module, reached by running the module's forward in steps.

    Attributes:
        steps: the forward in steps.
        part: which value; with ``{e}`` as a hole for the expert.
    """

    path: str
    steps: StagedForward = field(repr=False)
    part: str

    def install(
        self, module: nn.Module, run: Pass, visit: Visit, expert: int | None = None
    ) -> Remove:
        part = self.part.replace("{e}", str(expert))
        visits: dict[str, Visit] = module.__dict__.setdefault("_garcon_visits", {})
        visits[part] = visit
        if len(visits) == 1:
            former = module.__dict__.get("forward")
            module.__dict__["_garcon_former"] = former

            def forward(*args: Any, **kwargs: Any) -> Any:
                return self.steps(module, visits, run, args, kwargs)

            module.__dict__["forward"] = forward

        def remove() -> None:
            visits.pop(part, None)
            if not visits and "_garcon_former" in module.__dict__:
                former = module.__dict__.pop("_garcon_former")
                if former is None:
                    del module.__dict__["forward"]
                else:
                    module.__dict__["forward"] = former
                del module.__dict__["_garcon_visits"]

        return remove


@dataclass(frozen=True)
class InAttention(Place):
    """A value inside the attention function, which all families share (see ``attention``)."""

    path: str
    part: str

    def install(
        self, module: nn.Module, run: Pass, visit: Visit, expert: int | None = None
    ) -> Remove:
        taps: dict[str, Any] = module.__dict__.setdefault("_garcon_attention", {})
        taps[self.part] = visit
        taps["run"] = run

        def remove() -> None:
            taps.pop(self.part, None)
            if set(taps) <= {"run"}:
                module.__dict__.pop("_garcon_attention", None)

        return remove


def visited(visits: dict[str, Visit], part: str, value: Tensor) -> Tensor:
    """Visit a part if it is probed; the value to go on with."""
    visit = visits.get(part)
    new = visit(value) if visit else None
    return value if new is None else new
