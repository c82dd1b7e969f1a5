"""Where a host stands among several, and what is refused before anything starts."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

import garcon_jupyter as garcon
from garcon_jupyter.errors import BadDegrees, BadRequest
from garcon_jupyter.servers import hosts, slurm
from garcon_jupyter.servers.options import Several

FOUR = {"tp": 2, "pp": 2, "dp": 1}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.touch(0o600)
    file.write_text("0123456789abcdef" * 2)
    return file


@pytest.fixture
def words(secret: Path) -> Several:
    return Several(
        nnodes=2, rdzv_endpoint="localhost:29400", local_addr="127.0.0.1", secret_file=secret
    )


def test_the_host_of_the_endpoint_is_found_and_is_the_first(words: Several) -> None:
    here = hosts.place(words, FOUR)
    assert (here.is_host, here.first, here.nproc_per_node) == (True, True, 2)
    words["rdzv_endpoint"] = "192.0.2.1:29400"  # an address that nobody has
    there = hosts.place(words, FOUR)
    assert (there.is_host, there.first) == (False, False)


def test_what_is_said_counts_more_than_what_is_found(words: Several) -> None:
    words |= Several(is_host=False)
    assert not hosts.place(words, FOUR).first
    words |= Several(node_rank=0)
    assert hosts.place(words, FOUR).first
    words |= Several(is_host=True, node_rank=1)
    assert not hosts.place(words, FOUR).first
    with pytest.raises(BadRequest, match="no node rank 2"):
        hosts.place({**words, "node_rank": 2}, FOUR)


def test_degrees_fill_the_hosts_or_are_refused_with_the_numbers(words: Several) -> None:
    words["nproc_per_node"] = 2
    assert hosts.place(words, FOUR).nproc_per_node == 2
    with pytest.raises(BadDegrees, match="tp=3 × pp=1 × dp=1 makes 3 ranks.* 2 hosts"):
        hosts.place({**words, "nproc_per_node": None}, {"tp": 3, "pp": 1, "dp": 1})
    with pytest.raises(BadDegrees, match="makes 4 ranks.* 2 hosts of 4 ranks each"):
        hosts.place({**words, "nproc_per_node": 4}, FOUR)


def test_the_address_is_that_of_the_route_and_never_loopback(words: Several) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert hosts.address_towards("127.0.0.1", 9) == "127.0.0.1"
        sock.bind((hosts.address_towards("127.0.0.1", 9), 0))  # it is an address of this host
    with pytest.raises(BadRequest, match="localhost means 127.0.0.1, which no other host reaches"):
        hosts.place({**words, "local_addr": None}, FOUR)


@pytest.mark.parametrize("endpoint", ["10.0.0.1", "10.0.0.1:", ":29400", "10.0.0.1:port", "a:0"])
def test_an_endpoint_has_a_host_and_a_port(words: Several, endpoint: str) -> None:
    with pytest.raises(BadRequest, match="no endpoint|needs"):
        hosts.place({**words, "rdzv_endpoint": endpoint}, FOUR)


def test_the_secret_must_be_there_private_and_long(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GARCON_SECRET", raising=False)
    with pytest.raises(BadRequest, match="needs a secret"):
        hosts.checked_secret(None)
    with pytest.raises(BadRequest, match="cannot be read"):
        hosts.checked_secret(secret.parent / "none")
    monkeypatch.setenv("GARCON_SECRET", str(secret))
    assert hosts.checked_secret(None) == secret
    secret.chmod(0o640)
    with pytest.raises(BadRequest, match="Others can read"):
        hosts.checked_secret(None)
    secret.chmod(0o600)
    secret.write_text("short\n")
    with pytest.raises(BadRequest, match="only 5 bytes"):
        hosts.checked_secret(None)


def test_words_that_do_not_go_together_are_refused(llama_path: Path) -> None:
    with pytest.raises(BadRequest, match="--rdzv-endpoint"):
        garcon.launch(llama_path, name="wide", nnodes=2)
    with pytest.raises(BadRequest, match="--partition does not go"):
        garcon.launch(llama_path, name="wide", nnodes=2, rdzv_endpoint="a:1", partition="gpu")
    with pytest.raises(BadRequest, match="--rdzv-endpoint does not go"):
        garcon.launch(llama_path, name="wide", launcher="slurm", rdzv_endpoint="a:1")
    with pytest.raises(BadRequest, match="no launcher 'mpi'"):
        garcon.launch(llama_path, name="wide", launcher="mpi")
    with pytest.raises(BadRequest, match="needs a secret"):
        garcon.launch(llama_path, name="wide", tp=2, nnodes=2, rdzv_endpoint="127.0.0.1:29400",
                      local_addr="127.0.0.1")  # fmt: skip


def test_none_is_as_good_as_nothing() -> None:
    nothing = Several(nnodes=None, launcher=None, sbatch=None)
    assert not hosts.by_slurm(nothing)
    assert not hosts.over_several(nothing)


def test_a_batch_script_has_the_options_of_the_job() -> None:
    words = Several(nodes=4, gpus_per_node=8, partition="gpu", time="2:00:00",
                    sbatch=["--account=lab"])  # fmt: skip
    script = slurm.script("big", Path("/r/big.log"), Path("/r/it's big"), words)
    for option in ("nodes=4", "gpus-per-node=8", "partition=gpu", "time=2:00:00", "account=lab"):
        assert f"\n#SBATCH --{option}\n" in script
    assert "'/r/it'\"'\"'s big'" in script  # quoted for the shell
    assert "$((20000 + SLURM_JOB_ID % 20000))" in script


def test_a_job_needs_ranks_for_each_node(llama_path: Path) -> None:
    with pytest.raises(BadDegrees, match="makes 3 ranks.* 2 hosts"):
        garcon.launch(llama_path, name="wide", pp=3, launcher="slurm", nodes=2, device="cpu")
