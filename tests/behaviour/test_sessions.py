"""Sessions: clients that never see each other, and notebooks that find their recordings again."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.kernel.sessions import ClientProcess, Sessions
from garcon_jupyter import RemoteModel, Server, SessionInUse
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


def another_process(code: str, **environment: str) -> subprocess.Popen[str]:
    """A client in a process of its own; it has `garcon` and `keep`."""
    setup = """
        import garcon_jupyter as garcon
        def keep(save_ctx, tensor):
            save_ctx.tensor = tensor
        """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(setup) + textwrap.dedent(code)],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# -- isolation -----------------------------------------------------------------------------------


def test_two_clients_never_see_each_others_contexts(llama_server: Server) -> None:
    one, other = garcon.connect("tiny"), garcon.connect("tiny")
    assert one.session != other.session
    one.forward(PROMPT, probes=[one.probe_points[OUT].probe(keep)])
    assert list(other.recordings()) == []
    other.forward(PROMPT[::-1], probes=[other.probe_points[OUT].probe(keep)])
    mine, theirs = one.recordings()[OUT].tensor, other.recordings()[OUT].tensor
    assert close(mine[0], theirs[1]) and not close(mine[0], theirs[0], 1e-3)
    other.clear_recordings()
    assert list(one.recordings()) == [OUT]
    one.close(), other.close()


def test_two_clients_never_see_each_others_probes(llama_server: Server, plain: Plain) -> None:
    def ablate(save_ctx: Any, tensor: Tensor) -> Tensor:
        return tensor * 0

    one, other = garcon.connect("tiny"), garcon.connect("tiny")
    one.attach(one.probe_points[OUT].probe(ablate))
    assert not close(one.forward(PROMPT), plain.logits(PROMPT), 1e-3)
    assert close(other.forward(PROMPT), plain.logits(PROMPT))
    one.close(), other.close()


def test_a_snapshot_of_another_session_cannot_be_read(llama_server: Server) -> None:
    one, other = garcon.connect("tiny"), garcon.connect("tiny")
    one.forward(PROMPT, probes=[one.probe_points[OUT].probe(keep)])
    recording = one.recordings()[OUT]
    stolen = recording.handle("tensor")
    stolen._model = other
    with pytest.raises(garcon.NoRecording):
        stolen.fetch()
    assert recording.tensor.shape == (2, 6, 48)
    one.close(), other.close()


def test_clients_at_the_same_time_get_their_own_answers(llama_server: Server, plain: Plain) -> None:
    """Requests of several clients interleave; every answer is that of its own request."""
    failures: list[str] = []

    def work(number: int) -> None:
        model = garcon.connect("tiny")
        ids = [[0, number, number + 1, 40]]

        def factor(save_ctx: Any, tensor: Tensor) -> None:
            save_ctx.number = number

        expected = plain_logits[number]
        for _ in range(10):
            logits = model.forward(ids, probes=[model.probe_points[OUT].probe(factor)])
            if not close(logits, expected) or model.recordings()[OUT].number != number:
                failures.append(f"client {number}")
        model.close()

    plain_logits = {n: plain.logits([[0, n, n + 1, 40]]) for n in range(50, 54)}
    threads = [threading.Thread(target=work, args=(n,)) for n in plain_logits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# -- resuming ------------------------------------------------------------------------------------


def test_a_named_session_is_resumed_after_its_process_was_killed(llama_server: Server) -> None:
    client = another_process(
        f"""
        rmodel = garcon.connect("tiny", session="alice")
        rmodel.forward({PROMPT}, probes=[rmodel.probe_points["{OUT}"].probe(keep)])
        print(rmodel.resumed, flush=True)
        input()
        """
    )
    assert client.stdout is not None
    assert client.stdout.readline() == "False\n"
    with pytest.raises(SessionInUse, match=rf"'alice' is held by .*process {client.pid}"):
        garcon.connect("tiny", session="alice")
    client.kill()
    client.wait()
    resumed = garcon.connect("tiny", session="alice")
    assert resumed.resumed
    assert resumed.recordings()[OUT].tensor.shape == (2, 6, 48)
    resumed.close()


def test_a_killed_client_that_nobody_has_waited_for_holds_nothing(llama_server: Server) -> None:
    client = another_process(
        'rmodel = garcon.connect("tiny", session="zombie")\nprint("in", flush=True)\ninput()'
    )
    assert client.stdout is not None and client.stdout.readline() == "in\n"
    client.kill()
    os.waitid(os.P_PID, client.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the table
    resumed = garcon.connect("tiny", session="zombie")
    assert resumed.resumed
    resumed.close()
    client.wait()


def test_a_closed_session_stays_on_the_server(llama_server: Server) -> None:
    first = garcon.connect("tiny", session="bob")
    first.forward(PROMPT, probes=[first.probe_points[OUT].probe(keep)])
    first.close()
    second = garcon.connect("tiny", session="bob")
    assert second.resumed and list(second.recordings()) == [OUT]
    second.close()


def test_a_notebook_finds_its_session_again(
    llama_server: Server, llama_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/My notebook (1).ipynb")

    def reconnect() -> RemoteModel:
        return garcon.launch_and_connect(llama_path, name="tiny", progress=lambda line: None)

    first = reconnect()
    assert "My-notebook" in first.session and not first.resumed
    first.forward(PROMPT, probes=[first.probe_points[OUT].probe(keep)])
    first.close()  # as a restarted kernel does
    again = reconnect()
    assert again.session == first.session and again.resumed
    assert list(again.recordings()) == [OUT]
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/other.ipynb")
    other = reconnect()
    assert other.session != first.session and list(other.recordings()) == []
    again.close(), other.close()


def test_a_notebook_whose_session_is_held_gets_a_fresh_one(
    llama_server: Server, llama_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
        rmodel = garcon.launch_and_connect("{llama_path}", name="tiny", progress=lambda line: None)
        print(rmodel.session, rmodel.resumed, flush=True)
        input()
        """
    client = another_process(code, JPY_SESSION_NAME="held.ipynb")
    assert client.stdout is not None
    held, resumed = client.stdout.readline().split()
    assert "held.ipynb" in held and resumed == "False"
    monkeypatch.setenv("JPY_SESSION_NAME", "held.ipynb")
    mine = garcon.launch_and_connect(llama_path, name="tiny", progress=lambda line: None)
    assert mine.session != held and not mine.resumed
    mine.close()
    client.communicate("\n")


def test_a_dropped_model_lets_go_of_its_session(llama_server: Server) -> None:
    garcon.connect("tiny", session="dropped")  # and nobody keeps it
    client = another_process('print(garcon.connect("tiny", session="dropped").resumed)')
    assert client.communicate()[0] == "True\n"


# -- the parts, alone ----------------------------------------------------------------------------


def me(pid: int | None = None) -> ClientProcess:
    import socket

    return ClientProcess("me", socket.gethostname(), os.getpid() if pid is None else pid)


def test_a_preferred_session_in_use_gives_another() -> None:
    sessions = Sessions()
    held, _ = sessions.open(None, me(os.getppid()), prefer="book")
    other, resumed = sessions.open(None, me(), prefer="book")
    assert held.name == "book" and other.name != "book" and not resumed
    with pytest.raises(SessionInUse, match=f"process {os.getppid()}"):
        sessions.open("book", me())


def test_leaving_a_session_that_another_process_took_over_changes_nothing() -> None:
    sessions = Sessions()
    session, _ = sessions.open("s", me())
    sessions.leave("s", me(os.getppid()))
    assert session.held
    sessions.leave("s", me())
    assert not session.held and sessions.known("s")
