"""What differs from a server: whoever asks does the work, and may be asked."""

from __future__ import annotations

import io
import os
import pdb
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.in_process import ModelHere, open_here
from garcon_jupyter import RemoteModel
from garcon_jupyter.wire import requests
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"

HELD: dict[str, Any] = {}
"""What probes of this file find without taking it along."""


@pytest.fixture
def here(llama_path: Path) -> ModelHere:
    """One of its own."""
    return open_here(llama_path)


@pytest.fixture
def model(here: ModelHere) -> Iterator[RemoteModel]:
    connected = garcon.connect(here)
    yield connected
    connected.close()


def test_a_debugger_stops_in_a_probe(
    model: RemoteModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stops(save_ctx: Any, tensor: Tensor) -> None:
        breakpoint()
        save_ctx.answer = input("and? ")

    def debugger() -> None:  # pytest has one of its own
        pdb.Pdb(nosigint=True).set_trace(sys._getframe(1))

    monkeypatch.setattr(sys, "breakpointhook", debugger)
    monkeypatch.setattr(sys, "stdin", io.StringIO("p len(tensor) + 40\nc\nso\n"))
    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(stops)], logits="none")
    printed = capsys.readouterr().out
    assert "stops()" in printed and 'input("and? ")' in printed  # the line at which it stands
    assert printed.endswith("(Pdb) 42\n(Pdb) and? ")
    assert model.recordings()[OUT].answer == "so"
    assert sys.breakpointhook is debugger


def test_ctrl_c_stops_the_request_that_runs(model: RemoteModel, plain: Plain) -> None:
    def stubborn(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.begun = True
        signal.raise_signal(signal.SIGINT)
        while True:
            pass

    with pytest.raises(garcon.Interrupted):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(stubborn)])
    assert model.recordings()[OUT].begun
    assert close(model.forward(PROMPT, probes=[]), plain.logits(PROMPT))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_so_does_one_that_code_swallows(model: RemoteModel) -> None:
    def swallows(save_ctx: Any, tensor: Tensor) -> None:
        while True:
            try:
                if not getattr(save_ctx, "told", 0):
                    signal.raise_signal(signal.SIGINT)
                while True:
                    pass
            except BaseException:
                if getattr(save_ctx, "told", 0) == 2:
                    raise
                save_ctx.told = getattr(save_ctx, "told", 0) + 1

    with pytest.raises(garcon.Interrupted):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(swallows)])
    assert model.recordings()[OUT].told == 2


def test_another_thread_may_ask(
    model: RemoteModel, plain: Plain, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Any] = []

    def says(save_ctx: Any, tensor: Tensor) -> None:
        print("here")

    def ask() -> None:
        probe = model.probe_points[OUT].probe(says)
        answers.append(model.forward(PROMPT, probes=[probe]))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert close(answers[0], plain.logits(PROMPT))
    assert capsys.readouterr().out == "here\n"


def test_code_of_a_request_makes_no_other(model: RemoteModel) -> None:
    def asks(save_ctx: Any, tensor: Tensor) -> None:
        import tests.backend.in_process.test_serving as this

        this.HELD["model"]._run(HELD_REQUEST())

    HELD["model"] = model
    with pytest.raises(garcon.ProbeError, match="code of another one"):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(asks)])
    HELD.clear()


def HELD_REQUEST() -> requests.Request:
    return requests.Snapshot(number=1)


def test_a_run_stands_still_while_nobody_looks(model: RemoteModel) -> None:
    rows = [list(range(3, 13))] * 4
    run = model.run(rows, [model.probe_points[OUT].probe(nothing)], blocking=False)
    assert (run.status.state, run.status.tokens) == ("running", 0)
    assert model.status()["running"] is None
    assert [row["kind"] for row in model.status()["waiting"]] == ["run"]
    run.cancel()
    with pytest.raises(garcon.Interrupted, match="cancelled"):
        run.wait(show=False)


def nothing(save_ctx: Any, tensor: Tensor) -> None:
    """A probe that only looks away."""


def test_what_is_shut_down_answers_no_more(here: ModelHere) -> None:
    model, other = garcon.connect(here), garcon.connect(here)
    model.shutdown()
    with pytest.raises(garcon.ServerGone, match="has ended: shut down by"):
        other.forward(PROMPT)
    model.close()
    other.close()


@pytest.mark.processes
def test_a_fork_is_told_to_open_its_own(model: RemoteModel) -> None:
    if (child := os.fork()) == 0:
        told = "nothing"
        try:
            model.forward(PROMPT)
        except garcon.NotConnected as error:
            told = str(error)
        os._exit(0 if "which was forked" in told and "open_here" in told else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
