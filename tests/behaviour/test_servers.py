"""Launching, finding, losing and ending servers: real processes, each as short-lived as it can be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter import (
    BadConnectionFile,
    BadDegrees,
    BadRequest,
    DoesNotFit,
    Interrupted,
    LaunchFailed,
    NotAModel,
    Server,
    ServerGone,
    ServerMismatch,
    UnknownServer,
    VersionMismatch,
)
from garcon_jupyter.connection import liveness
from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.servers import control, limits, registry
from garcon_jupyter.servers.server import own_directory, registry_directory, shared_directory
from garcon_jupyter.wire import protocol
from tests import checkpoints
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"


def launch(path: Path, name: str | None = None, **words: Any) -> Server:
    return garcon.launch(path, name, progress=quiet, **words)


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def processes(server: Server) -> list[int]:
    return [server.facts["supervisor"], *(rank["pid"] for rank in server.facts["ranks"])]


def traces(server: Server) -> list[str]:
    """What a server leaves while it lives: processes, directories, its file."""
    places = [
        own_directory(server.name),
        shared_directory(server.name),
        server.file,
    ]
    alive = [f"process {pid}" for pid in processes(server) if process_lives(pid)]
    return [*alive, *(str(place) for place in places if place.exists())]


# -- paths that hold no model --------------------------------------------------------------------


def test_a_path_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="nowhere"):
        launch(tmp_path / "nowhere")
    with pytest.raises(NotAModel, match=r"config\.json"):
        launch(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(NotAModel, match="weights"):
        launch(tmp_path)
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(NotAModel, match=r"notes\.txt"):
        launch(tmp_path / "notes.txt")
    assert all(server.facts["path"] != str(tmp_path) for server in garcon.servers())


def test_a_model_that_does_not_fit(tmp_path: Path) -> None:
    """A checkpoint whose table claims more than any machine has, in a file without content."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 1 << 20,
        "intermediate_size": 1 << 22,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "vocab_size": 256,
        "dtype": "bfloat16",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    rows = 1 << 22
    end = rows * (1 << 20) * 2  # 8 TiB
    name = "model.layers.0.mlp.up_proj.weight"
    entry = {"dtype": "BF16", "shape": [rows, 1 << 20], "data_offsets": [0, end]}
    table = json.dumps({name: entry}).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(table).to_bytes(8, "little") + table)
        file.truncate(8 + len(table) + end)
    with pytest.raises(DoesNotFit, match=r"needs .*(TB|TiB|GiB|GB).*(has|free|there)"):
        launch(tmp_path, "too-large")
    assert "too-large" not in [server.name for server in garcon.servers()]


def test_degrees_that_do_not_divide(llama_path: Path) -> None:
    with pytest.raises(BadDegrees, match=r"\b3\b.*\b2\b|\b2\b.*\b3\b"):  # two key heads
        launch(llama_path, "undivided", tp=3)
    with pytest.raises(BadDegrees, match="tp=0 is no degree"):
        launch(llama_path, "undivided", tp=0)


def test_a_launch_that_fails_shows_the_end_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = "def make(path, **words):\n    print('about to fail')\n    raise RuntimeError('odd')\n"
    (tmp_path / "failing_loader.py").write_text(loader)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(LaunchFailed, match=r"(?s)'failing' did not start: .*odd.*about to fail"):
        launch(tmp_path, "failing", loader="failing_loader:make")
    assert "failing" not in [server.name for server in garcon.servers()]


# -- names ---------------------------------------------------------------------------------------


def test_the_same_settings_find_the_running_server(llama_server: Server, llama_path: Path) -> None:
    again = launch(llama_path, "tiny")
    assert again.facts["pid"] == llama_server.facts["pid"]
    assert launch(llama_path, "tiny", tp=1).facts["pid"] == llama_server.facts["pid"]
    assert launch(llama_path, "tiny", dtype="float32").facts["pid"] == llama_server.facts["pid"]


@pytest.mark.parametrize(
    ("words", "message"),
    [({"tp": 2}, "tp=1"), ({"pp": 2}, "pp=1"), ({"dtype": "bfloat16"}, "dtype=float32")],
    ids=["tp", "pp", "dtype"],
)
def test_two_servers_of_one_name(
    llama_server: Server, llama_path: Path, words: dict[str, Any], message: str
) -> None:
    with pytest.raises(ServerMismatch, match=f"'tiny' runs with {message}.*another name"):
        launch(llama_path, "tiny", **words)


def test_two_models_of_one_name(llama_server: Server, llama_path: Path, tmp_path: Path) -> None:
    other = checkpoints.make("gpt2", tmp_path / "other")
    with pytest.raises(ServerMismatch, match=f"runs with model {llama_path}"):
        launch(other, "tiny")
    with pytest.raises(ServerMismatch, match="loader"):
        launch(llama_path, "tiny", loader="somewhere:load")


@pytest.mark.parametrize("name", ["", "../escape", "a b", "a/b", "é\n"])
def test_names_that_are_none(llama_path: Path, name: str) -> None:
    if name:
        with pytest.raises(BadRequest, match="no server name"):
            launch(llama_path, name)
    with pytest.raises(UnknownServer if name else BadRequest):
        garcon.connect(name)


def test_durations_are_words() -> None:
    assert [limits.seconds(x) for x in (5, 0.5, "90", "45s", "30m", "1h", "never")] == [
        5,
        0.5,
        90,
        45,
        1800,
        3600,
        0,
    ]
    for wrong in ("soon", "1d", "-5", "1..5s", ""):
        with pytest.raises(BadRequest, match="no duration"):
            limits.seconds(wrong)


def test_an_unknown_server_has_neighbours(llama_server: Server) -> None:
    with pytest.raises(UnknownServer, match=r"'tinny'\. Did you mean tiny\b.*Running: .*tiny"):
        garcon.connect("tinny")


# -- one server, two launches, and the idle clock ------------------------------------------------


def test_two_launches_at_once_yield_one_server_which_ends_when_idle(llama_path: Path) -> None:
    code = (
        "import garcon_jupyter as garcon\n"
        f"rmodel = garcon.launch_and_connect({str(llama_path)!r}, idle_timeout='4s')\n"
        "print('RESULT', rmodel.server.name, rmodel.facts['pid'], flush=True)\n"
        "while True:\n"
        "    rmodel.forward([[0]], logits='none')"
    )
    clients = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = {_result(client) for client in clients}
    assert len(results) == 1
    name = results.pop().split()[1]
    assert name.startswith(llama_path.name + "-")
    server, model = registry.find(name), garcon.connect(name)
    for client in clients:  # it outlives the processes that launched it
        client.kill()
        client.wait()
    until(lambda: (model.status()["idle_left"] or 9) < 3)  # looking at it is no activity …
    model.forward(PROMPT, logits="none")  # … a request is
    assert model.status()["idle_left"] > 3
    until(lambda: not traces(server))
    with pytest.raises(ServerGone, match="has ended: idle for"):
        model.forward(PROMPT)
    with pytest.raises(UnknownServer, match="The last one of that name has ended: idle for"):
        garcon.connect(name)


def _result(client: subprocess.Popen[str]) -> str:
    assert client.stdout is not None
    return next(line for line in client.stdout if line.startswith("RESULT"))


# -- servers that die or hang --------------------------------------------------------------------


def test_a_server_that_hangs_dies_and_is_launched_again(
    llama_path: Path, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "ANSWER_TIME", 1.0)
    server = launch(llama_path, "mortal")
    model = garcon.connect("mortal", session="me")
    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(lambda c, t: setattr(c, "x", t))])

    os.kill(server.facts["pid"], signal.SIGSTOP)
    with pytest.raises(ServerGone, match=r"not answered.*garcon stop --force mortal"):
        model.forward(PROMPT)
    with pytest.raises(ServerGone, match="not answered"):
        garcon.connect("mortal")
    os.kill(server.facts["pid"], signal.SIGCONT)
    monkeypatch.setattr(liveness, "ANSWER_TIME", 20.0)
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert model.recordings()[OUT].x.shape == (2, 6, 48)

    os.kill(server.facts["supervisor"], signal.SIGKILL)  # while idle
    until(lambda: not process_lives(server.facts["pid"]))
    start = time.monotonic()
    with pytest.raises(ServerGone, match="mortal"):
        model.forward(PROMPT)
    assert time.monotonic() - start < 5
    with pytest.raises(UnknownServer, match="'mortal'.*its processes were killed"):
        garcon.connect("mortal")
    until(lambda: not traces(server))
    again = launch(llama_path, "mortal", tp=2)
    assert again.facts["pid"] != server.facts["pid"]
    control.kill(again)
    assert not traces(again)


def test_shutting_down_is_refused_while_others_are_there(llama_path: Path) -> None:
    server = launch(llama_path, "shared")
    model = garcon.connect("shared")
    code = (
        "import garcon_jupyter as g\nm = g.connect('shared')\nprint(m.session, flush=True)\ninput()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    session = other.stdout.readline().strip()
    with pytest.raises(BadRequest, match=rf"Other clients use this server: .*\({session}\)"):
        model.shutdown()
    assert model.forward(PROMPT, logits="last").shape == (2, 263)
    other.communicate("\n")
    mine = garcon.connect("shared")  # of this very process, so no other
    mine.shutdown()
    assert traces(server) == []
    with pytest.raises(UnknownServer, match="shut down by"):
        garcon.connect("shared")


# -- connection files ----------------------------------------------------------------------------


KERNEL = {
    "key": "k",
    "ip": "127.0.0.1",
    "transport": "tcp",
    **{f"{what}_port": 1 for what in ("shell", "control", "iopub", "hb", "stdin")},
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a connection file"),
        (b"{", "cannot be read as a connection file"),
        (b"\xff\xfe\x00binary", "cannot be read as a connection file"),
        (b"[1, 2]", "is no connection file"),
        (b'{"key": "k"}', "lacks .*control_port"),
        (json.dumps(KERNEL).encode(), "no Garçon server"),
        (json.dumps({**KERNEL, "garcon": 5}).encode(), "no Garçon server"),
        (json.dumps({**KERNEL, "garcon": {}}).encode(), "no Garçon server"),
    ],
    ids=["empty", "cut", "binary", "a list", "a part", "a kernel", "not facts", "no facts"],
)
def test_a_file_that_is_no_connection_file(content: bytes, message: str) -> None:
    file = registry_directory() / "broken.json"
    file.write_bytes(content)
    file.chmod(0o600)
    try:
        with pytest.raises(BadConnectionFile, match=message):
            garcon.connect("broken")
        garcon.servers()  # the others are still listed
        assert file.exists()
    finally:
        file.unlink()


def test_a_connection_file_that_others_can_read(llama_server: Server) -> None:
    file = registry_directory() / "open.json"
    file.write_text(llama_server.file.read_text())
    file.chmod(0o644)
    try:
        with pytest.raises(BadConnectionFile, match="Others can read .*chmod 600"):
            garcon.connect("open")
    finally:
        file.unlink()


def test_a_file_of_a_server_that_vanished_is_removed(llama_server: Server) -> None:
    content = json.loads(llama_server.file.read_text())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    content["garcon"] |= {"pid": gone.pid, "supervisor": gone.pid, "name": "vanished"}
    file = registry_directory() / "vanished.json"
    file.write_text(json.dumps(content))
    file.chmod(0o600)
    assert "vanished" not in [server.name for server in garcon.servers()]
    assert not file.exists()
    with pytest.raises(UnknownServer, match="its processes were killed"):
        garcon.connect("vanished")


@pytest.mark.parametrize(
    ("word", "value"), [("protocol", 99), ("python", "3.0")], ids=["protocol", "python"]
)
def test_a_server_of_another_version(
    llama_server: Server, monkeypatch: pytest.MonkeyPatch, word: str, value: Any
) -> None:
    facts = protocol.client_facts()
    monkeypatch.setattr(protocol, "client_facts", lambda: {**facts, word: value})
    with pytest.raises(VersionMismatch, match=rf"speaks {word} \S+, this client {value}"):
        garcon.connect("tiny")


# -- while the model is busy ---------------------------------------------------------------------


def test_questions_are_answered_while_the_model_is_busy(llama_server: Server) -> None:
    model, other = garcon.connect("tiny"), garcon.connect("tiny")

    def endless(save_ctx: Any, tensor: Tensor) -> None:
        while True:
            pass

    def run() -> None:
        with pytest.raises(Interrupted):
            model.forward(PROMPT, probes=[model.probe_points[OUT].probe(endless)])

    busy = threading.Thread(target=run)
    busy.start()
    until(lambda: other.status()["running"])
    status = other.status()
    assert status["running"]["session"] == model.session
    assert status["running"]["kind"] == "forward"
    assert {client["session"] for client in status["clients"]} >= {model.session, other.session}
    assert other.decode(other.encode("still here", special=False).ids[0]) == "still here"
    other._channel.ask(protocol.CANCEL, {"request": status["running"]["request"]})
    busy.join(10)
    assert not busy.is_alive()
    assert isinstance(other.forward(PROMPT, logits="last"), torch.Tensor)
    model.close(), other.close()


def test_status_tells_the_memory_of_each_rank(llama_tp2_server: Server) -> None:
    ranks = control.status(llama_tp2_server)["ranks"]
    assert [rank["rank"] for rank in ranks] == [0, 1]
    for rank in ranks:
        assert rank["memory"] > 50_000_000
        assert psutil.pid_exists(rank["pid"])


def test_a_waiting_request_is_seen_and_interrupted_before_its_turn(llama_server: Server) -> None:
    busy, mine, other = (garcon.connect("tiny") for _ in range(3))

    def endless(save_ctx: Any, tensor: Tensor) -> None:
        while True:
            pass

    def run() -> None:
        with pytest.raises(Interrupted):
            busy.forward(PROMPT, probes=[busy.probe_points[OUT].probe(endless)])

    def interrupt_me() -> None:
        until(lambda: other.status()["waiting"])
        waiting.extend(other.status()["waiting"])
        os.kill(os.getpid(), signal.SIGINT)

    waiting: list[dict[str, Any]] = []
    runs = threading.Thread(target=run)
    runs.start()
    until(lambda: other.status()["running"])
    interrupts = threading.Thread(target=interrupt_me)
    interrupts.start()
    with pytest.raises(Interrupted, match="before its turn"):
        mine.forward(PROMPT)
    interrupts.join()
    assert [row["session"] for row in waiting] == [mine.session]
    status = other.status()
    assert status["waiting"] == [] and status["running"]["session"] == busy.session
    other._channel.ask(protocol.CANCEL, {"request": status["running"]["request"]})
    runs.join(10)
    assert mine.forward(PROMPT, logits="last").shape == (2, 263)
    for model in (busy, mine, other):
        model.close()
