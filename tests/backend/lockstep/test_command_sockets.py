"""The sockets between ranks: over files, and encrypted over TCP; who lacks the secret stays outside."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq
from torch.distributed import TCPStore

from garcon_backend.distributed.host_rendezvous import Meeting
from garcon_backend.distributed.secret import KeyPair
from garcon_backend.lockstep import liveness
from garcon_backend.lockstep.command_sockets import Link, open_link
from garcon_jupyter.wire.launch_spec import Degrees, Hosts, LaunchSpec


def secret(file: Path, content: str) -> Path:
    file.write_text(content)
    return file


@pytest.fixture
def spec(tmp_path: Path) -> LaunchSpec:
    return LaunchSpec(
        name="two", model="", directory=tmp_path, shared=tmp_path, registry=tmp_path,
        degrees=Degrees(tp=2), dtype=None, device="cpu", loader=None, settings={},
    )  # fmt: skip


@pytest.fixture
def wide(spec: LaunchSpec, tmp_path: Path) -> Iterator[LaunchSpec]:
    """The same over hosts, with a real store at the endpoint."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    file = secret(tmp_path / "secret", "a" * 64)
    endpoint = f"127.0.0.1:{store.port}"
    yield replace(spec, hosts=Hosts(2, 1, endpoint, True, None, "127.0.0.1", file))
    del store


def opened(spec: LaunchSpec, meeting: Meeting | None, lost: Any) -> tuple[Link, Link]:
    """Both ends; the other waits for rank 0, on a thread."""
    other: queue.Queue[Link] = queue.Queue()
    zero = open_link(spec, 0, meeting, lost)
    threading.Thread(
        target=lambda: other.put(open_link(spec, 1, meeting, lost)), daemon=True
    ).start()
    return zero, other.get(timeout=20)


def assert_talk(zero: Link, other: Link) -> None:
    other.commands.send_multipart([b"here"])
    assert zero.commands.recv_multipart() == [b"1", b"here"]
    zero.commands.send_multipart([b"1", b"do"])
    assert other.commands.recv_multipart() == [b"do"]


def test_one_process_needs_no_sockets(spec: LaunchSpec) -> None:
    link = open_link(replace(spec, degrees=Degrees()), 0, None, pytest.fail)
    assert link.commands is None


def test_on_one_host_ranks_talk_over_files_of_their_directory(spec: LaunchSpec) -> None:
    assert_talk(*opened(spec, None, pytest.fail))
    assert (spec.directory / "ranks-commands").is_socket()


def test_over_hosts_ranks_talk_encrypted(wide: LaunchSpec) -> None:
    assert wide.hosts
    zero, other = opened(wide, Meeting(wide, wide.hosts), pytest.fail)
    assert_talk(zero, other)
    assert zero.commands.last_endpoint.startswith(b"tcp://127.0.0.1:")
    for end in (zero, other):
        assert end.commands.mechanism == zmq.CURVE


def test_a_rank_that_goes_is_lost_until_the_server_parts(wide: LaunchSpec) -> None:
    assert wide.hosts
    lost: queue.Queue[str] = queue.Queue()
    _, other = opened(wide, Meeting(wide, wide.hosts), lost.put)
    other._liveness._socket.close(linger=0)  # type: ignore[union-attr]  # as if it were killed
    assert lost.get(timeout=20) == f"rank 1 on {socket.gethostname()}"

    zero, other = opened(wide, Meeting(wide, wide.hosts), lost.put)
    zero.part()
    other.part()
    zero.await_parting()
    assert zero._liveness._alone.is_set()  # type: ignore[union-attr]
    assert lost.empty()


def test_who_lacks_the_secret_is_not_heard(
    wide: LaunchSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wide.hosts
    monkeypatch.setattr(liveness, "WELCOME_TIME", 1000)
    meeting = Meeting(wide, wide.hosts)
    open_link(wide, 0, meeting, pytest.fail)
    false = secret(tmp_path / "false", "b" * 64)
    outside = replace(wide, hosts=replace(wide.hosts, secret_file=false))
    with pytest.raises(TimeoutError):
        open_link(outside, 1, meeting, lambda who: None)
    open_link(wide, 1, meeting, pytest.fail)  # with the secret, the same is welcome


def test_keys_are_the_same_everywhere_and_differ_by_purpose(tmp_path: Path) -> None:
    one, copy = (secret(tmp_path / name, "a" * 64 + end) for name, end in (("x", ""), ("y", "\n")))
    other = secret(tmp_path / "z", "b" * 64)
    key = KeyPair.derived(one, "rank 0 of two")
    assert key == KeyPair.derived(copy, "rank 0 of two")  # an editor's newline is no difference
    assert len(key.public) == len(key.secret) == 40
    assert key.public == zmq.curve_public(key.secret)
    for file, purpose in (
        (one, "others of two"),
        (one, "rank 0 of three"),
        (other, "rank 0 of two"),
    ):
        assert KeyPair.derived(file, purpose).secret != key.secret
