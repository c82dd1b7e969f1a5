"""The door as a process of its own: its token, its end, and requests that are called off."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.http_door.serving import DoorOptions, serve
from tests.http_door.conftest import OpenDoor

pytestmark = pytest.mark.processes

LONG = {"prompts": [[7, n] for n in range(64)], "max_new_tokens": 120}


@contextlib.contextmanager
def served(*words: str) -> Iterator[tuple[OpenDoor, subprocess.Popen[str], Path]]:
    """``garcon serve`` in a process, on a free port; its token's file."""
    command = [sys.executable, "-m", "garcon_jupyter", "serve", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address, told = process.stdout.readline(), process.stdout.readline()
        port = int(address.split("/")[2].split(":")[1])
        file = Path(told.removeprefix("Its token is in ").split("; ")[0])
        yield OpenDoor(port, None, file.read_text()), process, file  # type: ignore[arg-type]
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def door(llama_server: garcon.Server) -> Iterator[OpenDoor]:
    with served(llama_server.name) as (it, _, _):
        yield it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_token_is_its_owners_and_goes_with_the_door(
    llama_server: garcon.Server, number: int
) -> None:
    with served(llama_server.name) as (it, process, file):
        assert file.stat().st_mode & 0o777 == 0o600 and len(it.token) >= 32
        assert it.ask("describe").told["model"]["name"] == "tiny"
        process.send_signal(number)
        assert process.wait(30) == 0
        assert not file.exists()


def test_two_doors_have_two_tokens_and_two_sessions(
    llama_server: garcon.Server, door: OpenDoor
) -> None:
    with served(llama_server.name) as (other, _, _):
        assert other.token != door.token
        assert (
            other.ask(
                "forward", {"prompts": [[1]]}, headers={"Authorization": f"Bearer {door.token}"}
            ).status
            == 401
        )
        asked = [each.ask("forward", {"prompts": [[1, 2]]}) for each in (door, other)]
        assert [each.status for each in asked] == [200, 200]
        sessions = [client["session"] for client in door.ask("status").told["clients"]]
        assert "http" in sessions and len(set(sessions)) == len(sessions) >= 2


def test_who_hangs_up_calls_the_request_off(door: OpenDoor) -> None:
    line = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    headers = {"Authorization": f"Bearer {door.token}", "Accept": "text/event-stream"}
    line.request("POST", "/v1/generate", json.dumps(LONG).encode(), headers)
    assert line.getresponse().readline() == b"event: told\n"  # it has begun
    began = time.monotonic()
    line.sock.close() if line.sock else line.close()
    line.close()
    while door.ask("status").told["running"]:
        assert time.monotonic() - began < 5, "it goes on for nobody"
    assert door.ask("forward", {"prompts": [[1, 2]]}).status == 200


def test_who_hangs_up_without_listening(door: OpenDoor) -> None:
    line = http.client.HTTPConnection("127.0.0.1", door.port, timeout=30)
    line.request(
        "POST", "/v1/generate", json.dumps(LONG).encode(), {"Authorization": f"Bearer {door.token}"}
    )
    while not door.ask("status").told["running"]:
        pass
    line.close()
    began = time.monotonic()
    while door.ask("status").told["running"]:
        assert time.monotonic() - began < 5, "it goes on for nobody"


def test_a_notebook_beside_it(door: OpenDoor, llama_server: garcon.Server) -> None:
    """Its probes are its own, and it does not keep the door waiting."""
    model = garcon.connect(llama_server.name)
    over, turns = threading.Event(), 0

    def zero(save_ctx: object, tensor: object) -> object:
        return tensor * 0  # type: ignore[operator]

    model.attach(model.probe_points["layers.0.mlp.out"].probe(zero))

    def loop() -> None:
        nonlocal turns
        while not over.is_set():
            model.forward([[1, 2, 3]], logits="none")
            turns += 1

    asked = {"prompts": [[1, 2, 3]], "logits": "last"}
    alone = door.ask("forward", asked).body
    thread = threading.Thread(target=loop)
    thread.start()
    try:
        for _ in range(20):
            before = turns
            assert door.ask("forward", asked).body == alone
            assert (
                turns - before <= 4
            )  # its own turns: one that ran, one between, and what it did while the answer travelled
    finally:
        over.set()
        thread.join()
        model.close()


def test_a_server_that_ended_and_runs_again(llama_path: Path) -> None:
    server = garcon.launch(llama_path, name="come-and-go", progress=lambda line: None)
    with served(server.name) as (it, _, _):
        assert it.ask("forward", {"prompts": [[1, 2]]}).status == 200
        garcon.connect(server.name).shutdown(force=True)
        found = it.ask("forward", {"prompts": [[1, 2]]})
        assert found.status in (404, 503) and found.told["problem"]
        garcon.launch(llama_path, name="come-and-go", progress=lambda line: None)
        assert it.ask("forward", {"prompts": [[1, 2]]}).status == 200
        garcon.connect(server.name).shutdown(force=True)


def test_ask_in_a_terminal(llama_server: garcon.Server) -> None:
    command = [sys.executable, "-m", "garcon_jupyter", "ask", llama_server.name, "tokenize"]
    told = subprocess.run(
        [*command, '{"texts": ["ab"]}'], capture_output=True, text=True, check=True
    )
    assert len(json.loads(told.stdout)["tokens"][0]["ids"]) == 3
    wrong = subprocess.run([*command, "{}"], capture_output=True, text=True)
    assert wrong.returncode == 1 and "texts: Field required" in wrong.stderr and not wrong.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to serve"),
        ({"server": "tiny", "host": "0.0.0.0"}, "nothing would be encrypted"),
        ({"server": "tiny", "allow_origins": ["*"]}, "no origin"),
        ({"server": "tiny", "certificate": Path("x")}, "comes with its key"),
        ({"server": "nobody"}, "nobody"),
    ],
)
def test_what_is_not_opened(
    llama_server: garcon.Server, options: dict[str, object], words: str
) -> None:
    with pytest.raises((BadRequest, garcon.UnknownServer), match=words):
        serve(DoorOptions(**options), print)  # type: ignore[arg-type]


def test_a_port_that_is_taken(llama_server: garcon.Server, door: OpenDoor) -> None:
    with pytest.raises(BadRequest, match=f"Port {door.port}"):
        serve(DoorOptions(server=llama_server.name, port=door.port), print)
    assert os.environ["GARCON_RUNTIME"], "a registry of the tests' own"
