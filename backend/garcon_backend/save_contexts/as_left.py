"""A saved value as a request left it: held without a copy, as long as nobody changes it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from garcon_backend.libraries.torch_internals import version_of
from garcon_backend.save_contexts.copies import copied
from garcon_backend.save_contexts.journal import Piece
from garcon_backend.save_contexts.walking import Rebuild
from garcon_jupyter.wire import codec

_BASE = 12 << 10
_PACKED = 16 << 10
_COUNTED = 256
"""What it costs to pickle a value, a tensor in it and a number in it, as bytes that are written in that time."""

_COUNTED_AS_NUMBERS = (torch.dtype, torch.device, torch.Size)


class AsLeft:
    """A value with its containers copied, and its tensors as they are.

    Attributes:
        value: what is held.
        size: its bytes, as far as they are known.
        cost: of writing it, in bytes that are written in the same time.
        plain: whether pickling it runs no code of others.
        opaque: whether something in it does not tell when it changes.
    """

    __slots__ = ("_versions", "cost", "opaque", "plain", "size", "value")

    def __init__(self, value: Any) -> None:
        holding = _Holding()
        try:
            self.value = holding(value)
            self.plain, self.opaque = holding.plain, holding.opaque
        except Exception:  # noqa: BLE001 - memory may have ended, or containers go too deep
            self.value, self.plain, self.opaque = value, False, True
        self.size, self.cost, self._versions = holding.size, holding.cost, holding.versions

    @property
    def intact(self) -> bool:
        """Whether no tensor was changed since."""
        return all(version_of(tensor) == version for tensor, version in self._versions)

    def copy_opaque(self) -> None:
        """Before somebody changes objects that would not tell."""
        if self.opaque:
            self.opaque = False
            with contextlib.suppress(Exception):  # memory may have ended
                self.value = copied(self.value)
                self._versions = []


class _Holding(Rebuild):
    """Makes the containers of an :class:`AsLeft`, and counts what is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.size, self.cost = 0, _BASE
        self.plain, self.opaque = True, False
        self.versions: list[tuple[Tensor, int]] = []

    def simple(self, value: Any) -> Any:
        return self._counted(value, len(value) if isinstance(value, (str, bytes)) else 8)

    def numbers(self, values: Collection[Any]) -> list[Any]:
        copied: list[Any] = self._counted(list(values), 8 * len(values), 64 * len(values))
        return copied

    def empty(self, value: Any) -> Any:
        if isinstance(value, dict):
            self.each(value)  # keys stay as they are, and count
        return super().empty(value)

    def leaf(self, value: Any) -> Any:
        kind = type(value)
        if kind is Tensor:
            return self._tensor(value)
        if kind in _COUNTED_AS_NUMBERS or issubclass(kind, np.generic):
            return self._counted(value, 8)
        if kind is np.ndarray and not value.dtype.hasobject:
            self.opaque = True
            return self._counted(value, value.nbytes, _PACKED)
        self.plain, self.opaque = False, True
        return value

    def _tensor(self, tensor: Tensor) -> Tensor:
        if tensor.layout is torch.strided and not tensor.is_quantized:
            self._counted(tensor, tensor.nbytes, _PACKED)
        else:
            self.plain = False
        if tensor.is_inference():  # which counts no versions
            self.opaque = True
        else:
            self.versions.append((tensor, version_of(tensor)))
        return tensor

    def _counted(self, value: Any, size: int, cost: int = _COUNTED) -> Any:
        self.size += size
        self.cost += size + cost
        return value


def pickled(value: Any) -> list[Piece]:
    """A value's pickle, and the bytes beside it.

    Raises:
        CannotTravel: something inside cannot be pickled.
    """
    kind = None
    if type(value) is Tensor and value.is_contiguous() and value.device.type == "cpu":
        kind = (value.dtype, value.shape, value.is_conj(), value.is_neg(), value.requires_grad)
        if (payload := _payloads.get(kind)) is not None:
            return [payload, value.view(-1).view(torch.uint8).numpy().data]
    payload, buffers = codec.dumps(value)
    if kind is not None and not any(kind[2:]) and len(_payloads) < _REMEMBERED:
        _payloads[kind] = payload
    return [payload, *buffers]


_payloads: dict[Any, bytes] = {}
"""The pickles of tensors, whose bytes are beside them: those of one shape are alike. It takes a fifth of the time."""

_REMEMBERED = 1024


def unpickled(whole: bytearray, spans: Sequence[int]) -> Any:
    """The value of :func:`pickled`, of which the pieces are so long. Each has memory of its own."""
    ends = itertools.accumulate(spans)
    payload, *buffers = (whole[end - size : end] for end, size in zip(ends, spans, strict=True))
    return codec.loads(payload, buffers)
