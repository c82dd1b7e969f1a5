"""What is saved is saved then: copies with memory of their own.

A value may hold tensors anywhere: in a list, a dataclass, a namespace, an object of the notebook's own class, the
closure of a function; and memory of tensors: a NumPy array is one. A copy is made in the way in which the value
would travel, by pickling, only that tensors and arrays are copied on their device and classes stay what they are.
So whatever can be fetched is as it was when it was saved. What cannot be pickled, such as a lock or a generator,
cannot be fetched either: it stays the probe's own object, and the fetch says so.
"""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Collection
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import Tensor

from garcon_backend.process import memory
from garcon_backend.save_contexts.containers import Rows, Table
from garcon_backend.save_contexts.walking import IMMUTABLE, Memo, Rebuild


def copied(value: Any, memo: Memo | None = None) -> Any:
    """A value with memory of its own, off the graph; what is referred to twice in it is so in the copy."""
    if type(value) in IMMUTABLE:
        return value
    if memo is None and isinstance(value, Tensor):
        return value.detach().clone()
    return _Copy(memo)(value)


class _Copy(Rebuild):
    """Copies what is saved: lists and dictionaries own from then on what is put into them."""

    def opens(self, value: Any) -> bool:
        return super().opens(value) or isinstance(value, tuple)

    def empty(self, value: Any) -> Any:
        if isinstance(value, list):
            return Rows(copied)
        return Table(copied) if isinstance(value, dict) else super().empty(value)

    def leaf(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().clone()
        if _is_array(value):
            return value.copy(order="K")
        try:
            stream = io.BytesIO()
            copying = _Copying(stream, self)
            copying.dump(value)
            stream.seek(0)
            return _Copied(stream, copying.beside).load()
        except (Exception, SystemExit) as error:  # objects may raise anything when asked for this
            if memory.ended(error):
                raise
        return value


class _Beside(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles a value while some of what it refers to stays beside the pickle.

    Attributes:
        beside: what that is, by the number that stands for it.
    """

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=5)
        self.beside: list[Any] = []
        # With the values, which may be made for the pickle alone: another must not get the id of one.
        self._numbers: dict[int, tuple[int, Any]] = {}

    def persistent_id(self, value: Any) -> int | None:
        """The number of what does not go into the pickle; None for all else."""
        if not isinstance(value, (Tensor, np.ndarray, *_AS_THEY_ARE)):
            return None
        if (known := self._numbers.get(id(value))) is not None:
            return known[0]
        if isinstance(value, (Tensor, np.ndarray)):
            if not (isinstance(value, Tensor) or _is_array(value)):
                return None  # arrays of objects are pickled as lists are
            self.beside.append(self.instead(value))
        elif isinstance(value, types.FunctionType) and _holds_values(value):
            return None
        else:
            self.beside.append(value)
        number = len(self.beside) - 1
        self._numbers[id(value)] = number, value
        return number

    def instead(self, value: Any) -> Any:
        """What stands for a tensor or an array."""
        raise NotImplementedError


def _holds_values(function: types.FunctionType) -> bool:
    """Whether a function has values of its own, which may be tensors."""
    return bool(function.__closure__ or function.__defaults__ or function.__kwdefaults__)


_AS_THEY_ARE = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)


class _Copying(_Beside):
    def __init__(self, stream: io.BytesIO, copy: _Copy) -> None:
        super().__init__(stream)
        self._copy = copy

    def instead(self, value: Any) -> Any:
        return self._copy(value)


class _Looking(_Beside):
    def __init__(self, memories: Collection[range]) -> None:
        super().__init__(io.BytesIO())
        self._memories, self.found = memories, False

    def instead(self, value: Any) -> Any:
        self.found = self.found or _within(value, self._memories)


class _Copied(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, beside: list[Any]) -> None:
        super().__init__(stream)
        self._beside = beside

    def persistent_load(self, number: Any) -> Any:
        return self._beside[number]


# -- whose memory --------------------------------------------------------------------------------


def memory_of(tensor: Tensor) -> int | None:
    """Where a tensor's memory begins; None where it has none of the common kind."""
    has_some = tensor.layout is torch.strided and tensor.device.type != "meta" and tensor.numel()
    return tensor.untyped_storage().data_ptr() if has_some else None


def apart(value: Any, *tensors: Tensor) -> tuple[Any, bool]:
    """A value without memory of these tensors, and whether it had some: what has is copied. Lists and
    dictionaries stay the same ones, as others may hold them."""
    memories = [m for m in map(_memory, tensors) if m]
    separate = _Separate(memories)
    return separate(value), separate.found


class _Separate(Rebuild):
    """Copies, in a value, what has some of this memory; containers stay the same ones."""

    def __init__(self, memories: Collection[range]) -> None:
        super().__init__()
        self._memories, self.found = memories, False

    def opens(self, value: Any) -> bool:
        return super().opens(value) or isinstance(value, (list, dict, set, tuple))

    def empty(self, value: Any) -> Any:
        return value

    def leaf(self, value: Any) -> Any:
        plain = isinstance(value, Tensor) or _is_array(value)
        if not (_within if plain else _holds)(value, self._memories):
            return value
        self.found = True
        return copied(value)


def _memory(tensor: Tensor) -> range | None:
    start = memory_of(tensor)
    return None if start is None else range(start, start + tensor.untyped_storage().nbytes())


def _within(value: Any, memories: Collection[range]) -> bool:
    if isinstance(value, Tensor):
        start = memory_of(value)
    else:
        start = value.__array_interface__["data"][0] if value.size else None
    return start is not None and any(start in memory for memory in memories)


def _holds(value: Any, memories: Collection[range]) -> bool:
    """Whether an object holds some of this memory, as far as it can travel."""
    looking = _Looking(memories)
    try:
        looking.dump(value)
    except (Exception, SystemExit) as error:  # as above
        if memory.ended(error):
            raise
    return looking.found


def _is_array(value: Any) -> bool:
    """Whether a value is a NumPy array of plain numbers."""
    return type(value) is np.ndarray and not value.dtype.hasobject
