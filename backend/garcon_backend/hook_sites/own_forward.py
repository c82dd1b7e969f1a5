"""A module's own forward, with visits at the functions that it calls.

What mixes tokens without attending computes in one forward what has no module of its own: a short convolution whose
weights are read from a module that is never called, a recurrence that keeps a state. transformers gives each of these a
function, the same for many architectures, and looks it up by name. So the forward is run as it is written, with
these names meaning functions that visit what they are given and what they put out: the same numbers, without a cache, in a
prefill and in each step of a generation, whichever kernel computes them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from transformers import Cache

from garcon_backend.hook_sites.sites import Pass, StagedForward, Visitor, visited
from garcon_backend.hook_sites.views import PointView
from garcon_jupyter.errors import PointUnavailable


@dataclass(frozen=True)
class At:
    """A value at the call of a function.

    Attributes:
        argument: its name among the function's; None for what the function puts out, of several values the first.
        view: shows the point's value in it.
    """

    argument: str | None = None
    view: PointView = PointView()  # noqa: RUF009 - it holds nothing


Calls = Mapping[str, Mapping[str, At]]
"""Of each function by its name the parts that it is given or puts out, in order."""

CONV_IN = "conv_in"
"""The part that a cache keeps: it is visited on its way there, not once more with what was kept before it."""


def own_forward(calls: Calls, gate: str | None = None) -> StagedForward:
    """The forward in steps of modules that call these functions, each part of them once.

    Args:
        calls: functions that a module does not call say nothing.
        gate: name of the argument by which a function is given part ``gate``, that it multiplies its output with after
            a SiLU. It is then done here, so that ``state_out`` can be seen before.
    """

    def steps(
        module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: Any
    ) -> Any:
        run = _Run(calls, gate, visits, the_pass)
        out = run.of(module, args, kwargs)
        if unseen := set(visits) - run.seen:
            raise PointUnavailable(
                f"{type(module).__name__} did not come to {' and '.join(sorted(unseen))} in this pass.",
                "This version of transformers computes it in another way; probe the module's input or output.",
            )
        return out

    return steps


@dataclass
class _Run:
    """One run of a module's own forward."""

    calls: Calls
    gate: str | None
    visits: dict[str, Visitor]
    the_pass: Pass

    def __post_init__(self) -> None:
        self.seen: set[str] = set()

    def of(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        own = inspect.unwrap(type(module).forward)
        assert isinstance(own, FunctionType)
        known = own.__globals__
        meant: dict[str, Any] = {}
        for name in self.calls:
            first, *inner = name.split(".")
            if first in known:
                meant[first] = self._meant(name, known[first], inner)
        forward = FunctionType(
            own.__code__, {**known, **meant}, own.__name__, own.__defaults__, own.__closure__
        )
        forward.__kwdefaults__ = own.__kwdefaults__
        args = tuple(self._keeping(value) for value in args)
        return forward(module, *args, **{name: self._keeping(kwargs[name]) for name in kwargs})

    def _meant(self, name: str, known: Any, inner: list[str]) -> Any:
        """What a name is to mean; where it is one of a package, the package with another one in its place."""
        if not inner:
            return self._visiting(name, known)
        return _Other(known, inner[0], self._meant(name, getattr(known, inner[0]), inner[1:]))

    def _keeping(self, value: Any) -> Any:
        mine = isinstance(value, Cache) and CONV_IN in self.visits
        return _KeepsWhatIsVisited(value, self) if mine else value

    def part(self, name: str, at: At, value: Tensor) -> Tensor:
        """What goes on instead of a value, after the visit of the part that it holds."""
        if name not in self.visits or (name == CONV_IN and name in self.seen):
            return value
        self.seen.add(name)
        shown = at.view.extract(value, self.the_pass)
        new = visited(self.visits, name, shown)
        return value if new is shown else at.view.insert(value, new, self.the_pass).contiguous()

    def _visiting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        parts = self.calls[name]
        order = list(inspect.signature(function).parameters)

        def call(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(order, args, strict=False)) | kwargs
            for part, at in parts.items():
                if at.argument is not None and given.get(at.argument) is not None:
                    given[at.argument] = self.part(part, at, given[at.argument])
            gate = given.get(self.gate) if self.gate else None
            if gate is not None:
                given[str(self.gate)] = None
            beside = [
                given.pop(parameter) for parameter in order[: len(args)] if parameter in given
            ]
            out = function(*beside, **given)
            several = isinstance(out, tuple)
            value = out[0] if several else out
            for part, at in parts.items():
                if at.argument is None:
                    value = self.part(part, at, value)
            if gate is not None:
                value = value * nn.functional.silu(gate)
            return (value, *out[1:]) if several else value

        return call


class _Other:
    """A package in which one name means something else."""

    def __init__(self, known: Any, name: str, meant: Any) -> None:
        self._known = known
        setattr(self, name, meant)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._known, name)


class _KeepsWhatIsVisited:
    """A cache that is given what a short convolution reads after it was visited."""

    def __init__(self, cache: Cache, run: _Run) -> None:
        self._cache, self._run = cache, run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def update_conv_state(self, conv_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        at = next(parts[CONV_IN] for parts in self._run.calls.values() if CONV_IN in parts)
        kept = self._run.part(CONV_IN, at, conv_states)
        return self._cache.update_conv_state(kept, *args, **kwargs)
