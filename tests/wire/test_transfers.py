"""Transfers: laid out, cut into chunks, asked for within a window, and sealed."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from garcon_jupyter.errors import DoesNotFit
from garcon_jupyter.wire import transfers
from garcon_jupyter.wire.transfers import ALIGN, WINDOW, Incoming, Outgoing, opened, sealed

KEY = b"a key of the server"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "CHUNK", 100)


@given(st.lists(st.integers(0, 700), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_chunks_are_the_buffers_one_after_the_other(sizes: list[int], rng: random.Random) -> None:
    transfers.CHUNK = 100
    buffers = [rng.randbytes(size) for size in sizes]
    outgoing = Outgoing(buffers)
    whole = b"".join(bytes(outgoing.chunk(number)) for number in range(len(outgoing)))
    assert len(whole) == outgoing.size
    expected = b""
    for buffer in buffers:
        assert outgoing.spans[0][0] % ALIGN == 0
        expected += b"\0" * (-len(expected) % ALIGN) + buffer
    assert whole == expected[: len(whole)] and not expected[len(whole) :].strip(b"\0")
    for (start, size), buffer in zip(outgoing.spans, buffers, strict=True):
        assert whole[start : start + size] == buffer


def test_a_chunk_within_one_buffer_is_not_copied() -> None:
    array = np.zeros(1000, np.uint8)
    chunk = Outgoing([array.data]).chunk(3)
    array[350] = 7
    assert memoryview(chunk)[50] == 7


def test_it_is_asked_for_as_far_as_the_window_and_each_chunk_once() -> None:
    incoming, asked = Incoming(100 * 50 + 1), []
    on_their_way: list[int] = []
    while not incoming.whole:
        while run := incoming.wanted():
            on_their_way += range(run[0], sum(run))
        assert 0 < len(on_their_way) <= WINDOW
        asked.append(on_their_way.pop(0))
        place = incoming.place(asked[-1])
        assert place is not None and place.nbytes == (1 if asked[-1] == 50 else 100)
        place[:] = bytes([asked[-1]]) * place.nbytes
        incoming.arrived(asked[-1])
        assert incoming.place(asked[-1]) is None
    assert asked == list(range(51))
    assert bytes(incoming.memory) == b"".join(bytes([n]) * 100 for n in range(50)) + bytes([50])


def test_after_a_break_it_asks_for_what_is_lacking_and_no_more() -> None:
    incoming = Incoming(100 * 40)
    assert incoming.wanted() == (0, WINDOW)
    for number in (0, 1, 2, 5, 6):
        incoming.arrived(number)
    incoming.ask_again()
    wanted = [number for run in iter(incoming.wanted, None) for number in range(run[0], sum(run))]
    assert wanted[:6] == [3, 4, 7, 8, 9, 10] and len(wanted) == WINDOW
    assert incoming.lacking == 100 * 35


def test_what_no_memory_can_hold_is_refused() -> None:
    with pytest.raises(DoesNotFit, match="no memory for"):
        Incoming(1 << 50)


def test_a_seal_is_right_for_its_header_and_key_only() -> None:
    message = sealed(KEY, {"verb": "ask", "first": 3})
    assert opened(KEY, message) == {"verb": "ask", "first": 3}
    assert opened(b"another key", message) is None
    assert opened(KEY, message.replace(b"3", b"4")) is None
    for wrong in (b"", b"x", message[:-1], message[1:], message[:32]):
        assert opened(KEY, wrong) is None
    assert opened(KEY, sealed(KEY, [1, 2])) is None  # type: ignore[arg-type]
