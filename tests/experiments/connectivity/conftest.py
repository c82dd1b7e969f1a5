"""Small models of other families than Llama, in this process, and the weights of a Llama's heads as transformers has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere, open_here
from tests import checkpoints
from tests.oracle import Plain

Connect = Callable[..., garcon.RemoteModel]


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelHere]:
    """A small model of a family, made when it is first asked for."""
    kept: dict[str, ModelHere] = {}

    def open_family(family: str, **overrides: Any) -> ModelHere:
        name = f"{family} {overrides}"
        if name not in kept:
            path = checkpoints.make(family, tmp_path_factory.mktemp(family), **overrides)
            kept[name] = open_here(path, name=family)
        return kept[name]

    return open_family


@pytest.fixture
def of_family(opened: Callable[..., ModelHere]) -> Iterator[Connect]:
    """A fresh session on a small model of a family."""
    models = []

    def connect(family: str, **overrides: Any) -> garcon.RemoteModel:
        models.append(garcon.connect(opened(family, **overrides)))
        return models[-1]

    yield connect
    for model in models:
        model.close()


@dataclass
class PlainHeads:
    """A Llama's weights in float64, read off its modules and folded by hand."""

    plain: Plain

    @property
    def config(self) -> Any:
        return self.plain.model.config

    def _weight(self, layer: int, path: str) -> Tensor:
        return self.plain.module(f"model.layers.{layer}.{path}").weight.detach().double()

    def gain(self, layer: int, norm: str = "input_layernorm") -> Tensor:
        return self._weight(layer, norm)

    def reads(self, layer: int, name: str, head: int) -> Tensor:
        """Query, key or value projection of a query head, [d, D], without the norm's gain."""
        d = self.config.head_dim
        shared = self.config.num_attention_heads // self.config.num_key_value_heads
        at = head if name == "q" else head // shared
        return self._weight(layer, f"self_attn.{name}_proj")[at * d : (at + 1) * d]

    def writes(self, layer: int, head: int) -> Tensor:
        """[D, d]."""
        d = self.config.head_dim
        return self._weight(layer, "self_attn.o_proj")[:, head * d : (head + 1) * d]

    def qk(self, layer: int, head: int) -> Tensor:
        """[D, D]."""
        g = self.gain(layer)
        return (self.reads(layer, "q", head) * g).T @ (self.reads(layer, "k", head) * g)

    def ov(self, layer: int, head: int) -> Tensor:
        """[D, D]."""
        return self.writes(layer, head) @ (self.reads(layer, "v", head) * self.gain(layer))

    def neurons(self, layer: int, name: str) -> Tensor:
        """Gate or up projection, [M, D], with the gain of its norm; or the down projection's columns, [M, D]."""
        if name == "down":
            return self._weight(layer, "mlp.down_proj").T
        return self._weight(layer, f"mlp.{name}_proj") * self.gain(
            layer, "post_attention_layernorm"
        )


@pytest.fixture(scope="session")
def by_hand(plain: Plain) -> PlainHeads:
    return PlainHeads(plain)
