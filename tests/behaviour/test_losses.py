"""Ranks that are lost, stop, hang or do not listen: what the client sees, and what is there afterwards.

Every server here is a real one that is really hurt, so each test has its own.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import garcon_jupyter as garcon
from garcon_backend.distributed.rank_failures import LIMIT
from garcon_jupyter import NoRecording, RemoteModel, Server, ServerGone, ServerRestarted
from garcon_jupyter.servers import registry
from garcon_jupyter.servers.server import own_directory, why_gone
from tests.behaviour.conftest import Launch
from tests.behaviour.test_servers import traces, until
from tests.oracle import PROMPT, Plain, close

OUT = "layers.2.mlp.out"
NEURONS = "layers.1.mlp.post_activation"


@contextmanager
def fails_within(seconds: float, message: str) -> Iterator[None]:
    """A request fails, because the ranks are started anew, within so many seconds."""
    start = time.monotonic()
    with pytest.raises(ServerRestarted, match=message):
        yield
    assert time.monotonic() - start < seconds


def lives(model: RemoteModel, plain: Plain) -> bool:
    """Whether the same connection gives the right numbers."""
    return close(model.forward(PROMPT, probes=[]), plain.logits(PROMPT))


def pids(server: Server) -> list[int]:
    """Of the ranks, as they are now."""
    return [rank["pid"] for rank in registry.find(server.name).facts["ranks"]]


def kill_idle(server: Server, rank: int) -> None:
    """Kill a rank, and wait until that was noticed."""
    seen = server.file.stat().st_mtime_ns
    os.kill(pids(server)[rank], signal.SIGKILL)
    until(lambda: not server.file.exists() or server.file.stat().st_mtime_ns != seen)


def backed_up(name: str, words: bytes) -> bool:
    """Whether a journal of the server's ranks has words of this pattern."""
    directory = own_directory(name) / "contexts"
    return any(re.search(words, file.read_bytes()) for file in directory.glob("*/journal-*"))


def own_files(server: Server) -> int:
    """How many files and directories the server has for itself, without those of saved contexts."""
    directory = own_directory(server.name)
    return sum(directory / "contexts" not in path.parents for path in directory.rglob("*"))


def endless(save_ctx: Any, tensor: Tensor) -> None:
    while True:
        time.sleep(0.01)


@contextmanager
def once_it_runs(server: Server, act: Callable[[], None]) -> Iterator[None]:
    """Does something as soon as the server runs a request."""

    def wait_and_act() -> None:
        other = garcon.connect(server.name)
        until(lambda: other.status()["running"])
        act()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize(("tp", "rank"), [(1, 0), (2, 0), (2, 1)])
def test_a_rank_that_is_killed(launch: Launch, plain: Plain, tp: int, rank: int) -> None:
    server = launch("hurt", tp=tp)
    model = garcon.connect("hurt", session="me")

    def keep(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.tensor = tensor
        save_ctx.count = getattr(save_ctx, "count", 0) + 1
        save_ctx.lock = threading.Lock()

    point = model.probe_points[OUT]
    model.forward(PROMPT, probes=[point.probe(keep)])
    shards = model.probe_points[NEURONS].probe(keep_shard, sharded=True)
    model.forward(PROMPT, probes=[point.probe(keep), shards])
    before = model.recordings()
    until(lambda: backed_up("hurt", b"_thread.lock.{1,99}saved by forward 2"))
    with (
        once_it_runs(server, lambda: os.kill(pids(server)[rank], signal.SIGKILL)),
        fails_within(5, rf"'hurt' starts anew, because rank {rank} was lost \(signal SIGKILL\)"),
    ):
        model.forward(PROMPT, probes=[point.probe(endless)])
    assert lives(model, plain)

    found = model.recordings()
    assert "forward 2, which ended at" in repr(found[OUT])
    assert close(found[OUT].tensor, plain.output("model.layers.2.mlp", PROMPT))
    assert found[OUT].count == 2
    assert close(found[NEURONS].tensor, plain.neurons(1, PROMPT))
    with pytest.raises(
        NoRecording, match=r"lost with rank 0: .*lock.* cannot be pickled.* saved by forward 2"
    ):
        found[OUT].lock  # noqa: B018
    with pytest.raises(NoRecording, match="released on the server"):
        before[OUT].tensor  # noqa: B018

    model.forward(PROMPT, probes=[point.probe(keep)])
    assert model.recordings()[OUT].count == 3  # it goes on from there
    assert "which ended" not in repr(model.recordings()[OUT])

    other = garcon.connect("hurt", session="left by its client")
    other.forward(PROMPT, probes=[point.probe(keep)])
    other.close()
    files = own_files(server)
    kill_idle(server, -1)
    assert lives(model, plain)
    recorded = {one.name: one.recordings for one in garcon.sessions("hurt") if one.contents}
    assert recorded == {"me": len(model.recordings()), "left by its client": 1}
    other = garcon.connect("hurt", session="left by its client")
    assert other.resumed and list(other.recordings()) == [OUT]
    other.close()
    assert own_files(server) == files  # what an earlier start left behind is gone
    model.shutdown()
    until(lambda: not traces(server))
    assert "shut down by" in why_gone("hurt")


def keep_shard(save_ctx: Any, tensor: Tensor) -> None:
    save_ctx.tensor = tensor


def test_a_body_that_ends_its_process(launch: Launch, plain: Plain) -> None:
    launch("exit")
    model, other = garcon.connect("exit"), garcon.connect("exit")

    def leave(save_ctx: Any, tensor: Tensor) -> None:
        os._exit(3)

    probe = model.probe_points[OUT].probe(leave)
    with fails_within(5, r"rank 0 was lost \(exit code 3\)"):
        model.forward(PROMPT, probes=[probe])
    assert lives(other, plain)  # who was there meanwhile, and asked nothing
    assert lives(model, plain)


def test_what_does_not_fit_into_the_backup_is_named(
    launch: Launch, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARCON_BACKUP_BYTES", "100000")
    server = launch("small")
    model = garcon.connect("small")

    def keep(save_ctx: Any, tensor: Tensor) -> None:
        save_ctx.mean = tensor.mean()
        save_ctx.big = torch.zeros(1000, 1000)

    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(keep)])
    kill_idle(server, 0)
    found = model.recordings()
    expected = plain.output("model.layers.2.mlp", PROMPT).mean()
    assert close(found[OUT].mean, expected)
    with pytest.raises(
        NoRecording, match=r"4,000,000 bytes, with .* left for backups, saved by forward 1"
    ):
        found[OUT].big  # noqa: B018


def test_a_server_that_is_lost_again_and_again_gives_up(launch: Launch) -> None:
    server = launch("doomed")
    for _ in range(LIMIT):
        former = pids(server)[0]
        os.kill(former, signal.SIGKILL)
        until(lambda former=former: server.file.exists() and pids(server)[0] != former)
    os.kill(pids(server)[0], signal.SIGKILL)
    until(lambda: not traces(server))
    assert f"it was lost {LIMIT + 1} times within 10 minutes" in why_gone("doomed")
    assert "rank 0 was lost (signal SIGKILL)" in why_gone("doomed")


@pytest.mark.parametrize("tp", [1, 2])
def test_a_launcher_that_is_killed_leaves_nothing(launch: Launch, tp: int) -> None:
    server = launch("orphan", tp=tp)
    model = garcon.connect("orphan")
    with (
        once_it_runs(server, lambda: os.kill(server.facts["supervisor"], signal.SIGKILL)),
        pytest.raises(ServerGone),
    ):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(endless)])
    assert "orphan" not in [server.name for server in garcon.servers()]
    until(lambda: not traces(server))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_stopped(launch: Launch, plain: Plain, rank: int) -> None:
    server = launch("frozen", tp=2)
    model = garcon.connect("frozen")
    os.kill(pids(server)[rank], signal.SIGSTOP)
    with fails_within(10, f"rank {rank} has been stopped for 5 seconds"):
        model.forward(PROMPT)
    assert lives(model, plain)


def test_ranks_that_wait_for_one_another(
    launch: Launch, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARCON_HANG_TIME", "2")
    launch("torn", tp=2)
    model = garcon.connect("torn")

    def diverge(save_ctx: Any, tensor: Tensor) -> None:
        torch.distributed.all_reduce(torch.ones(3))  # the leader alone

    here = rf"{__file__}, line \d+"
    with fails_within(
        8,
        rf"wait for one another: rank 0 runs {here}, which waits in all_reduce at {OUT}.*; "
        r"rank 1 waits in broadcast at",
    ):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(diverge)])
    assert lives(model, plain)

    def slow(save_ctx: Any, tensor: Tensor) -> None:
        time.sleep(4)  # others wait for it, but nobody hangs

    model.forward(PROMPT, probes=[model.probe_points[OUT].probe(slow)])


def test_code_that_no_signal_reaches(launch: Launch, plain: Plain) -> None:
    launch("deaf")
    model = garcon.connect("deaf")

    def deaf(save_ctx: Any, tensor: Tensor) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        time.sleep(60)

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with fails_within(14, rf"interrupted, and rank 0 runs .*line \d+ at {OUT}.* 10 seconds more"):
        model.forward(PROMPT, probes=[model.probe_points[OUT].probe(deaf)])
    assert lives(model, plain)
