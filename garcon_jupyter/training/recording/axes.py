"""Along which axis of a weight its neurons are: hidden units, or channels of the residual stream.

A weight that reads the residual stream (``linear1``, ``up_proj``, ``c_fc``, ``q_proj``) has a row for each hidden unit, and a
column for each channel of the stream; one that writes it (``linear2``, ``down_proj``, ``o_proj``) the other way round; and Conv1D stores
both transposed. Rows and columns of a weight are two tables, which have two names here.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.gradients.outliers import Unit

if TYPE_CHECKING:
    from torch.nn import Embedding, Module

WRITERS = (
    *("linear2", "down_proj", "fc2", "w2", "wo", "o_proj", "out_proj", "c_proj", "fc_out", "fc_o"),
    *("dense_4h_to_h", "dense", "output_linear", "proj_out", "attention_output", "lin2", "out_lin"),
)
"""Names of modules that write into the residual stream."""


def hidden_axes(model: Module, units: list[Unit], told: Mapping[str, int]) -> list[int]:
    """For each unit the axis, 0 or 1, along which its hidden units are.

    The sizes tell it, where a weight has one side as wide as the embedding, and another that is not; else the name of the module.

    Args:
        model: whose weights they are.
        units: the weights.
        told: by patterns of names, what the caller knows better.

    Raises:
        BadRequest: an axis that is neither 0 nor 1.
    """
    if wrong := [axis for axis in told.values() if axis not in (0, 1)]:
        raise BadRequest(f"A matrix has no axis {wrong[0]}.", "Hidden units are along 0 or 1.")
    width = stream_width(model)
    tables = {id(each.weight) for each in _tables(model)}
    found = []
    for unit in units:
        named = [axis for pattern, axis in told.items() if fnmatchcase(unit.parameter, pattern)]
        parameter = model.get_parameter(unit.parameter)
        if named:
            found.append(named[0])
        elif id(parameter) in tables:
            found.append(0)
        else:
            found.append(_axis(model, unit, width))
    return found


def _axis(model: Module, unit: Unit, width: int | None) -> int:
    path = unit.parameter.rpartition(".")[0]
    transposed = type(model.get_submodule(path)).__name__ == "Conv1D"
    outputs, inputs = (unit.columns, unit.rows) if transposed else (unit.rows, unit.columns)
    last = path.rpartition(".")[2] if unit.part is None else unit.parameter.rpartition(".")[2]
    writes = last in WRITERS
    if width is not None and (outputs == width) != (inputs == width):
        writes = outputs == width
    return int(writes != transposed)


def stream_width(model: Module) -> int | None:
    """The width of the residual stream: that of the first table of embeddings; None without one."""
    return next((int(each.embedding_dim) for each in _tables(model)), None)


def _tables(model: Module) -> list[Embedding]:
    from torch import nn

    return [each for each in model.modules() if isinstance(each, nn.Embedding)]
