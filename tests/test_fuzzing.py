"""A hundred thousand messages that make no sense, half of them rightly signed: nothing breaks, grows, or runs."""

from __future__ import annotations

import json
import random
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

import garcon_jupyter as garcon
from garcon_jupyter import registry
from garcon_jupyter.wire import protocol, requests, transport
from tests.conftest import quiet
from tests.fuzzing import DELIMITER, Frames, Fuzzer
from tests.oracle import PROMPT, Plain, close

MESSAGES = {"shell": 54_000, "control": 40_000, "stdin": 2_000, "iopub": 2_000, "hb": 2_000}
BATCH = 500

MEMORY = 64 << 20
"""Bytes that the server may grow by after the first tenth: 65,536 signatures that must not come again are 12 MiB,
the rest is slack of the allocator."""

LOG = 2 << 20


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


@pytest.fixture(scope="module")
def server(llama_path: Path) -> garcon.Server:
    return garcon.launch(llama_path, "fuzzed", progress=quiet)


@pytest.fixture
def model(server: garcon.Server) -> Iterator[garcon.RemoteModel]:
    model = garcon.connect("fuzzed")
    yield model
    model.close()


@pytest.fixture
def fuzzer(model: garcon.RemoteModel, tmp_path: Path) -> Fuzzer:
    info = model._channel.info
    shared = registry.shared_directory("fuzzed")
    return Fuzzer(1, info["key"], model.session, tmp_path / "trap", shared)


@pytest.fixture
def lines(model: garcon.RemoteModel) -> Iterator[dict[str, Line]]:
    context = zmq.Context()
    info, found = model._channel.info, {}
    for port in MESSAGES:
        sock = context.socket(zmq.XSUB if port == "iopub" else zmq.DEALER)
        sock.linger, sock.sndhwm, sock.rcvhwm = 0, 0, 0
        sock.connect(f"ipc://{info['ip']}-{info[f'{port}_port']}")
        found[port] = Line(port, sock)
    yield found
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
    batches = [port for port, n in MESSAGES.items() for _ in range(n // BATCH)]
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
    assert sent == sum(MESSAGES.values()) >= 100_000

    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert registry.find("fuzzed").facts["pid"] == process.pid  # it never started anew
    assert not (tmp_path / "trap").exists()
    assert fuzzer.victim.read_text() == "is not read, and not removed"
    grown = process.memory_info().rss - before
    print(f"grown by {grown / 2**20:.1f} MiB, {process.num_fds() - opened} descriptors")
    assert grown < MEMORY
    assert process.num_fds() <= opened + 3
    assert process.num_threads() <= threads + 2
    assert registry.log_file("fuzzed").stat().st_size < LOG
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


def test_noise_below_zmq_changes_nothing(model: garcon.RemoteModel, plain: Plain) -> None:
    """Bytes that are no greeting, or break off in the middle of one."""
    rng, info = random.Random(2), model._channel.info
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16) + b"\0" + bytes(31)
    process = psutil.Process(model.facts["pid"])
    opened = process.num_fds()
    for n in range(500):
        for port in MESSAGES:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(f"{info['ip']}-{info[f'{port}_port']}")
                start = greeting[: rng.randrange(len(greeting) + 1)] if n % 2 else b""
                huge = b"\x02" + (2**62).to_bytes(8, "big") if n % 5 == 0 else b""
                sock.sendall(start + huge + rng.randbytes(rng.randrange(100)))
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert process.num_fds() <= opened + 20
