"""Where buffers travel: inline or through shared memory, checked, and leaving nothing behind."""

from __future__ import annotations

import gc
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from garcon_jupyter.errors import BadRequest, DoesNotFit
from garcon_jupyter.wire import shared_files, transport
from garcon_jupyter.wire.transport import Corrupted

LARGE = torch.arange(50_000, dtype=torch.float32)  # 200 kB: more than travels inline


def test_small_values_travel_inline_even_on_one_host(tmp_path: Path) -> None:
    content, buffers = transport.pack({"x": torch.ones(3)}, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert transport.unpack(content, buffers)["x"].tolist() == [1, 1, 1]


def test_many_small_values_travel_as_one() -> None:
    values = [
        torch.full((n % 5,), n, dtype=torch.bfloat16 if n % 2 else torch.int64) for n in range(300)
    ]
    content, buffers = transport.pack(values)
    assert len(buffers) == 2
    for found, value in zip(transport.unpack(content, buffers), values, strict=True):
        assert found.dtype == value.dtype and torch.equal(found, value)
        found += 1  # each has memory of its own


def test_large_values_travel_through_one_file_that_is_gone_at_once(tmp_path: Path) -> None:
    content, buffers = transport.pack([LARGE, LARGE * 2, "text"], tmp_path)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sum(len(buffer) for buffer in buffers) < 10_000
    one, two, text = transport.unpack(content, buffers, shared=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(one, LARGE) and torch.equal(two, LARGE * 2) and text == "text"
    del content, buffers
    gc.collect()
    one[0] = 5  # the mapping lives as long as its tensors, and is theirs to edit
    assert one[0] == 5 and two[1] == 2


def test_a_file_is_taken_from_the_servers_directory_only(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    content, buffers = transport.pack(LARGE, tmp_path)
    with pytest.raises(Corrupted, match="not the server's"):
        transport.unpack(content, buffers, shared=tmp_path / "mine")
    (file,) = (path for path in tmp_path.iterdir() if path.is_file())
    assert file.stat().st_size >= LARGE.nbytes  # nor was it removed
    assert torch.equal(transport.unpack(content, buffers, shared=tmp_path), LARGE)


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

    monkeypatch.setattr(shared_files.os, "pwrite", full)
    with pytest.raises(DoesNotFit, match="No space left"):
        transport.pack(LARGE, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["elsewhere", "above", "link", "directory", "nothing", "no name"])
def test_a_file_is_taken_only_from_the_directory_of_the_server(tmp_path: Path, how: str) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"a" * 1_000_000)
    (shared / "link").symlink_to(victim)
    content, buffers = transport.pack(LARGE, shared)
    named = {
        "elsewhere": str(victim),
        "above": f"{shared}/../victim",
        "link": f"{shared}/link",
        "directory": f"{shared}/..",
        "nothing": f"{shared}/nothing",
        "no name": str(shared),
    }[how]
    content["value"]["files"] = [named]
    with pytest.raises(Corrupted):
        transport.unpack(content, buffers, shared=shared)
    assert victim.read_bytes() == b"a" * 1_000_000


@pytest.mark.parametrize(
    "place",
    [
        [0, 0],
        [0, 0, 1, 2],
        [0, -1, 10],
        [0, 0, 10**9],
        [0, 10**9, 0],
        [0, 0, -5],
        [1, 0, 5],
        [-1, 0, 5],
    ],
)
def test_parts_that_the_file_does_not_have_are_refused(tmp_path: Path, place: list[int]) -> None:
    content, buffers = transport.pack(LARGE, tmp_path)
    content["value"]["places"] = [place]
    with pytest.raises(Corrupted, match="parts that its file does not have"):
        transport.unpack(content, buffers, shared=tmp_path)


@pytest.mark.parametrize("described", [None, {}, [], {"digests": "x"}, {"digests": [5]}, "text"])
def test_a_description_that_is_none_is_refused(described: Any) -> None:
    _, buffers = transport.pack(LARGE, None)
    with pytest.raises((BadRequest, Corrupted)):
        transport.unpack({"value": described}, buffers)
    with pytest.raises(BadRequest):
        transport.unpack({}, buffers)
