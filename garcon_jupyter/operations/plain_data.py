"""What requests and answers are made of."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor


class Plain(BaseModel):
    """A part of a request or of an answer: plain data, whose fields are all known."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PlainAnswer(BaseModel):
    """A part of an answer. Numbers that are none (NaN, infinities) travel as null."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")


Form = Literal["lists", "base64"]
"""How numbers travel: as nested lists, or as the bytes of an array, which is ten times quicker to read."""

DTYPES = ("float32", "float16", "float64", "int64", "int32", "uint8", "bool")
"""What arrays are of when they travel. bfloat16, which NumPy and browsers lack, travels as float32, which has its every value."""


class Array(PlainAnswer):
    """Numbers with a shape: as nested ``values``, or as ``base64`` of little-endian bytes in C order; the other is null."""

    dtype: str = Field(description="of the numbers as they travel")
    shape: list[int]
    values: Any = Field(default=None, description="nested lists; null where a number is none")
    base64: str | None = Field(
        default=None, description="little-endian bytes, the last dimension first"
    )

    def numpy(self) -> np.ndarray:
        """The numbers, whichever way they travelled."""
        if self.base64 is not None:
            kind = np.dtype(self.dtype).newbyteorder("<")
            return np.frombuffer(base64.b64decode(self.base64), kind).reshape(self.shape)
        kind = np.dtype(self.dtype)
        filler = np.nan if kind.kind == "f" else 0
        flat = [filler if number is None else number for number in _flat(self.values)]
        return np.asarray(flat, kind).reshape(self.shape)


def array(values: Tensor | np.ndarray, form: Form) -> Array:
    """Numbers, ready to travel."""
    numbers = _numpy(values)
    kind, shape = numbers.dtype.name, list(numbers.shape)
    if form == "base64":
        little = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
        return Array(dtype=kind, shape=shape, base64=base64.b64encode(little.data).decode())
    if numbers.dtype.kind == "f":
        finite, numbers = np.isfinite(numbers), numbers.astype(object)
        numbers[~finite] = None
    return Array(dtype=kind, shape=shape, values=numbers.tolist())


def _numpy(values: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values
    whole = values.detach().cpu()
    found: np.ndarray = (whole.float() if str(whole.dtype) == "torch.bfloat16" else whole).numpy()
    return found


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [number for part in values for number in _flat(part)]


class TextTokens(PlainAnswer):
    """A text as the model reads it."""

    ids: list[int]
    strings: list[str] = Field(description="the text of each token")


class LikelyToken(PlainAnswer):
    """A token that may come next."""

    id: int
    string: str
    probability: float
