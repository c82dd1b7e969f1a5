"""Any Python value to one pickle and a list of raw buffers, and back.

Functions and classes of a notebook, and of the user's own modules, go by value
(:mod:`garcon_jupyter.user_code.pickling`). Tensors and arrays leave the
pickle *out of band* (pickle protocol 5): their bytes are never copied into it, so that a transport
can send, share or map them as they are. A Jupyter signature does not cover buffers, hence
:func:`digest`: it goes into the signed part of a message and is checked before anything is unpickled.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from garcon_jupyter import imported
from garcon_jupyter.errors import CannotTravel
from garcon_jupyter.user_code import pickling

Buffer = bytes | bytearray | memoryview


class _TensorPickler(pickling.Pickler):
    """With tensors out of band."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tensor = _tensor_class()

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, self._tensor):
            return _reduce_tensor(obj)
        return super().reducer_override(obj)


_known: list[type] = []


def _tensor_class() -> type | tuple[()]:
    """``torch.Tensor``; while torch is not whole, nothing, as nothing that is pickled can be one."""
    if not _known and (torch := imported.whole("torch")) is not None:
        _known.append(torch.Tensor)
    return _known[0] if _known else ()


def _reduce_tensor(tensor: Any) -> tuple[Any, tuple[Any, ...]]:
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(f"a tensor of layout {tensor.layout} cannot travel; make it dense first")
    requires_grad = tensor.requires_grad and tensor.is_leaf
    plain = tensor.detach().cpu().contiguous()
    if plain.is_conj() or plain.is_neg():
        plain = plain.resolve_conj().resolve_neg()
    raw = plain.reshape(-1).view(torch.uint8).numpy()
    dtype = str(plain.dtype).removeprefix("torch.")
    return _rebuild_tensor, (pickle.PickleBuffer(raw), dtype, tuple(plain.shape), requires_grad)


def _rebuild_tensor(raw: Any, dtype: str, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch

    view = memoryview(raw)
    kind = getattr(torch, dtype)
    if view.nbytes == 0:
        tensor = torch.empty(shape, dtype=kind)
    else:
        # A read-only buffer would make torch warn, and a tensor that cannot be edited is no tensor.
        writable = view if not view.readonly else memoryview(bytearray(view))
        tensor = torch.frombuffer(writable, dtype=torch.uint8).view(kind).reshape(shape)
    return tensor.requires_grad_() if requires_grad else tensor


def dumps(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickle a value.

    Returns:
        The pickle, and the raw bytes of every tensor and array in it, in order.

    Raises:
        CannotTravel: something inside cannot be pickled; names its type.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        payload = pickling.dumps(value, _TensorPickler, buffers.append)
    except (Exception, SystemExit) as error:  # objects may raise anything when asked for this
        raise CannotTravel(
            f"A value of type {type(value).__name__} cannot be pickled: {error}.",
            "Send or save plain data, arrays and tensors; open files and locks cannot travel.",
        ) from error
    return payload, [_flat(buffer) for buffer in buffers]


def _flat(buffer: pickle.PickleBuffer) -> memoryview:
    try:
        return buffer.raw()
    except BufferError:  # neither C- nor F-contiguous
        array: Any = np.ascontiguousarray(memoryview(buffer))
        return memoryview(array).cast("B")


def loads(payload: Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """The value of :func:`dumps`. Tensors alias the buffers where those are writable."""
    return pickle.loads(payload, buffers=buffers)


def digest(data: Buffer) -> str:
    """sha256 of a buffer, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
