"""Values to bytes and back: exact, editable, out of band, and refused by name."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from garcon_jupyter.errors import CannotTravel
from garcon_jupyter.wire import codec

DTYPES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
]


def there_and_back(value: Any) -> Any:
    """Through immutable bytes, as a socket would carry them."""
    payload, buffers = codec.dumps(value)
    return codec.loads(payload, [bytes(buffer) for buffer in buffers])


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.contiguous().reshape(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_keeps_its_bits(dtype: torch.dtype) -> None:
    tensor = (torch.randn(3, 5, generator=torch.Generator().manual_seed(0)) * 4).to(dtype)
    back = there_and_back(tensor)
    assert back.dtype == dtype
    assert back.shape == (3, 5)
    assert bits(back) == bits(tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5),
        torch.empty(0, 4),
        torch.arange(24).reshape(2, 3, 4).transpose(0, 2),
        torch.arange(10)[::3],
        torch.ones(1).expand(3, 3),
        torch.tensor([1 + 2j, 3 - 1j]).conj(),
    ],
    ids=["scalar", "empty", "transposed", "strided", "expanded", "conjugated"],
)
def test_every_layout_keeps_its_values(tensor: torch.Tensor) -> None:
    back = there_and_back(tensor)
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_what_arrives_can_be_edited() -> None:
    back = there_and_back({"a": torch.zeros(3), "b": [torch.ones(2)]})
    back["a"][1] = 5
    back["b"][0] += 1
    assert back["a"].tolist() == [0, 5, 0]
    assert back["b"][0].tolist() == [2, 2]


def test_tensors_leave_the_pickle() -> None:
    payload, buffers = codec.dumps([torch.zeros(100_000), np.zeros(50_000)])
    assert len(payload) < 2_000
    assert [buffer.nbytes for buffer in buffers] == [400_000, 400_000]


def test_a_view_does_not_drag_its_storage_along() -> None:
    _, buffers = codec.dumps(torch.zeros(1000, 1000)[0])
    assert sum(buffer.nbytes for buffer in buffers) == 4_000


def test_requiring_grad_survives_for_leaves_only() -> None:
    leaf = torch.ones(2, requires_grad=True)
    back = there_and_back((leaf, leaf * 2))
    assert back[0].requires_grad and back[0].is_leaf
    assert not back[1].requires_grad


def test_functions_and_classes_travel_by_value() -> None:
    offset = 7
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(
        "class Row:\n    def __init__(self, n): self.n = n\n    def twice(self): return 2*self.n",
        scope,
    )
    assert there_and_back(lambda x: x + offset)(1) == 8
    assert there_and_back(scope["Row"](4)).twice() == 8


class Stubborn:
    """Refuses to be pickled with an exception of its own choice."""

    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (threading.Lock(), "lock"),
        ((n for n in range(3)), "generator"),
        (Stubborn(), "Stubborn"),
        (torch.eye(2).to_sparse(), "Tensor"),
    ],
    ids=["lock", "generator", "own exception", "sparse"],
)
def test_what_cannot_travel_is_refused_by_type(value: Any, name: str) -> None:
    with pytest.raises(CannotTravel, match=name):
        codec.dumps(value)


def test_a_digest_notices_one_bit() -> None:
    data = bytearray(100)
    before = codec.digest(data)
    data[50] ^= 1
    assert codec.digest(data) != before
    assert codec.digest(memoryview(bytes(100))) == before
