"""A probe on a module that the pass does not call is told of, with what was called beside it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.backend.bare_rank import BareRank


class Mixer(nn.Module):
    """Uses its convolution's weight without calling it, as Mamba does."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Embedding(16, 4)
        self.conv1d = nn.Linear(4, 4)
        self.out = nn.Linear(4, 16)
        self.spare = nn.Linear(4, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(functional.linear(self.into(ids), self.conv1d.weight))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mixer = Mixer()

    def forward(self, ids: Tensor) -> Tensor:
        return self.mixer(ids)


IDS = torch.tensor([[3, 4, 5]])


def seen(*modules: str) -> tuple[dict[Any, str], dict[str, Tensor], BareRank]:
    model = BareRank(Model().eval())
    values = model.values(IDS, None, [f"module:{name}.output" for name in modules])
    return model.rank.contexts.silent("test"), values, model


def test_a_module_that_is_not_called_is_named_with_those_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    silent, values, _ = seen("mixer.conv1d", "mixer.out")
    assert list(values) == ["module:mixer.out.output"]
    [(key, why)] = silent.items()
    assert key == ("module:mixer.conv1d.output", None)
    assert why.startswith("The module mixer.conv1d was not called in this pass, ")
    assert why.endswith("Called beside it: mixer.into, mixer.out.")


def test_nothing_is_said_of_modules_that_are_called() -> None:
    silent, values, _ = seen("mixer", "mixer.into", "mixer.out")
    assert silent == {}
    assert len(values) == 3


def test_what_is_said_is_over_when_the_probe_runs_or_its_recording_is_cleared() -> None:
    _, _, model = seen("mixer.conv1d", "mixer.spare")
    contexts = model.rank.contexts
    contexts.open("test", "module:mixer.spare.output", None)
    assert set(contexts.silent("test")) == {("module:mixer.conv1d.output", None)}
    contexts.clear("test")
    assert contexts.silent("test") == {}
