"""Numbers that are rounded otherwise: by a unit of the last place or a few, alike for a seed, and only for a while."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from garcon_backend.execution.launch_check.rounding import rounded_otherwise


@pytest.mark.parametrize(
    "dtype, units", [(torch.bfloat16, 1), (torch.float16, 1), (torch.float32, 8)]
)
def test_outputs_move_by_a_few_units(dtype: torch.dtype, units: int) -> None:
    torch.manual_seed(0)
    module = nn.Linear(20, 30).to(dtype)
    given = torch.randn(4, 20).to(dtype)
    with torch.no_grad():
        plain = module(given)
        with rounded_otherwise(module, 0):
            moved = module(given)
        with rounded_otherwise(module, 0):
            again = module(given)
        with rounded_otherwise(module, 1):
            other = module(given)
        after = module(given)
    assert moved.dtype == dtype and torch.equal(after, plain)
    assert torch.equal(moved, again) and not torch.equal(moved, other)
    off = ((moved.double() - plain.double()) / plain.double()).abs() / torch.finfo(dtype).eps
    assert 0.3 * units < float(off.max()) <= 2 * units  # a rounding comes on top


def test_only_what_has_no_parts_is_moved_and_numbers_alone() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Identity()

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return self.part(value)

    whole, counts = Whole(), torch.arange(5)
    with rounded_otherwise(whole, 0):
        assert torch.equal(whole(counts), counts)
        once = whole(torch.ones(1000, dtype=torch.float64)) - 1
    assert 0 < float(once.abs().max()) <= 8 * torch.finfo(torch.float64).eps
    assert not whole._forward_hooks and not whole.part._forward_hooks
