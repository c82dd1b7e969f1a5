"""The socket for data, with real sockets: what arrives, what is resumed, what is refused, what is dropped."""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from garcon_backend.kernel import data_socket
from garcon_backend.kernel.data_socket import DataPlane
from garcon_jupyter.connection import data_line
from garcon_jupyter.connection.data_line import DataLine
from garcon_jupyter.connection.deferred_interrupts import Patience
from garcon_jupyter.errors import DoesNotFit, Interrupted, ServerGone, Unreachable
from garcon_jupyter.wire.transfers import CHUNK, WINDOW, Outgoing, sealed

KEY = b"the key of the server"
SIZE = 40 * CHUNK + 12345


class Counted(Outgoing):
    """Counts the chunks that were sent."""

    sent = 0

    def chunk(self, number: int) -> Any:
        self.sent += 1
        return super().chunk(number)


class Cable:
    """A relay between a client and the plane, which can be cut, and cuts itself after so many bytes.

    Attributes:
        after: bytes of an answer after which a connection is cut, of each next one.
    """

    def __init__(self, target: int, after: Iterator[int]) -> None:
        self._target, self.after, self.cuts = target, after, 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._relay, args=(near, far), daemon=True).start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        left = next(self.after)
        with near, far:
            while True:
                for one in select.select([near, far], [], [])[0]:
                    try:
                        data = one.recv(1 << 16)
                    except OSError:
                        return
                    if not data:
                        return
                    left -= len(data)
                    if left < 0:
                        self.cuts += 1
                        return
                    (far if one is near else near).sendall(data)

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def plane() -> Iterator[DataPlane]:
    plane = DataPlane(KEY, "tcp://127.0.0.1:*")
    yield plane
    plane.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def line_to(context: zmq.Context[Any]) -> Callable[..., DataLine]:
    def made(
        address: str,
        key: bytes = KEY,
        curve: tuple[bytes, bytes] | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> DataLine:
        def connect() -> Any:
            sock = context.socket(zmq.DEALER)
            if curve:
                sock.curve_serverkey = sock.curve_publickey = curve[0]
                sock.curve_secretkey = curve[1]
            sock.connect(address)
            return sock

        return DataLine(key, connect, Patience(), alive)

    return made


@pytest.fixture
def line(plane: DataPlane, line_to: Callable[..., DataLine]) -> DataLine:
    return line_to(plane.address)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_line, "RETRY", 0.3)
    monkeypatch.setattr(data_line, "GIVE_UP", 2.0)


def numbers(size: int = SIZE) -> Any:
    return np.random.default_rng(size).integers(0, 256, size, np.uint8)


def port(plane: DataPlane) -> int:
    return int(plane.address.rpartition(":")[2])


def names(plane: DataPlane) -> set[str]:
    return {*plane._offered, *plane._coming}


def soon(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + 5
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    return what()


def test_down_and_up_every_byte_arrives_and_nothing_is_kept(
    plane: DataPlane, line: DataLine
) -> None:
    sent = [numbers(), numbers(7), numbers(0), numbers(3 * CHUNK)]
    outgoing = Outgoing([array.data for array in sent])
    came = line.take(plane.offer("me", outgoing), outgoing.size)
    for array, (start, size) in zip(sent, outgoing.spans, strict=True):
        assert np.array_equal(np.frombuffer(came[start : start + size], np.uint8), array)
    assert soon(lambda: not names(plane))

    name = line.give("me", outgoing)
    claimed = plane.claim(name)
    assert claimed is not None and claimed == came
    assert plane.claim(name) is None and not names(plane)


def test_with_curve(line_to: Callable[..., DataLine]) -> None:
    curve = zmq.curve_keypair()
    plane = DataPlane(KEY, "tcp://127.0.0.1:*", curve)
    array = numbers()
    came = line_to(plane.address, curve=curve).take(plane.offer("", Outgoing([array])), SIZE)
    assert np.array_equal(np.frombuffer(came, np.uint8), array)
    plane.close()


@pytest.mark.lasting
def test_more_than_two_gibibytes(plane: DataPlane, line: DataLine) -> None:
    size = (2 << 30) + CHUNK + 5
    array = np.zeros(size, np.uint8)  # which takes no memory until it is written
    array[[0, 1 << 31, -1]] = 3, 5, 7
    came = np.frombuffer(line.take(plane.offer("", Outgoing([array.data])), size), np.uint8)
    assert [int(came[n]) for n in (0, 1 << 31, -1)] == [3, 5, 7]
    assert int(np.count_nonzero(came)) == 3


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_broken_connection_goes_on_where_it_broke(
    plane: DataPlane, line_to: Callable[..., DataLine], impatient: None, way: str
) -> None:
    cable = Cable(port(plane), itertools.chain([10 * CHUNK, 3 * CHUNK], itertools.repeat(1 << 40)))
    line, array = line_to(cable.address), numbers()
    outgoing = Counted([array.data])
    if way == "down":
        came = line.take(plane.offer("", outgoing), SIZE)
    else:
        claimed = plane.claim(line.give("", outgoing))
        assert claimed is not None
        came = claimed
    assert np.array_equal(np.frombuffer(came, np.uint8), array)
    assert cable.cuts >= 1
    assert len(outgoing) < outgoing.sent <= len(outgoing) + 3 * WINDOW
    cable.close()


@pytest.mark.lasting
def test_one_that_stays_broken_fails_in_time(
    plane: DataPlane, line_to: Callable[..., DataLine], impatient: None
) -> None:
    cable = Cable(port(plane), itertools.chain([5 * CHUNK], itertools.repeat(0)))
    began = time.monotonic()
    with pytest.raises(Unreachable, match="no data for 2 seconds"):
        line_to(cable.address).take(plane.offer("", Outgoing([numbers().data])), SIZE)
    assert time.monotonic() - began < 5
    cable.close()


@pytest.mark.lasting
def test_where_the_server_is_gone_its_own_error_is_told(
    plane: DataPlane, line_to: Callable[..., DataLine]
) -> None:
    def gone() -> None:
        raise ServerGone("Server 'x' has ended: of itself.", "")

    cable = Cable(port(plane), itertools.chain([5 * CHUNK], itertools.repeat(0)))
    line = line_to(cable.address, alive=gone)
    with pytest.raises(ServerGone, match="of itself"):
        line.take(plane.offer("", Outgoing([numbers().data])), SIZE)
    cable.close()


def test_one_that_does_not_read_holds_up_nobody(
    plane: DataPlane, line: DataLine, context: zmq.Context[Any]
) -> None:
    outgoing = Counted([numbers(100 * CHUNK).data])
    slow = context.socket(zmq.DEALER)
    slow.linger, slow.rcvhwm = 0, 1
    slow.connect(plane.address)
    name = plane.offer("slow", outgoing)
    for first in range(0, 100, 10):
        for _ in range(50):
            ask = {"verb": "ask", "transfer": name, "first": first, "count": 10}
            slow.send(sealed(KEY, ask))
    array = numbers()
    came = line.take(plane.offer("quick", Outgoing([array.data])), SIZE)
    assert np.array_equal(np.frombuffer(came, np.uint8), array)
    assert outgoing.sent < 5000  # not all that it asked for waits to be sent
    plane.leave("slow")
    assert not names(plane)


@pytest.mark.lasting
def test_without_the_key_nothing_is_served(
    plane: DataPlane, line_to: Callable[..., DataLine], line: DataLine, impatient: None
) -> None:
    outgoing = Counted([numbers().data])
    name = plane.offer("", outgoing)
    stranger = line_to(plane.address, key=b"another key")
    with pytest.raises(Unreachable, match="no data"):
        stranger.take(name, SIZE)
    with pytest.raises(Unreachable, match="no data"):
        stranger.give("", outgoing)
    assert outgoing.sent == 0 and names(plane) == {name}


@pytest.mark.lasting
def test_a_stranger_at_the_port_is_not_believed(
    line_to: Callable[..., DataLine], context: zmq.Context[Any], impatient: None
) -> None:
    """Who took the port of a server that ended sends what they like: it is not received."""
    stranger = context.socket(zmq.ROUTER)
    stranger.linger = 0
    at = f"tcp://127.0.0.1:{stranger.bind_to_random_port('tcp://127.0.0.1')}"

    def serve() -> None:
        while stranger.poll(3000):
            client, _ = stranger.recv_multipart()
            lie = sealed(b"no key", {"verb": "chunk", "transfer": "a name", "number": 0})
            stranger.send_multipart([client, lie, b"wrong" * 20])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.raises(Unreachable):
        line_to(at).take("a name", 100)
    thread.join()


def test_what_it_does_not_have_is_told_at_once(plane: DataPlane, line: DataLine) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match="no longer has this answer"):
        line.take("nothing", SIZE)
    array = numbers(CHUNK)
    assert line.take(plane.offer("", Outgoing([array.data])), CHUNK) == array.data
    assert time.monotonic() - began < 2


def test_what_does_not_fit_is_refused_before_anything_is_sent(
    plane: DataPlane, line: DataLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_socket.memory, "left", lambda: 30 * CHUNK)
    outgoing = Counted([numbers().data])
    with pytest.raises(DoesNotFit, match=r"no room for 40.0 MiB .* 30.0 MiB are free"):
        line.give("me", outgoing)
    assert outgoing.sent == 0 and not names(plane)
    assert plane.claim(line.give("me", Outgoing([numbers(29 * CHUNK).data]))) is not None


def test_what_nobody_asks_for_is_dropped_unless_it_is_kept(
    plane: DataPlane, line: DataLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = numbers(CHUNK)
    dropped, kept, gone = (plane.offer(who, Outgoing([array.data])) for who in ("a", "a", "b"))
    plane.keep(kept)
    plane._drop_old()
    assert names(plane) == {dropped, kept, gone}  # nothing is that old
    plane.leave("b")
    monkeypatch.setattr(data_socket, "KEPT", 0.0)
    plane._drop_old()
    assert names(plane) == {kept}
    for _ in range(2):  # it may be asked for again, until it is let go of
        assert line.take(kept, CHUNK) == array.data
    plane.let_go(kept)
    assert not names(plane)


def test_an_interrupt_ends_it_on_both_sides(plane: DataPlane, line: DataLine) -> None:
    class Slow(Outgoing):
        def chunk(self, number: int) -> Any:
            if number == 20:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
            return super().chunk(number)

    name = plane.offer("", Slow([numbers().data]))
    with pytest.raises(Interrupted, match="interrupted fetching 40.0 MiB"):
        line.take(name, SIZE)
    assert soon(lambda: not names(plane))
    array = numbers(CHUNK)
    assert line.take(plane.offer("", Outgoing([array.data])), CHUNK) == array.data


def test_noise_changes_nothing(plane: DataPlane, line: DataLine, context: zmq.Context[Any]) -> None:
    noisy = context.socket(zmq.DEALER)
    noisy.linger = 0
    noisy.connect(plane.address)
    name = plane.offer("", Outgoing([numbers(CHUNK).data]))
    headers: list[Any] = [
        {},
        [],
        5,
        {"verb": 5},
        {"verb": "no such", "transfer": name},
        {"verb": "ask", "transfer": name},
        {"verb": "ask", "transfer": name, "first": -1, "count": 5},
        {"verb": "ask", "transfer": name, "first": 1 << 40, "count": 1 << 40},
        {"verb": "ask", "transfer": [name], "first": 0, "count": 1},
        {"verb": "chunk", "transfer": name, "number": 0},
        {"verb": "offer", "transfer": "x", "session": 5, "size": 5},
        {"verb": "offer", "transfer": "x", "session": "", "size": 1 << 80},
        {"verb": "offer", "transfer": "x", "session": "", "size": 1 << 49},
    ]
    for header in headers:
        noisy.send_multipart([sealed(KEY, header), b"more", b"and more"])
        noisy.send_multipart([sealed(b"no key", header)])
        noisy.send_multipart([b"noise" * 100, b""])
    assert line.take(name, CHUNK) == numbers(CHUNK).data
    assert soon(lambda: not names(plane))
