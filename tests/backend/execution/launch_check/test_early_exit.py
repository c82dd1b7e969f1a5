"""A padded batch is read through the first layers of each kind, and further where that does not show enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_backend.execution.launch_check.check import check
from garcon_backend.execution.launch_check.early_exit import EarlyExit
from garcon_backend.execution.launch_check.readings import PADDED, Readings
from garcon_backend.models.first_layers import first_of_each_kind
from tests import checkpoints
from tests.backend.bare_rank import BareRank

KINDS = ["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"] * 3


@pytest.fixture
def read_whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The readings that were served whole."""
    seen: list[str] = []
    real = Readings.served

    def served(self: Readings, reading: str) -> list[Tensor] | None:
        seen.append(reading)
        return real(self, reading)

    monkeypatch.setattr(Readings, "served", served)
    return seen


@pytest.mark.parametrize(
    ("family", "options", "first", "whole"),
    [
        ("llama", {"num_hidden_layers": 4}, 1, False),
        ("llama", {"num_hidden_layers": 1}, 1, True),  # there is no layer behind them
        ("gemma3_text", {"num_hidden_layers": 6, "layer_types": KINDS}, 3, False),
        ("gemma3_text", {"num_hidden_layers": 6, "layer_types": KINDS[::-1]}, 4, True),
    ],
)
def test_how_far_it_reads(
    family: str,
    options: dict[str, Any],
    first: int,
    whole: bool,
    tmp_path: Path,
    read_whole: list[str],
) -> None:
    ours = BareRank(checkpoints.make(family, tmp_path, **options))
    assert first_of_each_kind(ours.model) == first
    assert check(ours.tools.passes, tmp_path).state == "equal"
    assert (PADDED in read_whole) is whole


def test_what_enters_the_layer_is_what_a_plain_hook_sees(tmp_path: Path) -> None:
    ours = BareRank(checkpoints.make("llama", tmp_path, num_hidden_layers=4))
    early = EarlyExit.of(ours.model)
    assert early is not None and early.next_layer is ours.model.model.layers[1]
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        hidden = ours.model(ids, output_hidden_states=True).hidden_states[1]
        with early.entering(stop=True) as seen:
            ours.model(ids)
            pytest.fail("the pass went on")
    assert torch.equal(seen[0], hidden)
    assert not ours.model.model.layers[1]._forward_pre_hooks


def test_what_is_off_behind_the_first_layers_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_whole: list[str]
) -> None:
    """And is no fault where the logits show none: here the stream is said to be another than it is."""
    ours = BareRank(checkpoints.make("llama", tmp_path, num_hidden_layers=4))
    real = Readings.padded_stream

    def other(self: Readings) -> list[Tensor] | None:
        return [row * 2 for row in real(self) or ()]

    monkeypatch.setattr(Readings, "padded_stream", other)
    assert check(ours.tools.passes, tmp_path).state == "equal"
    assert PADDED in read_whole
