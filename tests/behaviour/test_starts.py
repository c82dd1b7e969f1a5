"""How servers start: forked from a preloaded process, from that of another server, or cold; and what happens to all of
them when any of these processes is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import garcon_jupyter as garcon
from garcon_jupyter import RemoteModel, Server, ServerRestarted
from garcon_jupyter.connection.connection_file import process_lives
from garcon_jupyter.servers import control, first_process, placement, registry
from garcon_jupyter.servers import server as places
from garcon_jupyter.wire import forking
from garcon_jupyter.wire.surroundings import COLD
from tests.behaviour.conftest import Launch
from tests.behaviour.test_servers import traces, until
from tests.conftest import quiet
from tests.oracle import PROMPT, Plain, close

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks only on Linux")

_STACK = 27
"""Place in ``/proc/PID/stat`` of the address at which the stack begins: a fork has its parent's, and no other
process has the same."""


def stack(pid: int) -> int:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[_STACK - 2])


def supervisor(server: Server) -> int:
    return registry.find(server.name).facts["supervisor"]


def ranks(server: Server) -> list[int]:
    return [rank["pid"] for rank in registry.find(server.name).facts["ranks"]]


def preloaded(server: Server) -> list[int]:
    """The process that ranks are forked from: what the supervisor has besides them; none in the cold way."""
    children = {child.pid for child in psutil.Process(supervisor(server)).children()}
    return sorted(children - set(ranks(server)))


def log(server: Server) -> str:
    return places.log_file(server.name).read_text()


def recovers(server: Server, model: RemoteModel, plain: Plain) -> None:
    """Kill a rank; the message is exact, and the same connection gives the right numbers."""
    seen = server.file.stat().st_mtime_ns
    former = ranks(server)
    os.kill(former[-1], signal.SIGKILL)
    until(lambda: server.file.stat().st_mtime_ns != seen)
    try:
        model.forward(PROMPT, logits="none")
    except ServerRestarted as error:
        assert f"rank {len(former) - 1} was lost (signal SIGKILL)" in str(error)
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    assert not set(former) & set(ranks(server))
    assert "starting the ranks anew" in log(server)
    assert f"rank {len(former) - 1} was lost (signal SIGKILL)" in log(server)


def test_ranks_are_forked_and_are_the_supervisors(launch: Launch, plain: Plain) -> None:
    server = launch("forked", tp=2)
    (source,) = preloaded(server)
    assert len(list(Path(f"/proc/{source}/task").iterdir())) == 1
    for _ in range(2):
        for rank in ranks(server):
            assert psutil.Process(rank).ppid() == supervisor(server)
            assert os.getsid(rank) == rank
            assert stack(rank) == stack(source)
            words = Path(f"/proc/{rank}/cmdline").read_text().rstrip("\0").split("\0")
            assert words[1:3] == ["-m", "garcon_backend"]
            assert words[3].endswith("/spec.json")
        recovers(server, garcon.connect("forked"), plain)
    assert preloaded(server) == [source]
    assert "by command" not in log(server)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_the_preloaded_process_ranks_start_by_command(
    launch: Launch, plain: Plain, number: signal.Signals
) -> None:
    server = launch("bereft")
    (source,) = preloaded(server)
    model = garcon.connect("bereft")
    os.kill(source, number)
    assert close(model.forward(PROMPT), plain.logits(PROMPT))  # no rank needs it
    (former,) = ranks(server)
    assert process_lives(former)
    recovers(server, model, plain)
    assert "a rank starts by command" in log(server)
    (rank,) = ranks(server)
    assert stack(rank) != stack(supervisor(server))
    assert psutil.Process(rank).ppid() == supervisor(server)
    model.shutdown()
    until(lambda: not traces(server))
    if number == signal.SIGSTOP:
        os.kill(source, signal.SIGCONT)
    until(lambda: not process_lives(source))


def test_nothing_outlives_a_supervisor_that_is_killed(launch: Launch) -> None:
    server = launch("orphaned", tp=2)
    everything = [supervisor(server), *ranks(server), *preloaded(server)]
    assert len(everything) == 4
    os.kill(everything[0], signal.SIGKILL)
    until(lambda: not any(map(process_lives, everything)))


def test_a_second_server_is_forked_from_the_first_and_outlives_it(
    launch: Launch, plain: Plain
) -> None:
    first = launch("elder")
    second = launch("younger", tp=2)
    assert stack(supervisor(second)) == stack(supervisor(first))
    assert psutil.Process(supervisor(second)).ppid() != supervisor(first)
    assert os.getsid(supervisor(second)) == supervisor(second)
    (source,) = preloaded(second)
    assert source not in preloaded(first)
    mine = {file.name for file in Path(f"/proc/{supervisor(second)}/fd").iterdir()}
    assert str(places.log_file("elder")) not in {
        str(Path(f"/proc/{supervisor(second)}/fd/{name}").readlink()) for name in mine
    }
    control.kill(registry.find("elder"))  # with all that belongs to it
    until(lambda: not traces(first))
    model = garcon.connect("younger")
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    recovers(second, model, plain)
    assert "by command" not in log(second)
    third = launch("youngest")  # and the second is now the one to ask
    assert stack(supervisor(third)) == stack(supervisor(second))


def test_another_environment_starts_afresh(
    launch: Launch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = launch("one")
    monkeypatch.setenv("GARCON_HANG_TIME", "59")  # read while a rank imports
    second = launch("other")
    assert stack(supervisor(second)) != stack(supervisor(first))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torch.py").write_text("raise AssertionError('this is not torch')")
    (tmp_path / "torch.py").unlink()
    third = launch("third")
    assert stack(supervisor(third)) == stack(supervisor(second))
    assert psutil.Process(supervisor(third)).cwd() == str(tmp_path)


def test_the_cold_way(launch: Launch, plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COLD, "1")
    server = launch("cold", tp=2)
    assert preloaded(server) == []
    assert not (places.own_directory("cold") / forking.SOCKET).exists()
    addresses = {stack(pid) for pid in (supervisor(server), *ranks(server))}
    assert len(addresses) == 3
    recovers(server, garcon.connect("cold"), plain)


def test_strangers_cannot_reach_it(launch: Launch) -> None:
    launch("private")
    directory = places.own_directory("private")
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / forking.SOCKET).stat().st_mode & 0o777 == 0o600
    with pytest.raises(forking.NotForked, match="another"):
        forking.knock(directory / forking.SOCKET, {"surroundings": {}, "directory": "/"}, ())


def test_a_launch_that_cannot_be_planned_leaves_nothing(
    llama_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def plan(settings: Any) -> Any:
        file = places.own_directory("unplanned") / first_process.SUPERVISOR
        started.append(int(file.read_text()))
        raise garcon.DoesNotFit("It needs more.", "Take less.")

    monkeypatch.setattr(placement, "plan", plan)
    with pytest.raises(garcon.DoesNotFit):
        garcon.launch(llama_path, "unplanned", progress=quiet)
    until(lambda: not process_lives(started[0]))
    assert not places.own_directory("unplanned").exists()
    assert not places.shared_directory("unplanned").exists()


def test_a_launch_that_is_killed_while_it_plans_leaves_no_process(llama_path: Path) -> None:
    code = (
        "import time\nfrom garcon_jupyter.servers import placement, server\nimport garcon_jupyter as garcon\n"
        "def plan(settings):\n"
        "    print(server.own_directory('unfinished'), flush=True)\n    time.sleep(600)\n"
        "placement.plan = plan\n"
        f"garcon.launch({str(llama_path)!r}, 'unfinished')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        directory = Path(client.stdout.readline().strip())
        first = int((directory / first_process.SUPERVISOR).read_text())
        assert process_lives(first)
        client.kill()
    end = time.monotonic() + 120  # it notices when it has imported everything
    while process_lives(first):
        assert time.monotonic() < end
        time.sleep(0.05)
