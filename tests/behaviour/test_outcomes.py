"""Requests that nobody waited for to the end: the answer and the prints are there afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.kernel.data_socket import DataPlane
from garcon_backend.kernel.orphans import ORPHANED, Orphans
from garcon_backend.kernel.outcomes import (
    KEPT,
    LARGEST,
    LONG,
    REMEMBERED,
    SOON,
    EndedRequest,
    Outcomes,
)
from garcon_backend.lockstep.turns import Queued
from garcon_jupyter import BadRequest, Interrupted, RemoteModel, Server
from garcon_jupyter.servers import control
from garcon_jupyter.wire import transport
from tests.behaviour.test_servers import until
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"


NOTEBOOK = f"""
import sys, time
import garcon_jupyter as garcon

model = garcon.connect(sys.argv[1], session=sys.argv[2])

def slow(save_ctx, tensor):
    for tick in range(12):
        print("tick", tick)
        time.sleep(0.5)
    save_ctx.tensor = tensor

model.forward({PROMPT!r}, probes=[model.probe_points[{OUT!r}].probe(slow)])
"""


@pytest.fixture
def abandoned(llama_server: Server) -> Iterator[RemoteModel]:
    """A session whose notebook was killed while its request ran, resumed by another."""
    command = [sys.executable, "-c", NOTEBOOK, llama_server.name, "abandoned"]
    notebook = subprocess.Popen(command)
    until(lambda: control.status(llama_server)["running"])
    notebook.kill()
    notebook.wait()
    model = garcon.connect(llama_server.name, session="abandoned")
    yield model
    model.clear_recordings()
    model.close()


def test_a_restarted_notebook_finds_its_request(
    abandoned: RemoteModel, plain: Plain, capsys: pytest.CaptureFixture[str]
) -> None:
    (left,) = abandoned.pending()
    assert (left["kind"], left["state"]) == ("forward", "running")
    assert close(abandoned.result(left["request"]), plain.logits(PROMPT))
    assert capsys.readouterr().out.splitlines() == [f"tick {n}" for n in range(12)]
    expected = plain.output("model.layers.2.mlp", PROMPT)
    assert close(abandoned.recordings()[OUT].tensor, expected)

    assert abandoned.pending() == []  # it was received
    with pytest.raises(BadRequest, match="no request that is unfinished or unread"):
        abandoned.result()
    with pytest.raises(BadRequest, match="No answer to request"):
        abandoned.result(left["request"])


def test_a_second_interrupt_detaches(rmodel: RemoteModel, plain: Plain) -> None:
    def stubborn(save_ctx: Any, tensor: Tensor) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # until this request is over
        time.sleep(3)

    def twice() -> None:
        for _ in range(2):
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=twice)
    thread.start()
    with pytest.raises(Interrupted, match=r'You stopped waiting .*rmodel\.result\("') as caught:
        rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(stubborn)])
    thread.join()
    (left,) = rmodel.pending()
    assert left["request"] in str(caught.value)
    assert left["state"] == "running"
    assert close(rmodel.forward(PROMPT, probes=[]), plain.logits(PROMPT))  # runs after it
    assert rmodel.pending()[0]["state"] == "ended"
    assert close(rmodel.result(), plain.logits(PROMPT))
    assert rmodel.pending() == []


def test_a_reply_that_is_lost_on_its_way_is_asked_for(
    rmodel: RemoteModel, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the client's machine slept: the reply comes, and nobody is there."""

    def slow(save_ctx: Any, tensor: Tensor) -> None:
        time.sleep(LONG + 0.5)

    channel = rmodel._channel
    sockets = [channel._shell, channel._context.socket(5)]  # a DEALER that nobody sends to
    received = channel._receive

    def deaf(sock: Any) -> Any:
        message = received(sock)
        return None if sock is sockets[0] else message

    monkeypatch.setattr(channel, "_receive", deaf)
    answer = rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(slow)])
    assert close(answer, plain.logits(PROMPT))


LOOP = NOTEBOOK.replace("range(12)", "iter(int, 1)")  # without an end


def left_looping(server: Server, session: str) -> None:
    """A notebook sends a request that never ends, and is killed."""
    notebook = subprocess.Popen([sys.executable, "-c", LOOP, server.name, session])
    until(lambda: control.status(server)["running"])
    notebook.kill()
    notebook.wait()


def test_a_restarted_notebook_stops_what_never_ends(
    llama_server: Server, rmodel: RemoteModel, plain: Plain
) -> None:
    left_looping(llama_server, "looping")
    model = garcon.connect(llama_server.name, session="looping")
    (left,) = model.pending()
    with pytest.raises(BadRequest, match="has no request 'r1'"):
        model.cancel("r1")
    with pytest.raises(BadRequest, match="Nothing of it waits or runs"):
        rmodel.cancel(left["request"])  # which is another session's
    assert [row["state"] for row in model.pending()] == ["running"]
    model.cancel()
    assert close(model.forward(PROMPT, probes=[]), plain.logits(PROMPT))
    assert [row["state"] for row in model.pending()] in ([], ["ended"])
    model.cancel()  # what has ended is left as it is
    model.close()


def test_a_request_without_a_client_does_not_hold_up_others_for_ever(
    llama_path: Path, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARCON_ORPHANED", "1.5")
    server = garcon.launch(llama_path, "orphans", progress=quiet)
    model = garcon.connect("orphans")
    left_looping(server, "gone")
    begin = time.monotonic()
    assert close(model.forward(PROMPT, probes=[]), plain.logits(PROMPT))
    assert 1 < time.monotonic() - begin < 30
    model.shutdown()


def test_when_an_orphan_is_stopped() -> None:
    def queued(name: str) -> Queued:
        return Queued("me", name, "forward", None)

    one, other = queued("one"), queued("other")
    orphans = Orphans(alone=1000.0)
    assert orphans.look(one, True, 0.0) is None
    assert orphans.look(one, True, ORPHANED - 1) is None
    assert orphans.look(one, True, ORPHANED) is one
    assert orphans.look(one, False, ORPHANED) is None  # nobody waits
    assert orphans.look(one, False, 1000.0) is one
    assert orphans.look(other, True, 1000.0) is None  # its time begins now
    assert orphans.look(None, True, 1001.0) is None  # somebody resumed the session
    assert orphans.look(other, True, 1000.0 + ORPHANED) is None
    assert Orphans(alone=None).look(one, False, 1e9) is None


def outcome(number: int, size: int = 1) -> EndedRequest:
    return EndedRequest("me", f"r{number}", "forward", {}, [b"x" * size], [])


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataPlane]:
    data = DataPlane(b"key", f"ipc://{tmp_path}/data")
    yield data
    data.close()


def test_short_requests_are_forgotten_and_long_ones_kept(data: DataPlane) -> None:
    outcomes = Outcomes(data)
    outcomes.keep(outcome(1), time.time())
    assert outcomes.of("me") == []
    outcomes.keep(outcome(2), time.time() - LONG - 1)
    outcomes.detach("r3")
    outcomes.keep(outcome(3), time.time())
    outcomes.keep(outcome(4, LARGEST + 1), time.time() - LONG - 1)
    assert [o["request"] for o in outcomes.of("me")] == ["r2", "r3"]
    assert outcomes.take("me", "r2").buffers == [b"x"]
    with pytest.raises(BadRequest):
        outcomes.take("somebody else", "r2")
    outcomes.received("me", "r2")
    assert [o["request"] for o in outcomes.of("me")] == ["r3"]


def test_a_client_may_detach_before_its_request_came(
    data: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = Outcomes(data)
    assert not outcomes.expected("r1")
    outcomes.detach("r1")
    assert outcomes.expected("r1")
    outcomes.keep(outcome(1), time.time())
    assert not outcomes.expected("r1") and outcomes.take("me", "r1")
    outcomes.detach("r2")
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic() + SOON: now)
    assert not outcomes.expected("r2")
    for number in range(REMEMBERED):
        outcomes.detach(f"junk {number}")
    assert not outcomes.detached("r2") and outcomes.detached("junk 0")


def test_newer_answers_take_the_room_of_older_ones(data: DataPlane) -> None:
    outcomes = Outcomes(data)
    for number in range(KEPT + 3):
        outcomes.keep(outcome(number), time.time() - LONG - 1)
    assert [o["request"] for o in outcomes.of("me")] == [f"r{n}" for n in range(3, KEPT + 3)]
    outcomes.drop("me")
    assert outcomes.of("me") == []


def test_what_is_kept_over_the_socket_for_data_is_kept_as_long(data: DataPlane) -> None:
    outcomes = Outcomes(data)
    for number in range(3):
        packed, buffers = transport.pack(
            torch.ones(100_000), give=lambda outgoing: data.offer("me", outgoing)
        )
        late = time.time() - (LONG + 1 if number else 0)
        outcomes.keep(EndedRequest("me", f"r{number}", "forward", packed, buffers), late)
    assert len(data._offered) == 3
    data.leave("me")
    assert len(data._offered) == 2  # the first was of a short request
    outcomes.received("me", "r1")
    outcomes.drop("me")
    assert not data._offered
