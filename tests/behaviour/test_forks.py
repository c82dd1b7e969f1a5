"""A fork of a process that is connected: it is told so at once, and its parent goes on."""

from __future__ import annotations

import copy
import os
import pickle
import select
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from torch import Tensor

import garcon_jupyter as garcon
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"


def keep(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


def in_a_fork(work: Callable[[], Any], seconds: float = 20.0) -> str:
    """What a fork of this process says of its work: the value, or the error."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = repr(work())
        except BaseException as error:  # noqa: BLE001 - it is told
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], seconds)
    if not ready:
        os.kill(pid, 9)
    said = os.read(reading, 4000).decode() if ready else "it hangs"
    os.close(reading)
    os.waitpid(pid, 0)
    return said


USES: dict[str, Callable[[garcon.RemoteModel], Any]] = {
    "forward": lambda rmodel: rmodel.forward(PROMPT),
    "encode": lambda rmodel: rmodel.encode("hi"),
    "recordings": lambda rmodel: rmodel.recordings(),
    "runs": lambda rmodel: rmodel.runs(),
    "result": lambda rmodel: rmodel.result("nothing"),
    "status": lambda rmodel: rmodel.status(),
    "keep_alive": lambda rmodel: rmodel.keep_alive(),
    "parameter": lambda rmodel: rmodel.get_parameter("embed.weight"),
}


def test_a_fork_is_told_to_connect_itself(rmodel: garcon.RemoteModel, plain: Plain) -> None:
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(keep)])
    for use in USES.values():
        said = in_a_fork(lambda use=use: use(rmodel))  # type: ignore[misc]
        assert said.startswith(
            f"NotConnected: This connection to 'tiny' is that of process {os.getpid()}"
        )
        assert 'garcon.connect("tiny")' in said
    # An answer of the server to a question of the fork would have come to the parent.
    assert close(rmodel.forward(PROMPT), plain.logits(PROMPT))
    assert rmodel.recordings()[OUT].tensor.shape == (2, 6, 48)


def test_locks_that_a_thread_held_do_not_matter(rmodel: garcon.RemoteModel) -> None:
    with rmodel._channel._request_lock, rmodel._channel._control_lock:
        assert in_a_fork(lambda: rmodel.encode("hi")).startswith("NotConnected")
    import threading

    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with rmodel._channel._request_lock, rmodel._channel._control_lock:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert in_a_fork(lambda: rmodel.forward(PROMPT)).startswith("NotConnected")
    over.set()
    thread.join()


def test_a_fork_connects_and_has_a_session_of_its_own(
    rmodel: garcon.RemoteModel, plain: Plain
) -> None:
    expected = plain.logits(PROMPT)

    def work() -> Any:
        mine = garcon.connect("tiny")
        return mine.session != rmodel.session, close(mine.forward(PROMPT), expected)

    assert in_a_fork(work) == "(True, True)"


def test_a_fork_that_ends_says_goodbye_for_nobody(llama_server: garcon.Server) -> None:
    """It leaves by its finalizers, as ``sys.exit`` and the end of a script do; the session is its parent's."""
    code = """
        import gc, os, sys
        import garcon_jupyter as garcon
        rmodel = garcon.connect("tiny", session="parent")
        for way in ("exit", "del", "close"):  # the first of them in the midst of the import of torch
            pid = os.fork()
            if pid == 0:
                if way == "del":
                    del rmodel
                    gc.collect()
                elif way == "close":
                    rmodel.close()
                import torch
                sys.exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7, way
            held = [one.pid for one in garcon.sessions("tiny") if one.name == "parent" and one.held]
            assert held == [os.getpid()], way
        print(list(rmodel.forward([[0, 5, 6]]).shape))
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[1, 3, 263]\n", "")


def test_a_connection_cannot_be_pickled_and_says_what_can_be_done(
    rmodel: garcon.RemoteModel,
) -> None:
    rmodel.forward(PROMPT, probes=[rmodel.probe_points[OUT].probe(keep)])
    recordings = rmodel.recordings()
    for value in (rmodel, recordings, recordings[OUT], recordings[OUT].handle("tensor")):
        for way in (pickle.dumps, cloudpickle.dumps, copy.deepcopy):
            with pytest.raises(garcon.CannotTravel, match=r"connect: garcon.connect\(\"tiny\"\)"):
                way(value)

    def asks(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.other = rmodel.forward(PROMPT)

    with pytest.raises(garcon.BadProbe, match="'rmodel', a RemoteModel, cannot be pickled"):
        rmodel.probe_points[OUT].probe(asks)


def test_a_closed_connection_says_so(llama_server: garcon.Server) -> None:
    rmodel = garcon.connect("tiny")
    rmodel.close()
    for use in USES.values():
        with pytest.raises(garcon.NotConnected, match="was closed"):
            use(rmodel)
