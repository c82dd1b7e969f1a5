"""In which order hosts count, and who is turned away at the endpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import PrefixStore, TCPStore

from garcon_backend.distributed.host_rendezvous import Meeting, host_order, run_id
from garcon_jupyter.errors import BadRequest, ServerMismatch
from garcon_jupyter.wire.launch_spec import Degrees, Hosts, LaunchSpec


def word(first: bool, node_rank: int | None = None) -> dict[str, Any]:
    return {"host": "somewhere", "first": first, "node_rank": node_rank}


def test_hosts_count_by_node_rank_and_the_first_by_default() -> None:
    assert host_order([word(False), word(False), word(True)]) == [2, 0, 1]
    assert host_order([word(False, 2), word(True, 0), word(False, 1)]) == [1, 2, 0]
    with pytest.raises(BadRequest, match="0 of the 2 hosts"):
        host_order([word(False), word(False)])
    with pytest.raises(BadRequest, match="2 of the 2 hosts"):
        host_order([word(True), word(True, 0)])


@pytest.fixture
def store() -> Iterator[TCPStore]:
    yield TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def spec(store: TCPStore, tmp_path: Path) -> LaunchSpec:
    secret = tmp_path / "secret"
    secret.write_text("a" * 64)
    endpoint = f"127.0.0.1:{store.port}"
    return LaunchSpec(
        name="two", model="", directory=tmp_path, shared=tmp_path, registry=tmp_path,
        degrees=Degrees(tp=2), dtype=None, device="cpu", loader=None, settings={},
        hosts=Hosts(1, 2, endpoint, True, None, "127.0.0.1", secret),
    )  # fmt: skip


def meeting(spec: LaunchSpec) -> Meeting:
    assert spec.hosts
    return Meeting(spec, spec.hosts)


def test_a_stranger_is_turned_away_with_the_reason(spec: LaunchSpec, tmp_path: Path) -> None:
    assert spec.hosts
    meeting(spec).announce()
    meeting(spec).check()
    with pytest.raises(BadRequest, match="for server 'two', not 'three'"):
        meeting(replace(spec, name="three")).check()
    other = tmp_path / "other"
    other.write_text("b" * 64)
    with pytest.raises(BadRequest, match="another secret"):
        meeting(replace(spec, hosts=replace(spec.hosts, secret_file=other))).check()
    meeting(spec).say("met", True)
    with pytest.raises(BadRequest, match="have met already"):
        meeting(spec).check()
    meeting(spec).forget("met")  # a rank was lost: whoever launches again may join
    meeting(spec).check()


def test_words_of_the_time_before_are_not_heard_again(
    spec: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spec.hosts
    monkeypatch.setenv("MASTER_ADDR", "first")
    monkeypatch.setenv("MASTER_PORT", "1")
    Meeting.of_rank(spec, spec.hosts).say("link", "old")
    assert Meeting.of_rank(spec, spec.hosts).heard("link") == "old"
    monkeypatch.setenv("MASTER_PORT", "2")
    assert Meeting.of_rank(spec, spec.hosts).heard("link") is None


@pytest.mark.lasting
def test_ranks_are_neighbours_on_their_host(
    spec: LaunchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts, of which torch numbers the first last."""
    assert spec.hosts
    hosts = replace(spec.hosts, nnodes=2)
    spec = replace(spec, hosts=hosts, degrees=Degrees(tp=2, pp=2))
    beside = replace(spec, hosts=replace(hosts, is_host=False))
    meeting(beside).say("host/0", meeting(beside)._words())
    for local in (0, 1):
        monkeypatch.setenv("GROUP_RANK", "1")
        monkeypatch.setenv("LOCAL_RANK", str(local))
        monkeypatch.setenv("RANK", str(2 + local))  # torch's number
        monkeypatch.setenv("MASTER_ADDR", "beside")
        monkeypatch.setenv("MASTER_PORT", "1")
        meeting(spec).settle()
        assert (os.environ["RANK"], os.environ["GROUP_RANK"]) == (str(local), "0")
        assert os.environ["MASTER_ADDR"] == "127.0.0.1"
        assert int(os.environ["MASTER_PORT"]) > 1


def test_hosts_launched_differently_are_refused(
    spec: LaunchSpec, store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spec.hosts
    hosts = replace(spec.hosts, nnodes=2)
    spec = replace(spec, hosts=hosts)
    said = meeting(spec)._words()
    said["launched"] = {**said["launched"], "degrees": "tp=1, pp=2, dp=1"}
    PrefixStore(f"garcon/{run_id(spec, hosts)}/", store).set("host/1", json.dumps(said))
    monkeypatch.setenv("GROUP_RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ServerMismatch, match="degrees tp=1, pp=2, dp=1.* tp=2, pp=1, dp=1"):
        meeting(spec).settle()
