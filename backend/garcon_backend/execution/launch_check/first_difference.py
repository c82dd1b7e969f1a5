"""Where two passes of one model part: the first module whose input or output differs.

Every module of a pass is watched, so this is done only when it is known already that something differs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def distance(found: Tensor, wanted: Tensor) -> Tensor:
    """How far vectors [..., n] are from others, as a part of these others' length: [...].

    Numbers that are not finite in both count as equal, in one as infinitely far.
    """
    found, wanted = found.detach().double(), wanted.detach().double()
    both = ~found.isfinite() & ~wanted.isfinite()
    found, wanted = found.masked_fill(both, 0), wanted.masked_fill(both, 0)
    length = wanted.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    apart: Tensor = (found - wanted).norm(dim=-1) / length
    return apart.nan_to_num(nan=float("inf"))


@dataclass
class Trace:
    """What went in and out of the modules of a pass, in the order in which it was seen.

    Attributes:
        values: (path, "input" or "output", number of the call) → the first tensor there.
    """

    values: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)
    _calls: Counter[tuple[str, str]] = field(default_factory=Counter)

    @contextmanager
    def of(
        self, model: nn.Module, watched: Callable[[str], bool] = lambda path: True
    ) -> Iterator[Trace]:
        """While this lasts, passes of a model are traced, in the modules whose path is to be watched."""
        handles = []
        for path, module in model.named_modules():
            if not watched(path):
                continue
            handles.append(
                module.register_forward_pre_hook(
                    partial(self._before, path), with_kwargs=True, prepend=True
                )
            )
            handles.append(module.register_forward_hook(partial(self._after, path)))
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, path: str, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        self._keep(path, "input", [*args, kwargs.get("hidden_states")])

    def _after(self, path: str, module: nn.Module, args: Any, output: Any) -> None:
        self._keep(path, "output", output if isinstance(output, (tuple, list)) else [output])

    def _keep(self, path: str, side: str, candidates: Any) -> None:
        tensors = (t for t in candidates if isinstance(t, Tensor) and t.is_floating_point())
        tensor = next(tensors, None)
        if tensor is None or not tensor.dim():
            return
        self.values[path, side, self._calls[path, side]] = tensor.detach().cpu().clone()
        self._calls[path, side] += 1


@dataclass(frozen=True)
class Difference:
    """The first difference of two passes.

    Attributes:
        where: the side of a module, in words.
        layer: number of the layer that it is in; None outside of layers.
        by: how large it is, as a part of what it should be.
    """

    where: str
    layer: int | None
    by: float

    def __str__(self) -> str:
        place = "outside of the layers" if self.layer is None else f"in layer {self.layer}"
        return f"The first to differ, {place}, is the {self.where}, by {percent(self.by)}."


def percent(part: float) -> str:
    """A part in words."""
    return f"{100 * part:.3g} %" if part < float("inf") else "numbers that are not finite"


def first_difference(
    found: Trace, wanted: Trace, tolerance: float, real: Tensor
) -> Difference | None:
    """The first value of a trace that is not the other's; None where all that can be compared are equal.

    Values of different shapes, as parts of a cut model and the whole one have, are not compared.

    Args:
        real: which places of the texts are no padding, [b, p]; only there a value has a meaning.
    """
    for key, value in found.values.items():
        other = wanted.values.get(key)
        if other is None or other.shape != value.shape:
            continue
        apart = distance(_of_tokens(value, real), _of_tokens(other, real))
        worst = float(apart.max())
        if float(apart.median()) > tolerance or worst > 10 * tolerance:
            path, side, _ = key
            numbered = re.search(r"(?:^|\.)(\d+)(?:\.|$)", path)
            layer = int(numbered[1]) if numbered else None
            return Difference(f"{side} of {path or 'the model'}", layer, worst)
    return None


def _of_tokens(value: Tensor, real: Tensor) -> Tensor:
    """Of a value for each place, [b, p, …] or [b · p, …], those of real tokens; any other as it is."""
    if value.dim() > 2 and value.shape[:2] == real.shape:
        return value[real]
    if value.dim() > 1 and len(value) == real.numel():
        return value[real.flatten()]
    return value
