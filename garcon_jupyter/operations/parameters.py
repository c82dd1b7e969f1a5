"""Slices of weights."""

from __future__ import annotations

from pydantic import Field

from garcon_jupyter.errors import BadRequest, UnknownParameter
from garcon_jupyter.operations.operation import Door, operation
from garcon_jupyter.operations.plain_data import Array, Form, Plain, PlainAnswer, array


class ParameterRequest(Plain):
    """A parameter, and which part of it."""

    name: str = Field(description='such as "layers.4.mlp.down_proj", oriented [out, in]')
    rows: list[int] | None = Field(
        default=None, description="along its first dimension; all where null"
    )
    columns: list[int] | None = Field(default=None, description="along its second; all where null")
    form: Form = "lists"


class ParameterAnswer(PlainAnswer):
    """The numbers, and the shape of the whole."""

    name: str
    shape: list[int] = Field(description="of the whole parameter")
    dtype: str = Field(description="in the model")
    values: Array


@operation("one parameter is read where it lies", (UnknownParameter, BadRequest))
def parameter(at: Door, asked: ParameterRequest) -> ParameterAnswer:
    """Read a parameter, or rows and columns of it; only these travel."""
    catalog = at.model.catalog
    address = catalog.parameter(asked.name)
    shape = [size for size in catalog.shape(address) if isinstance(size, int)]
    chosen = [asked.rows, asked.columns][: len(shape)]
    for number, given in enumerate((asked.rows, asked.columns)):
        if given is None:
            continue
        if number >= len(shape):
            raise BadRequest(f"{asked.name} has the shape {shape}.", "Leave columns out.")
        if wrong := [n for n in given if not -shape[number] <= n < shape[number]]:
            raise BadRequest(
                f"{asked.name} has no {('row', 'column')[number]} {wrong[0]}.",
                f"Its shape is {shape}.",
            )
    counts = [
        len(given) if given is not None else size
        for given, size in zip(chosen, shape, strict=False)
    ]
    numbers = 4
    for count in [*counts, *shape[len(counts) :]]:
        numbers *= count
    at.limits.check("answer_bytes", numbers, f"These numbers have {numbers:,} bytes")
    value = at.model.get_parameter(asked.name, index=_index(asked))
    if asked.rows is not None and asked.columns is not None:
        value = value[:, asked.columns]
    dtype = str(value.dtype).removeprefix("torch.")
    return ParameterAnswer(
        name=asked.name, shape=shape, dtype=dtype, values=array(value, asked.form)
    )


def _index(asked: ParameterRequest) -> object:
    """What is cut on the server: rows, else columns."""
    if asked.rows is not None:
        return asked.rows
    return None if asked.columns is None else (slice(None), asked.columns)
