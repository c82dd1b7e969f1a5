"""What every architecture written by hand offers: a forward with taps, and its parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from tests.by_hand.arithmetic import Edit, Taps


@dataclass
class Stored:
    """A parameter of the table: the stored one it is read from, and how."""

    parameter: Tensor
    read: Callable[[Tensor], Tensor] = lambda stored: stored
    offset: float = 0.0

    @property
    def value(self) -> Tensor:
        return self.read(self.parameter.detach()) + self.offset

    @property
    def gradient(self) -> Tensor:
        assert self.parameter.grad is not None
        return self.read(self.parameter.grad)


class ByHand:
    """A model of one architecture, with all its points and parameters in reach."""

    auto: Any = AutoModelForCausalLM
    part: Any = staticmethod(lambda model: model)  # of what is loaded, what is written out

    def __init__(self, path: Path) -> None:
        whole = self.auto.from_pretrained(path, dtype=torch.float64, attn_implementation="eager")
        self.loaded = whole.eval()
        self.model = self.part(whole)
        self.config = self.model.config
        self.d = self.head_width()

    def head_width(self) -> int:
        """d, where all layers have one."""
        of_heads = self.config.hidden_size // getattr(self.config, "num_attention_heads", 1)
        return getattr(self.config, "head_dim", None) or of_heads

    def run(self, ids: Tensor, mask: Tensor | None = None, **edits: Edit) -> Taps:
        """One forward; edits by the name of the point."""
        mask = torch.ones_like(ids) if mask is None else mask.long()
        taps = Taps(edits)
        # Padding is not counted; a token of it has the position of the one before.
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        taps("logits", self.forward(taps, ids, mask, positions))
        return taps

    def forward(self, taps: Taps, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        raise NotImplementedError

    def parameters(self) -> dict[str, Stored]:
        """All parameters of the table."""
        raise NotImplementedError

    def _norm(self, name: str, module: Any, offset: float = 0.0) -> dict[str, Stored]:
        found = {f"{name}.weight": Stored(module.weight, offset=offset)}
        if getattr(module, "bias", None) is not None:
            found[f"{name}.bias"] = Stored(module.bias)
        return found

    def _linear(self, name: str, module: Any, rows: Any = slice(None)) -> dict[str, Stored]:
        found = {name: Stored(module.weight, lambda stored: stored[rows])}
        if getattr(module, "bias", None) is not None:
            found[f"{name}.bias"] = Stored(module.bias, lambda stored: stored[rows])
        return found
