"""Where a point is inside a model.

A family file says of each point which *site* it is. A site knows how to put a visit there for the
length of one request and how to take it away again: a hook on a side of a module, or, for values
that never leave a module (the denominator of a norm, one head's output), a replacement of its forward
that computes the same thing in steps. Nothing stays behind when the request is over.

A visit is ``visit(value) -> value | None``; None says that the value was left as it is (or edited in
place).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from garcon_backend.distributed.collectives import Ranks
from garcon_backend.hook_sites.views import Frame, PointView
from garcon_jupyter.errors import PointUnavailable

Visitor = Callable[[Tensor], Tensor | None]
Remove = Callable[[], None]

WHOLE = PointView()


class Pass(Frame, Protocol):
    """What sites need of the running request."""

    token_index: Tensor | None
    """While an expert is visited: which tokens were routed to it."""
    caching: bool
    """Whether keys go through a cache, which then visits them."""

    @property
    def ranks(self) -> Ranks:
        """The tensor-parallel group, for modules that are cut over it."""
        ...


class HookSite(ABC):
    """Where a value is: a module and a side of it, with ``{i}`` and ``{e}`` as holes in its path.

    Attributes:
        path: of the module.
        beside: path of another module, without which a layer has no such value; "" where the first says it all.
    """

    path: str
    beside: str = ""

    def at(self, layer: int | None, expert: int | None) -> str:
        """The dotted path of the module for one layer."""
        return self.path.replace("{i}", str(layer)).replace("{e}", str(expert))

    def in_layer(self, layer: int | None, has: Callable[[str], bool]) -> HookSite | None:
        """The site of one layer, None where layers of its kind have none.

        Args:
            layer: its index; None for what is of no layer.
            has: whether the model has a module of that dotted path.
        """
        return self

    def told(self) -> str:
        """Where the value is and how it is computed, in words."""
        return f"inside {self.path}"

    @abstractmethod
    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        """Let a visitor see the value in every forward from now on.

        Called on every rank that holds the module, before the pass of one request begins; points of one module in
        the order of the table.

        Args:
            module: the one at :meth:`at`.
            the_pass: of the request.
            visit: called once for each forward of the module, with the whole tensor of this rank.
            expert: which, where the point is one of several experts'.

        Returns:
            What takes it away again, called when the request is over, however it ended. The module must then be as
            it was.
        """


def seen(view: PointView, where: str) -> str:
    """What a view shows of a tensor that is somewhere, in words."""
    return f"{view.told} {where}".strip()


def applied(value: Tensor, view: PointView, the_pass: Pass, visit: Visitor) -> Tensor | None:
    """Visit what a view shows of a tensor; the changed tensor, or None where nothing changed."""
    shown = view.extract(value, the_pass)
    changed = visit(shown)
    return None if changed is None else view.insert(value, changed, the_pass)


def _first_tensor(candidates: Iterable[tuple[Any, Any]], what: str) -> Any:
    """The key of the first tensor among (key, value)."""
    for key, value in candidates:
        if isinstance(value, Tensor):
            return key
    raise PointUnavailable(f"{what} holds no tensor.", "Probe a module inside it.")


@dataclass(frozen=True)
class Output(HookSite):
    """The output of a module, or one item of it where it puts out several: the first tensor,
    unless said otherwise."""

    path: str
    view: PointView = WHOLE
    item: int | None = None

    def told(self) -> str:
        item = "" if self.item is None else f"item {self.item} of "
        return seen(self.view, f"{item}the output of {self.path}")

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, Tensor):
                return applied(output, self.view, the_pass, visit)
            named = isinstance(output, dict)  # as transformers' own output classes are
            items = output if named else dict(enumerate(output or ()))
            item = self.item
            if item is None:
                item = _first_tensor(items.items(), f"The output of {type(module).__name__}")
            new = applied(items[item], self.view, the_pass, visit)
            if new is None:
                return None
            if named:
                output[item] = new
                return output
            return type(output)([*output[:item], new, *output[item + 1 :]])

        return module.register_forward_hook(hook).remove


@dataclass(frozen=True)
class Input(HookSite):
    """A tensor that a module is called with: the first one, unless said otherwise.

    Attributes:
        position: of which argument, as the module is called.
        aside: the model goes on using the same tensor beside the module, and a change is for the
            module alone: the visit is given a copy.
    """

    path: str
    view: PointView = WHOLE
    aside: bool = False
    position: int | None = None

    def told(self) -> str:
        return seen(self.view, f"the input of {self.path}")

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
            key: Any = self.position
            if key is None:
                key = _first_tensor(given.items(), f"The input of {type(module).__name__}")
            value = given[key].clone() if self.aside else given[key]
            new = applied(value, self.view, the_pass, visit)
            if new is None:
                return None
            if isinstance(key, str):
                return args, {**kwargs, key: new}
            return (*args[:key], new, *args[key + 1 :]), kwargs

        return module.register_forward_pre_hook(hook, with_kwargs=True).remove


@dataclass(frozen=True)
class SharedInput(HookSite):
    """The input of a module when the model goes on using the same tensor beside the module.

    The residual stream between attention and MLP has no module of its own: it enters the second
    norm and, as the same tensor, the next addition. A changed value is therefore written into that
    tensor, which reaches both; on the autograd graph its gradient is then that of both uses.
    """

    path: str
    view: PointView = WHOLE

    def told(self) -> str:
        return seen(self.view, f"the input of {self.path}, and what goes past it")

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            shared = args[0] if args else next(v for v in kwargs.values() if isinstance(v, Tensor))
            # In grad mode the visit must hold the value apart, or writing would destroy it.
            value = shared.clone() if torch.is_grad_enabled() else shared
            new = applied(value, self.view, the_pass, visit)
            if new is not None and new is not shared:
                shared.copy_(new)

        return module.register_forward_pre_hook(hook, with_kwargs=True).remove


@dataclass(frozen=True)
class LogitsOf(HookSite):
    """The logits in the output object of the whole model."""

    path: str = ""

    def told(self) -> str:
        return "the logits that the model puts out"

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            new = visit(output.logits)
            if new is not None:
                output.logits = new
            return output

        return module.register_forward_hook(hook).remove


StagedForward = Callable[
    [nn.Module, dict[str, Visitor], Pass, tuple[Any, ...], dict[str, Any]], Any
]
"""A module's forward in steps: (module, visits by part, run, args, kwargs) -> its usual output."""


@dataclass(frozen=True)
class Inside(HookSite):
    """A value inside a module, reached by running the module's forward in steps.

    Attributes:
        steps: the forward in steps.
        part: which value; with ``{e}`` as a hole for the expert.
        beside: as of every site.
    """

    path: str
    steps: StagedForward = field(repr=False)
    part: str
    beside: str = ""

    @property
    def how(self) -> str:
        """How the module computes what it does: the first sentence of its forward in steps."""
        return " ".join((self.steps.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")

    def told(self) -> str:
        return f"inside {self.path}: {self.how}".rstrip(": ")

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        part = self.part.replace("{e}", str(expert))
        visits: dict[str, Visitor] = module.__dict__.setdefault("_garcon_visits", {})
        visits[part] = visit
        if len(visits) == 1:
            former = module.__dict__.get("forward")
            module.__dict__["_garcon_former"] = former

            def forward(*args: Any, **kwargs: Any) -> Any:
                return self.steps(module, visits, the_pass, args, kwargs)

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
class InAttention(HookSite):
    """A value inside the attention function, which all families share (see ``attention``).

    Attributes:
        needs: path of a module without which a layer lacks the point.
    """

    path: str
    part: str
    needs: str | None = None

    def told(self) -> str:
        return f"inside the attention function that {self.path} calls"

    def install(
        self, module: nn.Module, the_pass: Pass, visit: Visitor, expert: int | None = None
    ) -> Remove:
        taps: dict[str, Any] = module.__dict__.setdefault("_garcon_attention", {})
        taps[self.part] = visit
        taps["run"] = the_pass

        def remove() -> None:
            taps.pop(self.part, None)
            if set(taps) <= {"run"}:
                module.__dict__.pop("_garcon_attention", None)

        return remove


def visited(visits: dict[str, Visitor], part: str, value: Tensor) -> Tensor:
    """Visit a part if it is probed; the value to go on with."""
    visit = visits.get(part)
    new = visit(value) if visit else None
    return value if new is None else new
