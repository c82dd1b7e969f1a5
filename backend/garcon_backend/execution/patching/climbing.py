"""A batch that climbs the layers, and that cells join on the way.

A cell is the text that it is patched in, up to the layer of its first patch. So it needs no layers before: there it takes the
text's row of the residual stream, which climbs in the same batch. A sweep over all layers costs about half of what whole forwards
cost, and one of late layers next to nothing; nothing is stored, and nothing is computed twice.

The model runs its own forward, with masks, rotary positions, final norm and unembedding as they are. It is called with
all rows, of which the first layer is given those that are there from the start; hooks on the layers append the others. That is
right where nothing but the residual stream goes from layer to layer, as at the boundaries of pipeline stages. Where more
does, or a layer is given something of which it is not known which of it is each row's, cells are run from the first layer on.
"""

from __future__ import annotations

import inspect
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from garcon_backend.models.pipeline_parallel import beside_the_stream, find_layers, stage_of
from garcon_backend.models.stages import StandIn
from garcon_backend.probing.probed_pass import ProbedPass

BY_ROW = {
    "attention_mask": 2,
    "mamba_attention_mask": 2,
    "causal_mask": 2,
    "position_ids": 2,
    "position_embeddings": 3,
    "alibi": 3,
}
"""What layers are given of which each row has its own, or all have one; with the fewest dimensions that it has then."""

FOR_ALL_ROWS = frozenset({"position_bias", "cache_position"})
"""What they are given that is the same for all rows, and has no dimension of them."""


class CannotClimb(Exception):
    """Layers of a model hand on, or are given, more than rows of the residual stream; says what."""


class Climb:
    """The way of a batch up the layers.

    Args:
        model: or this rank's part of it.
        texts: rows that are there from the first layer on.
        joining: of each further row the layer at which it joins, in ascending order, and the row that it goes on from.

    Raises:
        CannotClimb: the model is not one whose batch may grow.
    """

    def __init__(self, model: nn.Module, texts: int, joining: Sequence[tuple[int, int]]) -> None:
        self._layers = _layers_of(model)
        stage = stage_of(model)
        self._sends_at = stage.layers.stop if stage else -1
        self._texts, self._rows = texts, texts + len(joining)
        self._joins_at = [layer for layer, _ in joining]
        self._goes_on_from = [row for _, row in joining]
        own = next((layer for layer in self._layers if not isinstance(layer, StandIn)), None)
        self._given = _arguments(own) if own is not None else []

    def rows_at(self, layer: int) -> int:
        """Rows that a layer reads."""
        return self._texts + bisect_right(self._joins_at, layer)

    @contextmanager
    def installed(self, probed: ProbedPass) -> Iterator[None]:
        """While this lasts the batch of a pass grows as it climbs.

        Enter it before the pass is installed, whose points at the input of a layer are then visited after rows have joined.
        The forward raises :class:`CannotClimb` at its first layer, on all ranks, where the model cannot.
        """
        removals = []
        try:
            for index, layer in enumerate(self._layers):
                removals.append(self._hook(index, layer, probed))
            yield
        finally:
            for handle in removals:
                handle.remove()

    def _hook(self, index: int, layer: nn.Module, probed: ProbedPass) -> RemovableHandle:
        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given = {**dict(zip(self._given, args, strict=False)), **kwargs}
            if index == 0:
                _check(self._given[0], given, self._rows)
            rows = self.rows_at(index)
            cut = {name: self._cut(name, value, rows) for name, value in given.items()}
            cut[self._given[0]] = self._joined(given[self._given[0]], index, probed)
            positional = tuple(cut.pop(name) for name in self._given[: len(args)])
            return positional, cut

        def after(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, Tensor):
                return self._joined(output, index, probed)
            return (self._joined(output[0], index, probed), *output[1:])

        # The stand-in that sends the stream to the next stage sends the rows that it was given: there they join by themselves.
        if isinstance(layer, StandIn) and index == self._sends_at:
            return layer.register_forward_hook(after)
        return layer.register_forward_pre_hook(before, with_kwargs=True)

    def _joined(self, stream: Tensor, layer: int, probed: ProbedPass) -> Tensor:
        """The stream with the rows that join at a layer."""
        rows = self.rows_at(layer)
        probed.batch = (rows, probed.batch[1])
        if layer == 0:  # all are there already, and may have been patched before
            return stream[:rows]
        new = self._goes_on_from[len(stream) - self._texts : rows - self._texts]
        return torch.cat([stream, stream[new]]) if new else stream

    def _cut(self, name: str, value: Any, rows: int) -> Any:
        """What a layer is given, for its rows alone."""
        if name not in BY_ROW or value is None:
            return value
        if isinstance(value, Tensor):
            return value if len(value) == 1 else value[: rows * (len(value) // self._rows)]
        return type(value)(self._cut(name, one, rows) for one in value)


def _layers_of(model: nn.Module) -> list[nn.Module]:
    try:
        holder, name = find_layers(model)
    except ValueError as error:
        raise CannotClimb(str(error)) from None
    layers = list(getattr(holder, name))
    if more := beside_the_stream(model, layers):
        raise CannotClimb(f"its layers are given {' and '.join(more)} beside the residual stream")
    return layers


def _arguments(layer: nn.Module) -> list[str]:
    """Names of what a layer is called with, in order; the residual stream first."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(type(layer).forward).parameters.values()
    return [each.name for each in parameters if each.kind in kinds][1:]


def _check(stream: str, given: Mapping[str, Any], rows: int) -> None:
    """Whether it is known of all that a layer is given which of it is each row's.

    Args:
        stream: name of the residual stream.
        rows: of the whole batch.

    Raises:
        CannotClimb: it is not; says of what.
    """
    for name, value in given.items():
        if name == stream:
            known = value.dim() == 3 and len(value) == rows
        elif name in BY_ROW:
            length = given[stream].shape[1]
            known = all(_is_by_row(name, one, rows, length) for one in _flat(value))
        else:
            known = name in FOR_ALL_ROWS or isinstance(value, (bool, int, float, str, type(None)))
        if not known:
            raise CannotClimb(
                f"its layers are given {name}, of which it is not known what is each row's"
            )


def _is_by_row(name: str, value: Any, rows: int, length: int) -> bool:
    if value is None:
        return True
    if not isinstance(value, Tensor) or value.dim() < BY_ROW[name]:
        return False
    if name == "alibi":  # heads of a row may lie one after the other
        return len(value) % rows == 0
    if name == "position_embeddings" and value.shape[1] != length:
        return False
    return len(value) in (1, rows)


def _flat(value: Any) -> Iterator[Any]:
    """A value, or what a tuple or list of them holds."""
    if isinstance(value, (tuple, list)):
        for one in value:
            yield from _flat(one)
    else:
        yield value
