"""In which module an error happened; and that nothing large is kept to tell."""

from __future__ import annotations

import traceback
import weakref
from typing import Any

import pytest
import torch
from torch import nn

from garcon_backend.execution.failing_module import HAPPENED, noted
from garcon_jupyter.errors import BadRequest


class Inner(nn.Module):
    """Fails at inputs of another width."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = x.repeat(100, 1)
        LARGE.append(weakref.ref(large))
        return self.linear(large[:, :2])


class Whole(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), Inner()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


LARGE: list[weakref.ref[torch.Tensor]] = []


def test_the_innermost_module_and_the_edits_before() -> None:
    model, edited = Whole(), ["first at a point"]
    with pytest.raises(RuntimeError, match="mat1") as caught, noted(model, edited):
        edited.append("second at another")
        model(torch.ones(2, 3))
    happened = getattr(caught.value, HAPPENED)
    assert happened.model == "Whole" and happened.module == "layers.1.linear"
    assert happened.edited == ("first at a point", "second at another")
    traceback.clear_frames(caught.value.__traceback__)
    assert LARGE[-1]() is None


def test_outside_of_all_modules() -> None:
    with pytest.raises(ValueError, match="no") as caught, noted(Whole(), []):
        raise ValueError("no")
    assert getattr(caught.value, HAPPENED).module == ""


def test_errors_that_say_themselves_what_is_wrong_are_left_alone() -> None:
    with pytest.raises(BadRequest) as caught, noted(Whole(), []):
        raise BadRequest("Wrong.", "Right.")
    assert not hasattr(caught.value, HAPPENED)


def test_errors_without_room_for_a_note() -> None:
    class Narrow(Exception):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == HAPPENED:
                raise AttributeError(name)
            super().__setattr__(name, value)

    with pytest.raises(Narrow), noted(Whole(), []):
        raise Narrow
