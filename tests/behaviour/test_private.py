"""What other users of the machine can do with a server, which is nothing; also where it was launched with umask 0.

A process of the user ``nobody`` really tries, where the tests run as root; the modes are looked at in any case.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.servers import control, registry
from garcon_jupyter.servers.server import log_file, own_directory, shared_directory
from tests.oracle import PROMPT

LAUNCH = """
import os, sys
os.umask(0)
from garcon_jupyter.cli.app import main
sys.exit(main(["launch", sys.argv[1], "--name", "bare", "--tp", "2"]))
"""

TRY = """
import json, os, socket, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
paths, ports = json.loads(sys.argv[1])
done = []
def tried(what, act):
    try:
        act()
    except (PermissionError, IsADirectoryError):  # nobody writes into a directory so
        return
    except OSError as error:
        what = f"{what} ({error})"
    done.append(what)
for path in paths:
    tried(f"list {path}", lambda: os.listdir(path))
    tried(f"read {path}", lambda: open(path, "rb").close())
    tried(f"write {path}", lambda: open(path, "ab").close())
    tried(f"make a file in {path}", lambda: open(f"{path}/planted", "x").close())
    tried(f"connect to {path}", lambda: socket.socket(socket.AF_UNIX).connect(path))
for port in ports:
    tried(f"connect to {port}", lambda: socket.socket().connect(tuple(port)))
print(json.dumps(done))
"""


@dataclass
class Bare:
    """A server with umask 0, whose registry directory is one that everybody can enter.

    Attributes:
        directories: all that it has on disk and in memory.
    """

    server: garcon.Server
    directories: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        return [path for top in self.directories for path in top.rglob("*")]


@pytest.fixture(scope="module")
def bare(llama_path: Path) -> Iterator[Bare]:
    runtime = Path(tempfile.mkdtemp(prefix="garcon-bare-"))
    runtime.chmod(0o777)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GARCON_RUNTIME", str(runtime / "registry"))
        subprocess.run([sys.executable, "-c", LAUNCH, str(llama_path)], check=True)
        server = registry.find("bare")
        own, shared = own_directory("bare"), shared_directory("bare")
        yield Bare(server, (runtime / "registry", own, shared))
        control.stop(server, force=True)
        assert not own.exists() and not shared.exists()
    shutil.rmtree(runtime)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directories_are_closed_whatever_the_umask(bare: Bare) -> None:
    for directory in bare.directories:
        assert mode(directory) == 0o700, directory
        assert directory.stat().st_uid == os.getuid()
    keys, own, _ = bare.directories
    assert mode(bare.server.file) == 0o600
    assert mode(log_file("bare")) == 0o600
    assert mode(own / "kernel.json") == 0o600
    sockets = [path for path in own.iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
    assert len(sockets) >= 7  # five of the kernel, at least two of the ranks: nowhere else
    assert {path.parent for path in bare.files if path.suffix == ".json"} <= {keys, own}


def test_an_answer_in_shared_memory_is_its_owners(bare: Bare, tmp_path: Path) -> None:
    """It lies there between two processes: looked at where it was written, before anybody read it."""
    from garcon_jupyter.wire import transport

    before = os.umask(0)
    try:
        content, _ = transport.pack(b"x" * 100, tmp_path)
        import torch

        content, _ = transport.pack(torch.ones(50_000), tmp_path)
    finally:
        os.umask(before)
    (file,) = content["value"]["files"]
    assert mode(Path(file)) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_can_read_write_and_connect_to_nothing(bare: Bare) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GARCON_RUNTIME", str(bare.directories[0]))
        model = garcon.connect("bare")
        ports = listening(bare)
        waiting = bare.directories[2] / "waiting.tensors"
        waiting.write_bytes(b"an answer")
        waiting.chmod(0o666)
        paths = [str(path) for path in (*bare.directories, *bare.files, waiting)]
        assert attempts(paths) == []
        beside = bare.directories[0].parent  # where it may
        assert f"make a file in {beside}" in attempts([str(beside)])
        assert model.forward(PROMPT, logits="last").shape == (2, 263)
        model.close()
    assert {address for address, _ in ports} <= {"127.0.0.1", "::1"}
    waiting.unlink()


def attempts(paths: list[str], ports: Any = ()) -> list[str]:
    """What another user could do."""
    words = [sys.executable, "-c", TRY, json.dumps([paths, list(ports)])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def listening(bare: Bare) -> list[tuple[str, int]]:
    """Ports at which processes of a server listen."""
    supervisor = psutil.Process(bare.server.facts["supervisor"])
    return [
        (connection.laddr.ip, connection.laddr.port)
        for process in (supervisor, *supervisor.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]


def test_a_server_of_one_process_listens_at_no_port(llama_server: garcon.Server) -> None:
    bare = Bare(llama_server, ())
    assert listening(bare) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_noise_at_the_ports_of_the_collectives_changes_nothing(bare: Bare) -> None:
    """Gloo listens on loopback, and whoever connects can say what they like; it is not listened to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GARCON_RUNTIME", str(bare.directories[0]))
        model = garcon.connect("bare")
        right = model.forward(PROMPT)
        for _ in range(5):
            attempts([], listening(bare))
        assert (model.forward(PROMPT) == right).all()
        assert registry.find("bare").facts["launched"] == bare.server.facts["launched"]
        model.close()
