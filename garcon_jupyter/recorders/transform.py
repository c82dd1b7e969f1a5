"""Recording what a function makes of a point's tensor: directions, latents, whatever has one value for each token and unit.

    TopK(10).of(lambda tensor: tensor @ directions, units=["Paris", "London"])

At every token t the recorder is shown ``fn(tensor)[t]``, of so many units, in place of ``tensor[t]``. So any recorder
works on them as on the units of a point, in probes, runs and the atlas. The function sees the whole tensor of the point,
of all rows and all shards, once for each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe
from garcon_jupyter.recorders.base import Recorder, Together
from garcon_jupyter.recorders.observing import Seen, seen
from garcon_jupyter.recorders.states import State


@dataclass(frozen=True)
class Transform:
    """A function of a point's tensor whose values are recorded in place of the tensor's own.

    Attributes:
        fn: ``fn(tensor)``, or ``fn(tensor, params)`` where it asks for parameters; returns [b, p, units], or of an
            expert's point [n, units]. Where there are more axes between, each unit counts for each of them.
        units: size of the last axis that it returns.
        params: names of the model's parameters that it is given, by name.
        labels: what to call the units; () for their numbers.
    """

    fn: Callable[..., Tensor]
    units: int
    params: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @classmethod
    def made(
        cls, fn: Any, units: int | Sequence[str] | None, params: str | Sequence[str] = ()
    ) -> Transform:
        """Of what a user gives: a function, how many units or what they are called, and parameters.

        Raises:
            BadProbe: that is none.
        """
        if isinstance(fn, Transform):
            if units is not None or params:
                raise BadProbe("This transform has its units and params.", "Give it alone.")
            return fn
        if isinstance(fn, type) or not callable(fn):
            raise BadProbe(
                f"{fn!r} is no function of a tensor.", "of(fn, units=24) records what fn returns."
            )
        labels: tuple[str, ...] = ()
        if isinstance(units, Sequence) and not isinstance(units, str):
            labels = tuple(str(label) for label in units)
            units = len(labels)
        if not isinstance(units, int) or isinstance(units, bool) or units < 1:
            raise BadProbe(
                f"units={units!r} is no number of units.",
                "Say how many fn makes of each token, or give a list of what they are called.",
            )
        names = (params,) if isinstance(params, str) else tuple(params)
        return cls(fn, units, names, labels)

    @property
    def name(self) -> str:
        """What to call it."""
        return str(getattr(self.fn, "__name__", type(self.fn).__name__))

    def values(self, tensor: Tensor, here: Any, params: dict[str, Tensor]) -> Tensor:
        """What it makes of a tensor.

        Raises:
            BadProbe: it made something else than was said.
        """
        with torch.no_grad():
            value = self.fn(tensor, params) if params else self.fn(tensor)
        if not isinstance(value, Tensor):
            raise BadProbe(
                f"{self.name} returned a {type(value).__name__}.", "Return a tensor [b, p, units]."
            )
        tokens = [len(tensor)] if here.token_index is not None else list(here.tokens.shape)
        shape = list(value.shape)
        if shape[: len(tokens)] != tokens or len(shape) == len(tokens) or shape[-1] != self.units:
            raise BadProbe(
                f"{self.name} made {shape} of {list(tensor.shape)} at {here.point}, and not "
                f"{[*tokens, self.units]}.",
                "It returns one value for each token and unit; units= says how many those are.",
            )
        return value if value.is_floating_point() else value.float()


class Of(Recorder[Any]):
    """A recorder of what a function makes of the tensor; :meth:`Recorder.of` makes one.

    Raises:
        BadProbe: the recorder is a probe of its own.
    """

    sharded = False

    def __init__(self, recorder: Recorder[Any], transform: Transform) -> None:
        if type(recorder).__call__ is not Recorder.__call__:
            raise BadProbe(
                f"{type(recorder).__name__} is a probe of its own.",
                "Compose the functions, or record what they make by another recorder.",
            )
        self.recorder, self.transform = recorder, transform
        self.name, self.state = recorder.name, recorder.state
        self.params = transform.params
        if isinstance(recorder, Together):  # whose parts are asked one by one
            self.left_out = recorder.left_out

    def __call__(self, save_ctx: Any, tensor: Tensor) -> None:
        here = save_ctx.here
        value = self.transform.values(tensor, here, save_ctx.params or {})
        self.take(save_ctx, seen(value, here))

    def take(self, save_ctx: Any, observed: Seen) -> None:
        """Bring the states in a save context up to date; each is marked as that of what the function makes."""
        observed = observed.without(*self.left_out)
        for recorder in self._each() if len(observed.tokens) or not self.left_out else ():
            recorder.observe(save_ctx, observed, self.transform.name, self._marked)

    def _each(self) -> tuple[Recorder[Any], ...]:
        if isinstance(self.recorder, Together):
            return self.recorder.recorders
        return (self.recorder,)

    def update(self, state: Any, seen: Seen) -> Any:
        """As the recorder's own: what is seen are values that the function made."""
        return self._marked(self.recorder.update(state, seen))

    def add(self, one: Any, other: Any) -> Any:
        """As the recorder itself does."""
        return self._marked(self.recorder.add(one, other))

    def merge(self, states: Sequence[Any]) -> Any:
        """As the recorder itself does; all must be of the same function."""
        return self._marked(self.recorder.merge(states))

    def memory(self, units: int) -> int:
        """Bytes for so many of its *own* units, which the function makes."""
        return self.recorder.memory(units)

    def needs(self, point: str, units: Callable[[str], int], kept: Collection[str]) -> int:
        """Bytes by the number of units that the function makes, not of those that the point has."""
        return self.recorder.needs(point, lambda name: self.transform.units, kept)

    def check(self, dims: Sequence[str], point: str) -> None:
        """Any point will do: what counts is what the function makes of it."""

    def options(self) -> dict[str, Any]:
        """The function, what its units are called or how many there are, and the parameters that it asks for."""
        made = self.transform
        said = {"units": list(made.labels) or made.units, "params": list(made.params)}
        return {"fn": made.name, **{name: value for name, value in said.items() if value}}

    def _marked(self, state: Any) -> Any:
        if isinstance(state, State):
            state.of, state.labels = self.transform.name, self.transform.labels
        return state

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value}" for name, value in self.options().items())
        return f"{self.recorder!r}.of({said.removeprefix('fn=')})"


def _of(
    recorder: Recorder[Any],
    fn: Any,
    units: int | Sequence[str] | None = None,
    params: str | Sequence[str] = (),
) -> Of:
    return Of(recorder, Transform.made(fn, units, params))


Recorder.of_a_function = _of
