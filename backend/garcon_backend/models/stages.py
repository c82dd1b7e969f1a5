"""A stage of a pipeline: which layers it holds, and stand-ins for the modules of other stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache

from garcon_backend.distributed.collectives import receive_from_before, send_on
from garcon_backend.distributed.mesh import Mesh

FILLED_BY_THE_MODEL = frozenset({"mup_vector"})
"""Buffers of layers that a model fills by itself when it has been loaded, in all of its layers: Falcon-H1's multipliers."""


class Luggage(Protocol):
    """What goes from stage to stage beside the residual stream, token by token, in a pass that needs it."""

    dtype: torch.dtype

    def arriving(self) -> int:
        """How many numbers of each token come from the stage before."""
        ...

    def arrive(self, numbers: Tensor) -> None:
        """Take them, [b, p, n]."""
        ...

    def depart(self, like: Tensor) -> Tensor:
        """Those that go to the next stage, [b, p, n]; `like` tells b and p."""
        ...


class Stage:
    """The part of a model that this rank runs.

    Attributes:
        layers: indices of the layers it holds.
        tokens: of the boundaries passed in the running forward; see :func:`backward_through`.
        tied: whether the unembedding, on the last stage, is the embedding of the first.
        shares_logits: whether every stage is given the last one's logits.
        beside: how many values a layer puts out after the residual stream; None where it puts out that alone.
        luggage: what goes along with the residual stream in the running pass. It travels in the same message, in a dtype that holds
            both: two messages would be two nodes of the graph, whose backward need not come in the same order on both sides.
    """

    def __init__(self, mesh: Mesh, count: int, tied: bool, beside: int | None = None) -> None:
        self.mesh, self.tied, self.beside = mesh, tied, beside
        self.layers = split_layers(count, mesh.degrees.pp, mesh.stage)
        self.tokens: list[tuple[Tensor, float]] = []
        self.shares_logits = False
        self.luggage: Sequence[Luggage] = ()
        self._anchor = torch.zeros((), requires_grad=True, device=mesh.device)

    def arrive(self, hidden: Tensor) -> Tensor:
        """The residual stream of the stage before; `hidden` tells its shape and dtype."""
        widths = [hidden.shape[-1], *(each.arriving() for each in self.luggage)]
        dtype = self._dtype(hidden, widths[1:])
        like = hidden.new_empty(*hidden.shape[:-1], sum(widths), dtype=dtype)
        told, token = receive_from_before(like, self._anchor, self.mesh.pipeline)
        if torch.is_grad_enabled():
            self.tokens.append((token, 0.0))
        if not self.luggage:
            return told
        parts: tuple[Tensor, ...] = told.split(widths, -1)
        for each, numbers in zip(self.luggage, parts[1:], strict=True):
            each.arrive(numbers)
        return parts[0].to(hidden.dtype)

    def _dtype(self, hidden: Tensor, widths: Sequence[int]) -> torch.dtype:
        """That of what crosses the boundary: it holds the stream, and the luggage that is not empty."""
        dtype = hidden.dtype
        for each, width in zip(self.luggage, widths, strict=True):
            dtype = torch.promote_types(dtype, each.dtype) if width else dtype
        return dtype

    def depart(self, hidden: Tensor) -> Tensor:
        """Send the residual stream to the next stage."""
        beside = [each.depart(hidden) for each in self.luggage]
        dtype = self._dtype(hidden, [part.shape[-1] for part in beside])
        told = torch.cat([part.to(dtype) for part in (hidden, *beside)], -1) if beside else hidden
        token = send_on(told, self._anchor, self.mesh.pipeline)
        if torch.is_grad_enabled():
            self.tokens.append((token, 1.0))
        return hidden.detach()


def split_layers(count: int, stages: int, stage: int) -> range:
    """Which layers a stage holds: as equal as can be, the first stages one more."""
    base, more = divmod(count, stages)
    start = stage * base + min(stage, more)
    return range(start, start + base + (stage < more))


class StandIn(nn.Module):
    """Stands where a module of another stage would be, and returns its input."""

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden


class LayerStandIn(StandIn):
    """A layer of another stage; perhaps the place where a stage begins or ends."""

    def __init__(self, index: int, stage: Stage, layer: nn.Module) -> None:
        super().__init__()
        self.index, self.stage = index, stage
        for name, value in vars(layer).items():
            if isinstance(
                value, str
            ):  # such as the kind of a layer, which a model chooses a mask by
                setattr(self, name, value)
        for path, buffer in layer.named_buffers():
            child, _, name = path.partition(".")
            if name in FILLED_BY_THE_MODEL:
                setattr(self, child, StandIn())
                getattr(self, child).register_buffer(name, buffer, persistent=False)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, Cache) and _counts(value, self.index):
                # transformers asks the first layer's cache how many positions there are.
                counted = hidden.new_zeros(len(hidden), 1, hidden.shape[1], 1)
                value.update(counted, counted, self.index)
        if self.index == self.stage.layers.start - 1:
            hidden = self.stage.arrive(hidden)
        elif self.index == self.stage.layers.stop:
            hidden = self.stage.depart(hidden)
        beside = self.stage.beside
        return hidden if beside is None else (hidden, *[None] * beside)


@dataclass(frozen=True)
class Elsewhere:
    """A parameter of another stage, of which models ask where it is."""

    device: torch.device


def _counts(cache: Cache, layer: int) -> bool:
    """Whether a cache keeps keys of a layer, and so the number of positions; others have a state, or nothing."""
    if layer >= len(cache.layers):
        return True
    kept = cache.layers[layer]
    keeps_nothing = (
        type(kept).__name__ == "DummyLayer"
    )  # which not every release of transformers has
    return hasattr(kept, "update") and not keeps_nothing


class EmbeddingStandIn(StandIn):
    """An embedding of the first stage: zeros of its output's shape.

    Attributes:
        weight: the parameter, on the last stage of a model that unembeds with it.
    """

    def __init__(self, embedding: nn.Embedding, device: torch.device, keep: bool = False) -> None:
        super().__init__()
        self.width = embedding.embedding_dim
        self.dtype = embedding.weight.dtype
        self.weight = embedding.weight if keep else Elsewhere(device)

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Of tokens, or positions; OPT's is called with the mask, which has all tokens before, and with positions beside it.
        ids = hidden if kwargs.get("position_ids") is None else kwargs["position_ids"]
        return torch.zeros(*ids.shape, self.width, dtype=self.dtype, device=ids.device)


class HeadStandIn(StandIn):
    """The unembedding of the last stage: zeros of the logits' shape, one element of memory."""

    def __init__(self, vocabulary: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.weight = torch.empty(0, dtype=dtype)  # Mamba asks its dtype

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden.new_zeros(()).expand(*hidden.shape[:-1], self.vocabulary)
