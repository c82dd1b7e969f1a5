"""Where buffers travel: inline or through shared memory, checked, and leaving nothing behind."""

from __future__ import annotations

import gc
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from garcon_jupyter.wire import transport
from garcon_jupyter.wire.transport import Corrupted

LARGE = torch.arange(50_000, dtype=torch.float32)  # 200 kB: more than travels inline


def test_small_values_travel_inline_even_on_one_host(tmp_path: Path) -> None:
    content, buffers = transport.pack({"x": torch.ones(3)}, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert transport.unpack(content, buffers)["x"].tolist() == [1, 1, 1]


def test_large_values_travel_through_one_file_that_is_gone_at_once(tmp_path: Path) -> None:
    content, buffers = transport.pack([LARGE, LARGE * 2, "text"], tmp_path)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sum(len(buffer) for buffer in buffers) < 10_000
    one, two, text = transport.unpack(content, buffers)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(one, LARGE) and torch.equal(two, LARGE * 2) and text == "text"
    del content, buffers
    gc.collect()
    one[0] = 5  # the mapping lives as long as its tensors, and is theirs to edit
    assert one[0] == 5 and two[1] == 2


def test_without_shared_memory_all_travels_inline() -> None:
    content, buffers = transport.pack(LARGE, None)
    assert sum(len(memoryview(buffer).cast("B")) for buffer in buffers) > LARGE.nbytes
    assert torch.equal(transport.unpack(content, buffers), LARGE)


def tampered(buffers: list[Any], number: int) -> list[bytes]:
    copies = [bytearray(memoryview(buffer).cast("B")) for buffer in buffers]
    copies[number][-1] ^= 1
    return [bytes(copy) for copy in copies]


@pytest.mark.parametrize("number", [0, 1], ids=["the pickle", "a tensor"])
def test_a_changed_buffer_is_refused_before_anything_is_unpickled(number: int) -> None:
    content, buffers = transport.pack(LARGE, None)
    with pytest.raises(Corrupted, match="other than those that were signed"):
        transport.unpack(content, tampered(buffers, number))


def test_a_missing_buffer_is_refused() -> None:
    content, buffers = transport.pack(LARGE, None)
    with pytest.raises(Corrupted):
        transport.unpack(content, buffers[:1])


def test_nothing_stays_in_shared_memory_when_writing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transport.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        transport.pack(LARGE, tmp_path)
    assert list(tmp_path.iterdir()) == []
