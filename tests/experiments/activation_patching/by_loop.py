"""Activation patching as one writes it by hand: plain transformers, and a forward with a plain hook for each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from tests.oracle import Plain

Place = tuple[Any, ...]
"""An index into the value of a module's side."""

Site = tuple[str, str]
"""Dotted path of a module, and which side of it: "input" or "output"."""


@contextmanager
def hooked(plain: Plain, site: Site, see: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
    """A function on a side of a module; what it returns replaces the value."""
    path, side = site
    module = plain.module(path)

    def before(_: object, args: tuple[Any, ...]) -> Any:
        new = see(args[0])
        return None if new is None else (new, *args[1:])

    def after(_: object, args: Any, output: Any) -> Any:
        whole = isinstance(output, Tensor)
        new = see(output if whole else output[0])
        return new if new is None or whole else (new, *output[1:])

    if side == "input":
        handle = module.register_forward_pre_hook(before)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


class Loop:
    """Runs of a model, two by two, and the metric by which they are told apart."""

    def __init__(self, plain: Plain, answers: Sequence[int]) -> None:
        self.plain, self.answers = plain, answers
        self._ends: dict[tuple[int, ...], float] = {}

    def end(self, ids: Sequence[int]) -> float:
        """The metric of a run as it is."""
        if tuple(ids) not in self._ends:
            self._ends[tuple(ids)] = self.metric(ids)
        return self._ends[tuple(ids)]

    def metric(self, ids: Sequence[int]) -> float:
        logits = self.plain.logits([[*ids]])[0, -1].double()
        return float(logits[self.answers[0]] - logits[self.answers[1]])

    def value(self, ids: Sequence[int], site: Site) -> Tensor:
        """What a side of a module has in a run, [1, p, …]."""
        caught: list[Tensor] = []
        with hooked(self.plain, site, lambda value: caught.append(value.clone())):
            self.plain.logits([[*ids]])
        return caught[0]

    def patched(self, run: Sequence[int], given: dict[Site, tuple[Place, Tensor]]) -> float:
        """The metric of a run in which places are given values."""

        def patch(place: Place, new: Tensor) -> Callable[[Tensor], Tensor]:
            def see(value: Tensor) -> Tensor:
                changed = value.clone()
                changed[place] = new
                return changed

            return see

        with ExitStack() as stack:
            for site, (place, new) in given.items():
                stack.enter_context(hooked(self.plain, site, patch(place, new)))
            return self.metric(run)

    def share(
        self,
        clean: Sequence[int],
        corrupted: Sequence[int],
        places: dict[Site, Place],
        denoise: bool = True,
    ) -> float:
        """Of one cell: 0 as corrupted, 1 as clean."""
        run, source = (corrupted, clean) if denoise else (clean, corrupted)
        given = {site: (at, self.value(source, site)[at]) for site, at in places.items()}
        return self.scaled(self.patched(run, given), clean, corrupted)

    def scaled(self, metric: float, clean: Sequence[int], corrupted: Sequence[int]) -> float:
        low, high = self.end(corrupted), self.end(clean)
        return (metric - low) / (high - low)


def close(found: Any, expected: Any, tolerance: float = 1e-4) -> bool:
    """Within so much of the metric's range."""
    apart = torch.as_tensor(found).double() - torch.as_tensor(expected).double()
    return float(apart.abs().max()) <= tolerance
