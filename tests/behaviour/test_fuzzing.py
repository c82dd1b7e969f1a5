"""A hundred thousand messages that make no sense, half of them rightly signed: nothing breaks, grows, or runs.

Most go to the socket files of a server on one host, the others to the encrypted ports of one over hosts.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

import garcon_jupyter as garcon
from garcon_backend.lockstep.command_sockets import RANK_ZERO
from garcon_jupyter.servers import control, registry
from garcon_jupyter.servers.server import log_file, shared_directory
from garcon_jupyter.wire import protocol, requests, transport
from tests.conftest import quiet
from tests.fuzzing import DELIMITER, Frames, Fuzzer
from tests.oracle import PROMPT, Plain, close

FILES = {
    **{"shell": 54_000, "control": 40_000, "data": 6_000},
    **{"stdin": 2_000, "iopub": 2_000, "hb": 2_000},
}
PORTS = {
    **{"shell": 7_000, "control": 5_000, "data": 3_000},
    **{"stdin": 1_000, "iopub": 1_000, "hb": 1_000},
}
"""Messages to the sockets of each."""

BATCH = 500

MEMORY = 24 << 20
"""Bytes that the server may grow by after the first tenth: 65,536 signatures that must not come again are 12 MiB,
the rest is slack of the allocator. (What clients said that they want to hear once took twice as much.)"""

LOG = 2 << 20

SENT_AWAY = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)
"""What befalls a connection that the server does not want."""


@dataclass
class Line:
    """A socket to one port of the server, and what came back by it."""

    port: str
    socket: Any
    replies: Counter[str] = field(default_factory=Counter)
    tracebacks: list[str] = field(default_factory=list)

    def drain(self, until: str = "") -> None:
        """Take what has come; with `until`, wait for the reply to that message."""
        while self.socket.poll(10_000 if until else 0):
            frames = self.socket.recv_multipart()
            if DELIMITER not in frames or self.port not in ("shell", "control"):
                continue  # an echo, or what everybody hears
            _, _, _, parent, _, content, *_ = frames[frames.index(DELIMITER) :]
            asked, told = json.loads(parent).get("msg_id"), json.loads(content)
            self.replies[str(asked)] += 1
            failure = told.get("failure") or {}
            if failure.get("class") == "ServerError":
                self.tracebacks.append(failure["trace"])
            if asked == until:
                return
        assert not until, f"no answer on {self.port}"


@pytest.fixture(scope="module", params=["files", "ports"])
def server(
    request: pytest.FixtureRequest, llama_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[garcon.Server]:
    """On socket files, or on encrypted ports, as the first of several hosts has them."""
    directory = tmp_path_factory.mktemp("secret")
    several = over_hosts(directory) if request.param == "ports" else {}
    server = garcon.launch(llama_path, f"fuzzed-{request.param}", progress=quiet, **several)
    yield server
    control.kill(server)


def over_hosts(directory: Path) -> dict[str, Any]:
    """How a server is launched that speaks as the first of several hosts does."""
    secret = directory / "secret"
    secret.touch(0o600)
    secret.write_text("0123456789abcdef" * 4)
    address = f"127.0.0.1:{free_port()}"
    return {
        "nnodes": 1,
        "rdzv_endpoint": address,
        "secret_file": secret,
        "local_addr": "127.0.0.1",
    }


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def model(server: garcon.Server) -> Iterator[garcon.RemoteModel]:
    model = garcon.connect(server.name)
    yield model
    model.close()


@pytest.fixture
def fuzzer(model: garcon.RemoteModel, tmp_path: Path) -> Fuzzer:
    info = model._channel.info
    shared = shared_directory(model.server.name)
    return Fuzzer(1, info["key"], model.session, tmp_path / "trap", shared)


def address(info: dict[str, Any], port: str) -> str:
    joint = "-" if info["transport"] == "ipc" else ":"
    return f"{info['transport']}://{info['ip']}{joint}{info[f'{port}_port']}"


def by_curve(sock: Any, info: dict[str, Any]) -> None:
    """Speak as one who has the connection file."""
    if "curve_publickey" in info:
        sock.curve_serverkey = sock.curve_publickey = info["curve_publickey"].encode()
        sock.curve_secretkey = info["curve_secretkey"].encode()


def connected(
    model: garcon.RemoteModel,
    context: Any,
    secure: Callable[[Any, dict[str, Any]], None],
    watch: Callable[[Any], None] = lambda sock: None,
) -> dict[str, Line]:
    """A line to each port.

    Args:
        secure: gives a socket what it needs to be heard, or does not.
        watch: sees each socket to an encrypted port before it connects.
    """
    info, found = model._channel.info, {}
    for port in FILES:
        sock = context.socket(zmq.XSUB if port == "iopub" else zmq.DEALER)
        sock.linger, sock.sndhwm, sock.rcvhwm = 0, 0, 0
        if port != "data" or info["data_encrypted"]:
            secure(sock, info)
            watch(sock)
        sock.connect(address(info, port))
        found[port] = Line(port, sock)
    return found


@pytest.fixture
def lines(model: garcon.RemoteModel) -> Iterator[dict[str, Line]]:
    context = zmq.Context()
    yield connected(model, context, by_curve)
    context.destroy(linger=0)


def marker(fuzzer: Fuzzer, port: str, session: str, name: str) -> Frames:
    """A question that makes sense: when it is answered, so is what came before."""
    if port == "control":
        return fuzzer.frames(protocol.STATUS, {}, msg_id=name)
    content, buffers = transport.pack(requests.Snapshot(session=session))
    about = {"session": session, "kind": "snapshot", "same_host": False}
    flat = [bytes(memoryview(buffer).cast("B")) for buffer in buffers]
    return fuzzer.frames(protocol.REQUEST, {**about, **content}, flat, msg_id=name)


def test_nothing_breaks_grows_or_runs(
    server: garcon.Server,
    model: garcon.RemoteModel,
    fuzzer: Fuzzer,
    lines: dict[str, Line],
    plain: Plain,
    tmp_path: Path,
) -> None:
    process = psutil.Process(server.facts["pid"])
    messages = PORTS if "curve_publickey" in model._channel.info else FILES
    batches = [port for port, n in messages.items() for _ in range(n // BATCH)]
    fuzzer.rng.shuffle(batches)
    asked: list[str] = []
    sent = 0
    for number, port in enumerate(batches):
        line = lines[port]
        for n in range(BATCH):
            signed = n % 2 == 0
            message = fuzzer.signed(port) if signed else fuzzer.unsigned()
            if port == "iopub":  # to whom one says what one wants to hear
                message = [fuzzer.rng.choice([b"", b"\1", b"\0", b"\2"]) + b"".join(message)]
            line.socket.send_multipart(message)
            sent += 1
        if port in ("shell", "control"):
            name = f"marker-{number}"
            line.socket.send_multipart(marker(fuzzer, port, model.session, name))
            line.drain(until=name)
            asked.append(name)
        line.drain()
        if number == len(batches) // 10:
            before = process.memory_info().rss
            opened, threads = process.num_fds(), process.num_threads()
        if number % 40 == 0:
            assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert sent == sum(messages.values())

    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert registry.find(server.name).facts["pid"] == process.pid  # it never started anew
    assert not (tmp_path / "trap").exists()
    assert fuzzer.victim.read_text() == "is not read, and not removed"
    grown = process.memory_info().rss - before
    print(f"grown by {grown / 2**20:.1f} MiB, {process.num_fds() - opened} descriptors")
    assert grown < MEMORY
    assert process.num_fds() <= opened + 3
    assert process.num_threads() <= threads + 2
    assert log_file(server.name).stat().st_size < LOG
    for line in lines.values():
        assert line.tracebacks == []
        twice = [name for name, times in line.replies.items() if times > 1]
        assert not any(
            name.startswith(("fuzz-", "marker-")) for name in twice
        )  # of those sent once
    answered = lines["shell"].replies + lines["control"].replies
    assert set(asked) <= set(answered)
    assert set(fuzzer.requests) <= set(answered)  # every request that has an id, however wrong


def test_what_was_sent_before_is_not_heard_again(
    model: garcon.RemoteModel, fuzzer: Fuzzer, lines: dict[str, Line]
) -> None:
    """On its own port, on the other, or by another sender."""
    status = fuzzer.frames(protocol.STATUS, {}, msg_id="again")
    snapshot = marker(fuzzer, "shell", model.session, "also again")
    lines["control"].socket.send_multipart(status)
    lines["control"].drain(until="again")
    lines["shell"].socket.send_multipart(snapshot)
    lines["shell"].drain(until="also again")
    for _ in range(20):
        for port in ("control", "shell"):
            lines[port].socket.send_multipart(status)
            lines[port].socket.send_multipart(snapshot)
    for port in ("control", "shell"):
        lines[port].socket.send_multipart(marker(fuzzer, port, model.session, f"last on {port}"))
        lines[port].drain(until=f"last on {port}")
    assert lines["control"].replies["again"] == 1
    assert lines["shell"].replies["also again"] == 1
    assert len(lines["control"].replies) == len(lines["shell"].replies) == 2


@pytest.mark.parametrize(("word", "value"), [("protocol", 99), ("protocol", 0), ("python", "3.8")])
def test_a_server_refuses_another_version_by_itself(
    model: garcon.RemoteModel, word: str, value: object
) -> None:
    asked = {**protocol.client_facts(), "session": None, "prefer": None, word: value}
    with pytest.raises(garcon.VersionMismatch, match=f"this client {value}"):
        model._channel.ask(protocol.HELLO, asked)


@pytest.mark.parametrize("server", ["ports"], indirect=True)
def test_who_lacks_the_keys_of_the_ports_is_not_heard(
    server: garcon.Server,
    model: garcon.RemoteModel,
    fuzzer: Fuzzer,
    lines: dict[str, Line],
    tmp_path: Path,
) -> None:
    """Even with the key that signs: a console without CURVE, one with keys of its own, one that says a word."""
    own_public, own_secret = zmq.curve_keypair()

    def open_(sock: Any, info: dict[str, Any]) -> None:
        pass

    def own_keys(sock: Any, info: dict[str, Any]) -> None:
        sock.curve_serverkey = sock.curve_publickey = own_public
        sock.curve_secretkey = own_secret

    def word(sock: Any, info: dict[str, Any]) -> None:
        sock.plain_username, sock.plain_password = b"root", info["key"].encode()

    context, monitors = zmq.Context(), []

    def watch(sock: Any) -> None:
        monitors.append(sock.get_monitor_socket(SENT_AWAY | zmq.EVENT_HANDSHAKE_SUCCEEDED))

    strangers = [connected(model, context, secure, watch) for secure in (open_, own_keys, word)]
    run = {"code": f"open({str(tmp_path / 'trap')!r}, 'w')", "silent": False}
    for stranger in strangers:
        for port, line in stranger.items():
            for n in range(20):
                message = fuzzer.frames("execute_request", run, msg_id=f"stranger-{n}")
                prefix = b"\1" if port == "iopub" else b""
                with contextlib.suppress(zmq.Again):  # it was sent away for good
                    line.socket.send_multipart([prefix + message[0], *message[1:]], zmq.NOBLOCK)
    assert len(monitors) >= 3 * (len(FILES) - 1)
    for monitor in monitors:
        assert monitor.poll(10_000)
        assert recv_monitor_message(monitor)["event"] & SENT_AWAY
    for port in ("control", "shell"):  # who has the keys is heard, and nobody came before
        lines[port].socket.send_multipart(marker(fuzzer, port, model.session, f"heard on {port}"))
        lines[port].drain(until=f"heard on {port}")
    assert not any(line.socket.poll(0) for stranger in strangers for line in stranger.values())
    assert not (tmp_path / "trap").exists()
    context.destroy(linger=0)


def plain_socket(info: dict[str, Any], port: str) -> socket.socket:
    """A connection below ZMQ."""
    number = info[f"{port}_port"]
    if info["transport"] == "tcp":
        return socket.create_connection((info["ip"], number))
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(f"{info['ip']}-{number}")
    return sock


NOISE = 500
"""Connections to each port."""

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\0" + bytes(31)
"""With which a connection of ZMQ begins."""


def noise(rng: random.Random, n: int) -> bytes:
    """Bytes that are no greeting, or break off in the middle of one."""
    start = GREETING[: rng.randrange(len(GREETING) + 1)] if n % 2 else b""
    huge = b"\x02" + (2**62).to_bytes(8, "big") if n % 5 == 0 else b""
    return start + huge + rng.randbytes(rng.randrange(100))


def test_noise_below_zmq_changes_nothing(model: garcon.RemoteModel, plain: Plain) -> None:
    rng, info = random.Random(2), model._channel.info
    process = psutil.Process(model.facts["pid"])
    opened = process.num_fds()
    for n in range(NOISE):
        for port in FILES:
            with plain_socket(info, port) as sock, contextlib.suppress(ConnectionError):
                sock.sendall(noise(rng, n))  # unless it hung up at once
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert process.num_fds() <= opened + 20


def listening(server: garcon.Server) -> dict[int, str]:
    """The TCP ports of all processes of a server, and whose they are."""
    supervisor = psutil.Process(server.facts["pid"]).parent()
    assert supervisor is not None
    return {
        connection.laddr.port: process.name()
        for process in (supervisor, *supervisor.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def make_noise(port: int, rng: random.Random) -> None:
    """Many connections, each of which says something that makes no sense."""
    for n in range(NOISE):
        with contextlib.suppress(ConnectionError):
            try:
                sock = socket.create_connection(("127.0.0.1", port), timeout=1)
            except TimeoutError:
                return  # nobody takes connections any more
            with sock:
                sock.sendall(noise(rng, n))


def test_strangers_at_the_ports_of_ranks_over_hosts(
    llama_path: Path, plain: Plain, tmp_path: Path
) -> None:
    """Those by which ranks command and hear each other, pass tensors, and find each other."""
    server = garcon.launch(llama_path, "fuzzed-ranks", tp=2, progress=quiet, **over_hosts(tmp_path))
    model, rng, context = garcon.connect(server.name), random.Random(3), zmq.Context()
    try:
        ports = listening(server)
        assert len(ports) > len(FILES) + len(RANK_ZERO)  # gloo's and the store's as well
        ranks = [psutil.Process(rank["pid"]) for rank in model.status()["ranks"]]
        for port in ports:
            stranger = context.socket(zmq.DEALER)
            stranger.linger = 0
            public, stranger.curve_secretkey = zmq.curve_keypair()
            stranger.curve_serverkey = stranger.curve_publickey = public
            stranger.connect(f"tcp://127.0.0.1:{port}")
            for _ in range(20):
                with contextlib.suppress(zmq.Again):
                    stranger.send_multipart([b"stop", rng.randbytes(50)], zmq.NOBLOCK)
            make_noise(port, rng)
        context.destroy(linger=0)
        assert close(model.forward(PROMPT), plain.logits(PROMPT))
        assert [psutil.Process(rank["pid"]) for rank in model.status()["ranks"]] == ranks
    finally:
        model.close()
        control.kill(server)
