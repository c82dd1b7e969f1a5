"""Rank 0 is a real Jupyter kernel: consoles attach, plain clients ask, strangers get nothing."""

from __future__ import annotations

import json
import os
import queue
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.session import Session

import garcon_jupyter as garcon
from garcon_jupyter import Server
from garcon_jupyter.servers.server import (
    log_file,
    own_directory,
    registry_directory,
    shared_directory,
)
from garcon_jupyter.wire import protocol
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def plain_client(server: Server) -> Iterator[BlockingKernelClient]:
    """A client that knows nothing of Garçon."""
    client = BlockingKernelClient()
    client.load_connection_file(str(server.file))
    client.start_channels()
    try:
        client.wait_for_ready(timeout=10)
        yield client
    finally:
        client.stop_channels()


def ran(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    """The reply to a cell, and what it printed, under "text"."""
    told: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            told.append(message["content"]["text"])

    reply = client.execute_interactive(code, timeout=10, output_hook=hear)
    return {**reply["content"], "text": "".join(told)}


def test_a_plain_client_gets_the_kernel_info(llama_server: Server) -> None:
    with plain_client(llama_server) as client:
        info = client.kernel_info(reply=True, timeout=10)["content"]
    assert info["implementation"] == "garcon"
    assert info["language_info"]["name"] == "python"
    assert info["garcon"]["name"] == "tiny"
    assert info["garcon"]["model"]["architecture"] == "LlamaForCausalLM"
    assert info["garcon"]["protocol"] == protocol.PROTOCOL


def test_a_plain_client_runs_code_beside_the_model(llama_server: Server) -> None:
    with plain_client(llama_server) as client:
        said = ran(client, "print(type(model).__name__, model.config.num_hidden_layers)")
        assert said["text"] == "LlamaForCausalLM 4\n"
        failed = ran(client, "1 / 0")
        assert failed["status"] == "error" and failed["ename"] == "ZeroDivisionError"


def test_a_console_attaches_and_sees_the_model(llama_server: Server) -> None:
    console = subprocess.run(
        [
            *(sys.executable, "-m", "jupyter", "console"),
            *("--existing", str(llama_server.file), "--simple-prompt"),
        ],
        input="print('heads', model.config.num_attention_heads)\nexit\n",
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TERM": "dumb"},
    )
    assert "heads 6" in console.stdout, console.stdout + console.stderr
    assert garcon.connect("tiny").status()["running"] is None  # and it outlives the console


def test_a_console_cannot_end_everybodys_server(llama_server: Server, plain: Plain) -> None:
    with plain_client(llama_server) as client:
        client.shutdown()
        reply = client.get_control_msg(timeout=10)["content"]
        assert reply["status"] == "error" and "garcon stop" in reply["evalue"]
        ran(client, "exit")
        ran(client, "import sys; sys.exit()")
    model = garcon.connect("tiny")
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    model.close()


def test_code_of_a_console_and_requests_take_turns(llama_server: Server) -> None:
    """A long cell of a console delays a request, and is not ended by it."""
    model = garcon.connect("tiny")
    with plain_client(llama_server) as client:
        client.execute("import time; began = time.time(); time.sleep(0.5); ended = time.time()")
        assert model.forward(PROMPT, logits="last").shape == (2, 263)
        assert ran(client, "print(ended - began > 0.4)")["text"] == "True\n"
    model.close()


# -- who may connect -----------------------------------------------------------------------------


def test_only_the_owner_can_read_the_files(llama_server: Server, llama_tp2_server: Server) -> None:
    assert mode(registry_directory()) == 0o700
    for server in (llama_server, llama_tp2_server):
        assert mode(server.file) == 0o600
        assert mode(log_file(server.name)) == 0o600
        for directory in (
            own_directory(server.name),
            shared_directory(server.name),
        ):
            assert mode(directory) == 0o700
        (kernel_file,) = own_directory(server.name).glob("kernel.json")
        assert mode(kernel_file) == 0o600


def test_the_sockets_of_one_host_are_files_that_only_the_owner_reaches(
    llama_server: Server,
) -> None:
    connection = json.loads(llama_server.file.read_text())
    directory = own_directory("tiny")
    assert connection["transport"] == "ipc"
    assert Path(connection["ip"]).parent == directory and mode(directory) == 0o700
    for what in ("shell", "control", "iopub", "stdin", "hb"):
        file = Path(f"{connection['ip']}-{connection[f'{what}_port']}")
        assert stat.S_ISSOCK(file.stat().st_mode)


@pytest.fixture(scope="module")
def tcp_server(llama_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server that listens on TCP, as one over several hosts does."""
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.touch(0o600)
    secret.write_text("0" * 64)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    return garcon.launch(
        llama_path,
        "open-port",
        progress=quiet,
        nnodes=1,
        rdzv_endpoint=endpoint,
        local_addr="127.0.0.1",
        secret_file=secret,
    )


@pytest.fixture
def connection(tcp_server: Server) -> dict[str, Any]:
    return json.loads(tcp_server.file.read_text())


def test_over_tcp_everything_works_by_the_key(tcp_server: Server, plain: Plain) -> None:
    model = garcon.connect("open-port")
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    model.close()
    with plain_client(tcp_server) as client:
        info = client.kernel_info(reply=True, timeout=10)["content"]
    assert info["garcon"]["name"] == "open-port"


def asked(connection: dict[str, Any], port: str, curve: dict[str, bytes]) -> bool:
    """Whether a socket that speaks this way gets a reply to a kernel_info request."""
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.linger = 0
    sock.sndtimeo = 5000  # a line that was refused before anything was sent takes nothing
    for word, value in curve.items():
        setattr(sock, word, value)
    sock.connect(f"tcp://{connection['ip']}:{connection[port]}")
    try:
        Session(key=connection["key"].encode()).send(sock, "kernel_info_request", {})
        return bool(sock.poll(700))
    except zmq.Again:
        return False
    finally:
        context.destroy(linger=0)


def keys(connection: dict[str, Any]) -> dict[str, bytes]:
    public, secret = zmq.curve_keypair()
    return {
        "curve_serverkey": connection["curve_publickey"].encode(),
        "curve_publickey": public,
        "curve_secretkey": secret,
    }


def test_without_the_curve_key_there_is_no_answer(connection: dict[str, Any]) -> None:
    assert asked(connection, "shell_port", keys(connection))
    assert asked(connection, "control_port", keys(connection))
    stranger, _ = zmq.curve_keypair()
    for port in ("shell_port", "control_port"):
        assert not asked(connection, port, {})
        assert not asked(connection, port, {**keys(connection), "curve_serverkey": stranger})


def test_without_the_curve_key_there_is_nothing_to_hear(
    tcp_server: Server, connection: dict[str, Any]
) -> None:
    context = zmq.Context()
    eavesdropper, listener = context.socket(zmq.SUB), context.socket(zmq.SUB)
    for word, value in keys(connection).items():
        setattr(listener, word, value)
    for sock in (eavesdropper, listener):
        sock.subscribe(b"")
        sock.connect(f"tcp://{connection['ip']}:{connection['iopub_port']}")
    with plain_client(tcp_server) as client:
        while not listener.poll(100):
            ran(client, "print('secret')")
    assert not eavesdropper.poll(300)
    context.destroy(linger=0)


def test_a_wrong_signature_is_not_answered(llama_server: Server) -> None:
    client = BlockingKernelClient()
    client.load_connection_file(str(llama_server.file))
    client.session.key = b"0" * 64
    client.start_channels()
    try:
        client.kernel_info()
        with pytest.raises(queue.Empty):
            client.get_shell_msg(timeout=0.7)
    finally:
        client.stop_channels()


def test_what_is_no_request_is_refused(llama_server: Server) -> None:
    from garcon_jupyter.wire import requests, transport

    model = garcon.connect("tiny")
    with pytest.raises(garcon.BadRequest, match="no request of an open session"):
        model._channel.request({"session": "nobody"}, {"not": "a request"})
    with pytest.raises(garcon.BadRequest, match="Connect first"):
        model._channel.request({}, requests.Snapshot(session="never-opened"))
    content, _ = transport.pack(requests.Snapshot(session=model.session))
    message_id = model._channel._send(model._channel._shell, protocol.REQUEST, content, [b"x"])
    reply = model._channel._await_reply(model._channel._shell, {message_id}, 10)
    assert reply["content"]["failure"]["class"] == "Corrupted"
    assert list(model.recordings()) == []
    model.close()
