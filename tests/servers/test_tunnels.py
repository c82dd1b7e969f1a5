"""A server on another machine, reached through a real sshd: the same numbers, typed errors, and no orphans.

The hosts are network namespaces with a cable between them, and have the same name. These tests are skipped in one
case only: the kernel refuses ``ip netns add``, as it does to users who are not root.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from IPython.core.interactiveshell import InteractiveShell

import garcon_jupyter as garcon
from garcon_jupyter.cli import app
from garcon_jupyter.connection.connection_file import read_connection_file
from garcon_jupyter.magics import load, unload
from garcon_jupyter.servers import control
from garcon_jupyter.wire import protocol, shared_files, transport
from garcon_jupyter.wire.private_files import write_private
from tests import network
from tests.network import Host
from tests.oracle import PROMPT, Plain, close
from tests.sshd import PORT, Sshd

pytestmark = pytest.mark.processes

POINT = "layers.1.mlp.post_activation"
PATIENCE = 30.0


@dataclass
class There:
    """The other machine.

    Attributes:
        runtime: its registry directory.
    """

    host: Host
    sshd: Sshd
    runtime: Path

    def address(self, name: str = "tiny", port: int = PORT) -> str:
        return f"ssh://root@{self.host.address}:{port}/{name}"

    def garcon(self, *words: str) -> str:
        """Run the command there, on a machine that has the same name as this one."""
        same_name = ("sh", "-c", f'hostname {socket.gethostname()}; exec "$@"', "sh")
        code, output = self.host.run(*same_name, sys.executable, "-m", "garcon_jupyter", *words)
        assert code == 0, output
        return output

    def cable(self, state: str) -> None:
        """Plug the cable in ("up"), or pull it ("down")."""
        words = ["ip", "-n", self.host.name, "link", "set", "eth0", state]
        subprocess.run(words, check=True)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, llama_path: Path) -> Iterator[There]:
    directory = tmp_path_factory.mktemp("ssh")
    try:
        with network.two_hosts(directory, {}) as (a, b):
            runtime = directory / "b"
            machine = There(b, Sshd(directory, b, a, runtime), runtime)
            machine.garcon("launch", str(llama_path), "--name", "tiny")
            yield machine
            machine.garcon("stop", "--force", "tiny")
    except network.Refused as error:
        pytest.skip(f"the kernel refuses network namespaces: {error}")


@pytest.fixture(autouse=True)
def ssh(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    for word, value in there.sshd.environment.items():
        monkeypatch.setenv(word, value)


def soon(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def ssh_processes() -> list[psutil.Process]:
    """Those of this machine's tests, wherever they are."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any("garcon-ssh-" in word for word in process.info["cmdline"] or [])
    ]


def watching(there: There) -> list[int]:
    return there.host.processes("garcon %s")


def assert_no_orphans(there: There, before: list[int]) -> None:
    assert soon(lambda: not ssh_processes())
    assert soon(lambda: set(there.host.processes()) <= set(before))


def save(save_ctx, tensor) -> None:
    print("seen", tuple(tensor.shape))
    save_ctx.value = tensor


# -- what works ----------------------------------------------------------------------------------


def test_through_a_tunnel_the_numbers_are_those_of_here(
    there: There, plain: Plain, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        shared_files, "_mapped", lambda *_: pytest.fail("shared memory of another host")
    )
    before = there.host.processes()
    model = garcon.connect(there.address())
    directory = model.server.file.parent
    assert not model.server.local and model.server.alive
    assert close(model.forward(PROMPT), plain.logits(PROMPT))

    long = [[5, 9, 3, 7] * 30] * 8  # 8 × 120 × 263 numbers: more than travels inline on one host
    logits = model.forward(long, probes=[model.probe_points[POINT].probe(save)])
    assert logits.nbytes > 10 * transport.INLINE_LIMIT
    assert close(logits, plain.logits(long))
    assert close(model.recordings()[POINT].value, plain.neurons(1, long))
    assert "seen (8, 120, 80)" in capsys.readouterr().out

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file in directory.iterdir():
        if file.name != "errors":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert json.loads(model.server.file.read_text())["garcon"]["host"] != socket.gethostname()

    model.close()
    assert not directory.exists()
    assert_no_orphans(there, before)


def test_a_tunnel_is_shared_and_closed_by_the_last_who_uses_it(there: There) -> None:
    before = there.host.processes()
    one, two = garcon.connect(there.address()), garcon.connect(there.address())
    assert one.server.tunnel is two.server.tunnel and one.session != two.session
    assert len(watching(there)) > 0
    one.close()
    assert two.forward(PROMPT, logits="last").shape == (2, 263)
    two.close()
    assert_no_orphans(there, before)
    with pytest.raises(garcon.ServerGone, match="ssh connection to root@.* was closed"):
        control.status(two.server)


def test_an_interrupt_goes_through(there: There, plain: Plain, tmp_path: Path) -> None:
    def forever(save_ctx, tensor, looping=str(tmp_path / "looping")):
        from pathlib import Path

        Path(looping).touch()
        while True:
            pass

    def interrupt() -> None:
        assert soon((tmp_path / "looping").exists)
        os.kill(os.getpid(), signal.SIGINT)

    model = garcon.connect(there.address())
    began = time.monotonic()
    threading.Thread(target=interrupt).start()
    with pytest.raises(garcon.Interrupted):
        model.forward(PROMPT, probes=[model.probe_points[POINT].probe(forever)])
    assert time.monotonic() - began < 5
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    model.close()


def test_commands_take_an_address(there: There, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["status", there.address()]) == 0
    assert there.address() in capsys.readouterr().out
    assert app.main(["points", there.address(), "layers.0.mlp.*"]) == 0
    assert "layers.0.mlp.post_activation" in capsys.readouterr().out
    assert not ssh_processes()


def test_the_magic_takes_an_address(there: There, capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell.instance()
    load(shell)
    try:
        for told in ("is connected to", "is still connected to"):
            shell.run_line_magic("garcon", f"connect {there.address()}")
            assert f"{told} {there.address()}" in capsys.readouterr().out
        shell.user_ns["rmodel"].close()
    finally:
        unload(shell)
        InteractiveShell.clear_instance()


def test_the_registry_there_can_be_named(there: There) -> None:
    model = garcon.connect(
        f"ssh://root@{there.host.address}:{PORT}{there.runtime}/tiny", session="mine"
    )
    assert model.session == "mine"
    model.close()


# -- what is lost --------------------------------------------------------------------------------


def test_a_cut_cable_is_an_error_in_seconds_and_another_connection_finds_what_was_saved(
    there: There, tmp_path: Path
) -> None:
    release = tmp_path / "release"

    def waiting(save_ctx, tensor, release=str(release)):
        import time
        from pathlib import Path

        save_ctx.value = tensor
        while not Path(release).exists():
            time.sleep(0.01)

    model = garcon.connect(there.address(), session="cut")
    probe = model.probe_points[POINT].probe(waiting)
    saved = model.probe_points["layers.0.mlp.out"].probe(save)
    model.forward(PROMPT, probes=[saved])
    pulled = threading.Timer(0.5, there.cable, ("down",))
    pulled.start()
    began = time.monotonic()
    with pytest.raises(garcon.ServerGone, match="was lost: Timeout") as lost:
        model.forward(PROMPT, probes=[probe])
    assert time.monotonic() - began < 12
    assert "connect again" in lost.value.remedy
    with pytest.raises(garcon.ServerGone, match="was lost"):
        model.status()
    with pytest.raises(garcon.Unreachable, match="cannot connect|No route|timed out"):
        garcon.connect(there.address())

    there.cable("up")
    release.touch()
    again = garcon.connect(there.address(), session="cut")
    assert again.resumed
    again.forward(PROMPT, probes=[])
    recorded = again.recordings()
    assert recorded["layers.0.mlp.out"].value.shape == (2, 6, 48)
    assert recorded[POINT].value.shape == (2, 6, 80)  # the request ran to its end without us
    model.close()
    again.close()
    assert soon(lambda: not ssh_processes())


def test_a_killed_notebook_leaves_nothing(there: There) -> None:
    before = there.host.processes()
    script = f"""
import garcon_jupyter as garcon
model = garcon.connect({there.address()!r})
print(model.server.file, flush=True)
import signal; signal.pause()
"""
    notebook = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert notebook.stdout and notebook.stdout.readline()
    assert ssh_processes() and watching(there)
    notebook.kill()
    notebook.wait()
    assert_no_orphans(there, before)


def test_a_server_that_starts_anew_is_followed(there: There, plain: Plain) -> None:
    model = garcon.connect(there.address())
    launched = model.server.facts["launched"]
    (rank,) = there.host.processes("-m garcon_backend /")
    os.kill(rank, signal.SIGKILL)
    # Over there it is looked at once a second: a restart that takes less is seen when it is over.
    assert soon(lambda: read_connection_file(model.server.file)["garcon"]["launched"] != launched)
    assert close(model.forward(PROMPT), plain.logits(PROMPT))  # waits until the model is loaded
    assert there.host.processes("-m garcon_backend /") != [rank]
    model.close()


# -- what is refused -----------------------------------------------------------------------------


def test_no_server_of_that_name(there: There) -> None:
    with pytest.raises(garcon.UnknownServer) as error:
        garcon.connect(there.address("tyny"))
    assert "on root@10.77.0.2 'tyny'" in error.value.problem
    assert error.value.nearest == ("tiny",)
    assert "Running there: tiny." in error.value.remedy
    tombstone = {"name": "old", "time": 0, "reason": "idle for 60 minutes"}
    (there.runtime / "old.tombstone.json").write_text(json.dumps(tombstone))
    with pytest.raises(garcon.UnknownServer, match="has ended: idle for 60 minutes"):
        garcon.connect(there.address("old"))


def test_a_server_whose_supervisor_was_killed_is_not_believed(there: There) -> None:
    connection = json.loads((there.runtime / "tiny.json").read_text())
    process = subprocess.Popen(["true"])
    process.wait()
    connection["garcon"] |= {"supervisor": process.pid, "host": there.host.name}
    write_private(there.runtime / "killed.json", connection)
    with pytest.raises(garcon.UnknownServer, match="'killed'"):
        garcon.connect(there.address("killed"))
    (there.runtime / "killed.json").unlink()


@pytest.mark.parametrize(("word", "value"), [("protocol", 99), ("protocol", 0), ("python", "3.8")])
def test_another_version_is_refused_with_a_sentence(
    there: There, monkeypatch: pytest.MonkeyPatch, word: str, value: object
) -> None:
    connection = json.loads((there.runtime / "tiny.json").read_text())
    connection["garcon"][word] = value
    write_private(there.runtime / "other.json", connection)
    with pytest.raises(garcon.VersionMismatch, match=f"server speaks {word} {value}"):
        garcon.connect(there.address("other"))
    (there.runtime / "other.json").unlink()
    facts = {**protocol.client_facts(), word: value}
    monkeypatch.setattr(protocol, "client_facts", lambda: facts)
    with pytest.raises(garcon.VersionMismatch, match=f"this client {value}"):
        garcon.connect(there.address())
    assert soon(lambda: not ssh_processes())


def test_a_refused_key(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARCON_SSH", there.sshd.arguments_with(key="other-key"))
    with pytest.raises(garcon.Unreachable, match="Permission denied") as error:
        garcon.connect(there.address())
    assert "lets nobody in by the keys" in error.value.problem
    assert "GARCON_SSH" in error.value.remedy


def test_an_unknown_host_key(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARCON_SSH", there.sshd.arguments_with(known="nobody"))
    with pytest.raises(garcon.Unreachable, match="is not known to ssh") as error:
        garcon.connect(there.address())
    assert "compare the fingerprint" in error.value.remedy


def test_a_host_without_address_or_ssh_server(there: There) -> None:
    with pytest.raises(garcon.Unreachable, match="has no address"):
        garcon.connect("ssh://nowhere.invalid/tiny")
    with pytest.raises(garcon.Unreachable, match="Connection refused"):
        garcon.connect(there.address(port=PORT + 7))


def test_a_machine_that_forbids_forwarding(there: There) -> None:
    there.sshd.start(PORT + 1, AllowStreamLocalForwarding="no", AllowTcpForwarding="no")
    with pytest.raises(garcon.Unreachable, match="cannot forward .* open failed"):
        garcon.connect(there.address(port=PORT + 1))


def test_a_machine_without_ssh(
    there: There, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(garcon.Unreachable, match="no ssh on this machine"):
        garcon.connect(there.address())


@pytest.mark.parametrize(
    "address",
    [
        "ssh://host",
        "ssh://host/",
        "ssh:///tiny",
        "ssh://-oProxyCommand=touch${IFS}TOUCHED/tiny",
        "ssh://me@-oProxyCommand=touch/tiny",
        "ssh://host/$(touch TOUCHED)",
        "ssh://host/tiny;touch TOUCHED",
        "ssh://host:port/tiny",
        "ssh://host/../../etc/passwd\n",
    ],
)
def test_what_is_no_address_is_refused_and_reaches_no_shell(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(garcon.BadRequest, match="is no address of a server"):
        garcon.connect(address)
    assert list(tmp_path.iterdir()) == []


# -- the end -------------------------------------------------------------------------------------


def test_a_server_over_tcp_is_reached_and_stopped(
    there: There, llama_path: Path, plain: Plain, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("0" * 64)
    at = ["--nnodes", "1", "--rdzv-endpoint", f"{there.host.address}:29400"]
    words = ["launch", str(llama_path), "--name", "open", *at, "--secret-file", str(secret)]
    there.garcon(*words)
    model = garcon.connect(there.address("open"))
    other = garcon.connect(there.address("open"), session="other")
    assert close(model.forward(PROMPT), plain.logits(PROMPT))
    other.close()
    control.stop(model.server)
    assert not model.server.alive
    with pytest.raises(garcon.ServerGone, match="has ended: shut down by"):
        model.forward(PROMPT)
    model.close()
    with pytest.raises(garcon.UnknownServer, match="has ended: shut down by"):
        garcon.connect(there.address("open"))
    assert soon(lambda: not ssh_processes())
