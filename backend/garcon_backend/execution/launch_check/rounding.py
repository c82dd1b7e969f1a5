"""How far the logits of a model move when its numbers are rounded otherwise: what a check must allow them.

Where a router chooses experts, or an index keys, two candidates may be nearly alike, and then the last bit of a number
decides which is taken: the logits of a token jump, though nothing is wrong. No tolerance holds for that in all models,
so it is measured of the model at hand: what modules put out is moved by a few units of the last place, at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

UNITS = {torch.bfloat16: 1.0, torch.float16: 1.0}
"""Units of the last place by which a number is moved at most; sums of many terms are off by more in float32, as nothing
rounds them to fewer digits afterwards."""

UNITS_OF_OTHERS = 8.0


@contextmanager
def rounded_otherwise(model: nn.Module, seed: int) -> Iterator[None]:
    """While this lasts, every module without parts puts out numbers that are a little off, alike for the same seed."""
    calls = 0

    def move(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal calls
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        calls += 1
        generator = torch.Generator(output.device).manual_seed(1_000_003 * seed + calls)
        wide = torch.float64 if output.dtype == torch.float64 else torch.float32
        noise = torch.rand(output.shape, generator=generator, device=output.device, dtype=wide)
        noise = 2 * noise - 1
        unit = torch.finfo(output.dtype).eps * UNITS.get(output.dtype, UNITS_OF_OTHERS)
        return (output.to(wide) * (1 + unit * noise)).to(output.dtype)

    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    handles = [module.register_forward_hook(move) for module in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
