"""Many clients at once: each gets its own, in turn, and sees how long it has to wait."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.kernel.queue_places import MOMENT, QueuePlaces
from garcon_backend.kernel.sessions import ClientProcess, Sessions
from garcon_backend.lockstep.turns import Queued, Turns
from garcon_jupyter import BadRequest, RemoteModel, Server
from garcon_jupyter.servers import control
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"
FORGET = 1.0
"""Seconds after which the server here forgets a session without name and client."""


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that comes about by itself."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def busy(llama_path: Path) -> Iterator[Server]:
    """A server over two ranks that soon forgets who is gone."""
    server = garcon.launch(llama_path, "busy", tp=2, forget=FORGET, progress=quiet)
    yield server
    control.kill(server)


CLIENT = """
    import json, sys
    import torch
    import garcon_jupyter as garcon

    def close(a, b):
        return a.shape == b.shape and float((a - b).abs().max() / b.abs().max()) <= 1e-5

    number, expected = int(sys.argv[1]), torch.load(sys.argv[2])
    rmodel = garcon.connect("busy")
    ids = [[0, number, number + 1, 40]]

    def saves(save_ctx, tensor):
        save_ctx.tensor = tensor
        save_ctx.number = number

    def scales(save_ctx, tensor):
        return tensor * number

    rmodel.attach(rmodel.probe_points["layers.2.mlp.out"].probe(saves))
    if number % 2:
        rmodel.attach(rmodel.probe_points["layers.3.mlp.out"].probe(scales))
    print(rmodel.session, flush=True)
    for line in sys.stdin:
        right = 0
        for _ in range(int(line)):
            logits = rmodel.forward(ids)
            recordings = rmodel.recordings()
            right += (
                close(logits, expected["logits"])
                and list(recordings) == ["layers.2.mlp.out"]
                and recordings["layers.2.mlp.out"].number == number
                and close(recordings["layers.2.mlp.out"].tensor, expected["out"])
            )
        print(right, flush=True)
    """


@contextmanager
def client(*arguments: object, code: str = CLIENT) -> Iterator[subprocess.Popen[str]]:
    """A client in a process of its own, which ends here at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that a client prints."""
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    assert said, process.stderr.read() if process.stderr else ""
    return said


def tell(process: subprocess.Popen[str], word: object) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def test_eight_clients_at_once(busy: Server, plain: Plain, tmp_path: Path) -> None:
    """Contexts, probes and answers are those of each; who is killed is forgotten on all ranks."""
    import torch

    numbers = range(50, 58)
    for number in numbers:
        ids = [[0, number, number + 1, 40]]
        factor = number if number % 2 else 1
        with plain.hooked("model.layers.3.mlp", lambda out, by=factor: out * by):  # type: ignore[misc]
            expected = {"logits": plain.logits(ids), "out": plain.output("model.layers.2.mlp", ids)}
        torch.save(expected, tmp_path / f"{number}.pt")
    from contextlib import ExitStack

    with ExitStack() as stack:
        clients = [
            stack.enter_context(client(number, tmp_path / f"{number}.pt")) for number in numbers
        ]
        sessions = [line(process) for process in clients]
        assert len(set(sessions)) == 8
        for process in clients:
            tell(process, 10)
        assert [line(process) for process in clients] == ["10"] * 8

        watcher = garcon.connect("busy")
        assert {c["session"] for c in watcher.status()["clients"]} >= set(sessions)
        with pytest.raises(BadRequest, match="Other clients use this server") as refused:
            watcher.shutdown()
        assert all(session in str(refused.value) for session in sessions)

        clients[0].kill()
        assert sessions[0] in held(watcher)
        until(lambda: sessions[0] not in held(watcher))
        assert set(sessions[1:]) <= held(watcher)
        with pytest.raises(BadRequest, match="Connect first"):
            watcher.session, mine = sessions[0], watcher.session
            watcher.forward(PROMPT)
        watcher.session = mine
        for process in clients[1:]:
            tell(process, 1)
        assert [line(process) for process in clients[1:]] == ["1"] * 7
        watcher.close()


def held(model: RemoteModel) -> set[str]:
    """Sessions of which some rank holds contexts or snapshots; each rank prints its own."""
    import contextlib
    import io

    code = """
        import gc
        from garcon_backend.save_contexts.contexts import Contexts

        (contexts,) = [found for found in gc.get_objects() if isinstance(found, Contexts)]
        print(*{key[0] for key in (*contexts._live, *contexts._snapshots)})
        """
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        model.run_on_ranks(textwrap.dedent(code))
    lines = [text.split("] ", 1)[1] for text in printed.getvalue().splitlines()]
    assert len(lines) == 2
    return {session for text in lines for session in text.split()}


def test_a_session_with_a_name_stays(busy: Server) -> None:
    code = """
        import garcon_jupyter as garcon
        def keep(save_ctx, tensor):
            save_ctx.tensor = tensor
        models = garcon.connect("busy", session="kept"), garcon.connect("busy")
        for rmodel in models:
            rmodel.forward([[1, 2, 3]], probes=[rmodel.probe_points["layers.2.mlp.out"].probe(keep)])
            print(rmodel.session, flush=True)
        input()
        """
    with client(code=code) as process:
        assert line(process) == "kept"
        unnamed = line(process)
        process.kill()
        process.wait()
        mine = garcon.connect("busy")
        until(lambda: unnamed not in held(mine))
        assert "kept" in held(mine)
        mine.close()
    resumed = garcon.connect("busy", session="kept")
    assert resumed.resumed and resumed.recordings()[OUT].tensor.shape == (1, 3, 48)
    resumed.close()


# -- turns ---------------------------------------------------------------------------------------


def in_background(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_a_long_row_of_one_session_delays_another_by_one_request(busy: Server) -> None:
    """Counted by the server itself: the number of a request's turn, over all sessions."""
    greedy = [garcon.connect("busy", session="greedy") for _ in range(6)]
    other = garcon.connect("busy")

    def counts(save_ctx: Any, tensor: Tensor) -> None:
        import builtins
        import time

        builtins.turns = save_ctx.turn = getattr(builtins, "turns", 0) + 1  # type: ignore[attr-defined]
        time.sleep(0.3)

    def run(model: RemoteModel, name: str) -> None:
        probe = model.probe_points[OUT].probe(counts, name=name)
        model.forward(PROMPT, probes=[probe], logits="none")

    run(other, "before")
    start = other.recordings()[OUT, "before"].turn
    threads = [in_background(lambda m=m, n=n: run(m, f"n{n}")) for n, m in enumerate(greedy)]  # type: ignore[misc]
    until(lambda: len(other.status()["waiting"]) == 5)
    run(other, "after")
    turn = other.recordings()[OUT, "after"].turn - start
    for thread in threads:
        thread.join()
    assert turn <= 3  # the one that ran, perhaps one whose turn had come, and this
    turns = sorted(greedy[0].recordings()[OUT, f"n{n}"].turn - start for n in range(6))
    assert turns == sorted(set(range(1, 8)) - {turn})
    for model in (*greedy, other):
        model.close()


def test_who_waits_sees_for_whom(busy: Server, capsys: pytest.CaptureFixture[str]) -> None:
    long, mine = garcon.connect("busy", session="long"), garcon.connect("busy", session="mine")
    queued = garcon.connect("busy", session="queued")

    def lasts(save_ctx: Any, tensor: Tensor) -> None:
        import time

        time.sleep(1.6)

    def slow(model: RemoteModel) -> Callable[[], Any]:
        probe = model.probe_points[OUT].probe(lasts)
        return lambda: model.forward(PROMPT, probes=[probe], logits="none")

    threads = [in_background(slow(long))]
    until(lambda: mine.status()["running"] is not None)
    threads.append(in_background(lambda: queued.generate(PROMPT, max_new_tokens=1)))
    until(lambda: len(mine.status()["waiting"]) == 1)
    threads.append(in_background(lambda: mine.forward(PROMPT, logits="none")))
    until(lambda: len(long.status()["waiting"]) == 2)
    rows = long.status()["waiting"]
    assert [(row["session"], row["kind"], row["place"]) for row in rows] == [
        ("queued", "generate", 2),
        ("mine", "forward", 3),
    ]
    for thread in threads:
        thread.join()
    user = long.status()["clients"][0]["user"]
    told = capsys.readouterr().err.splitlines()
    assert told.count(f"waiting: 1 request before yours ({user}: forward)") == 1
    assert told.count(f"waiting: 2 requests before yours ({user}: forward, {user}: generate)") == 1
    assert len(told) <= 3  # and perhaps that of the two one is done
    mine.forward(PROMPT, logits="none")
    assert capsys.readouterr().err == ""  # who does not wait is told nothing
    for model in (long, mine, queued):
        model.close()


def test_requests_of_a_vanished_client_leave_the_row(busy: Server) -> None:
    """The one that runs comes to its end; those behind it never begin."""
    code = """
        import threading
        import garcon_jupyter as garcon
        def slow(save_ctx, tensor):
            import builtins, time
            builtins.begun = getattr(builtins, "begun", 0) + 1
            time.sleep(1)
        def run(rmodel):
            rmodel.forward([[1, 2]], probes=[rmodel.probe_points["layers.2.mlp.out"].probe(slow)])
        for _ in range(4):
            rmodel = garcon.connect("busy", session="gone")
            threading.Thread(target=run, args=(rmodel,)).start()
        input()
        """
    watcher = garcon.connect("busy")
    with client(code=code) as process:
        until(lambda: len(watcher.status()["waiting"]) == 3)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert close(watcher.forward(PROMPT), watcher.forward(PROMPT))
        until(lambda: not watcher.status()["waiting"])

    def looks(save_ctx: Any, tensor: Tensor) -> None:
        import builtins

        save_ctx.begun = builtins.begun  # type: ignore[attr-defined]

    watcher.forward(PROMPT, probes=[watcher.probe_points[OUT].probe(looks)])
    assert watcher.recordings()[OUT].begun == 1
    watcher.close()


# -- the parts, alone ----------------------------------------------------------------------------


def someone(pid: int, host: str | None = None) -> ClientProcess:
    import socket

    return ClientProcess("someone", host or socket.gethostname(), pid)


def ended() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_sessions_are_forgotten_after_their_time() -> None:
    sessions = Sessions()
    here, _ = sessions.open(None, someone(os.getpid()))
    gone, _ = sessions.open(None, someone(ended()))
    named, _ = sessions.open("named", someone(ended()))
    book, _ = sessions.open(None, someone(ended()), prefer="book")
    assert sessions.vanished(gone.name) and not sessions.vanished(here.name)
    assert sessions.forget(60, now=100) == [] and sessions.forget(60, now=159) == []
    assert sessions.forget(60, now=160) == [gone.name]
    assert not sessions.known(gone.name)
    assert all(sessions.known(session.name) for session in (here, named, book))
    sessions.leave(here.name, someone(os.getpid()))
    assert not sessions.vanished(here.name)  # it said goodbye
    assert sessions.forget(60, now=200) == []
    sessions.open(here.name, someone(os.getpid()))  # and is back
    assert sessions.forget(60, now=300) == []
    sessions.leave(here.name, someone(os.getpid()))
    assert sessions.forget(0, now=1000) == []  # never
    assert sessions.forget(60, now=1060) == [here.name]


def test_a_client_of_another_host_is_not_known_to_have_ended() -> None:
    sessions = Sessions()
    far, _ = sessions.open(None, someone(ended(), host="elsewhere"))
    assert far.held and not sessions.vanished(far.name)


def test_places_are_told_once_per_change() -> None:
    turns, told = Turns(), []
    turns.running = Queued("alice", "0", "backward", None)
    waiting = QueuePlaces(
        turns,
        lambda session: session,
        lambda item, content: told.append((item.id, content["place"], content["text"])),
    )
    before = time.time() - MOMENT - 1
    assert not waiting.look()
    for session, request in ("alice", "1"), ("alice", "2"), ("bob", "3"):
        turns.put(Queued(session, request, "forward", None, since=before))
    turns.put(Queued("carol", "4", "forward", None))
    assert waiting.look() and waiting.look()
    assert told == [
        ("1", 2, "waiting: 1 request before yours (alice: backward)\n"),
        ("3", 3, "waiting: 2 requests before yours (alice: backward, alice: forward)\n"),
        (
            "2",
            5,
            "waiting: 4 requests before yours (alice: backward, alice: forward, bob: forward, …)\n",
        ),
    ]  # carol has only come
    turns.running = None
    turns.remove("4")
    del told[:]
    waiting.look()
    assert told == [
        ("3", 2, "waiting: 1 request before yours (alice: forward)\n"),
        ("2", 3, "waiting: 2 requests before yours (alice: forward, bob: forward)\n"),
    ]
    many = [Queued("dora", str(n), "fetch", None) for n in range(3)]
    assert waiting.described(many) == "3 requests before yours (dora: 3 × fetch)"


def test_a_status_is_plain_data(busy: Server) -> None:
    model = garcon.connect("busy")
    assert json.loads(json.dumps(model.status()["waiting"])) == []
    model.close()
