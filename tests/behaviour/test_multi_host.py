"""One server over two hosts: the same command on each, the same numbers as in one process, and nothing left.

The hosts are network namespaces (:mod:`tests.network`). These tests are skipped in one case only: the kernel
refuses ``ip netns add``, as it does to users who are not root.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests import network
from tests.network import Host
from tests.on_a_host import LATE, MANY, POINT
from tests.oracle import PROMPT, Plain, close

NAME = "wide"
PATIENCE = 60.0

Hosts = tuple[Host, Host]


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("secret") / "secret"
    file.touch(0o600)
    file.write_text(secrets.token_hex(32))
    return file


@pytest.fixture
def hosts(tmp_path: Path, secret: Path) -> Iterator[Hosts]:
    try:
        with network.two_hosts(tmp_path, {"GARCON_SECRET": str(secret)}) as pair:
            yield pair
    except network.Refused as error:
        pytest.skip(f"the kernel refuses network namespaces: {error}")


def garcon(*words: str) -> list[str]:
    return [sys.executable, "-m", "garcon_jupyter", *words]


def command(path: Path, *degrees: str) -> list[str]:
    at = ["--nnodes", "2", "--rdzv-endpoint", "10.77.0.1:29400"]
    return garcon("launch", str(path), "--name", NAME, *at, *degrees)


def launch(hosts: Hosts, launching: list[str], **environment: str) -> subprocess.Popen[str]:
    """The same command on both; that of the second host stays."""
    beside = hosts[1].start(*launching, **environment)
    code, output = hosts[0].run(*launching, **environment)
    assert code == 0, output + (beside.communicate(timeout=PATIENCE)[0] if beside.poll() else "")
    assert f"{NAME} runs" in output
    return beside


def soon(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def assert_nothing_is_left(hosts: Hosts, tmp_path: Path) -> None:
    assert soon(lambda: not any(host.processes() for host in hosts))
    for letter in "ab":
        assert not list((tmp_path / letter).glob(f"{NAME}*.json.writing"))
        assert not (tmp_path / letter / f"{NAME}.json").exists()


def tombstone(tmp_path: Path) -> str:
    return json.loads((tmp_path / "a" / f"{NAME}.tombstone.json").read_text())["reason"]


@pytest.mark.parametrize(("degree", "client"), [("--tp", 0), ("--pp", 1)], ids=["tp2", "pp2"])
def test_over_two_hosts_the_numbers_are_those_of_one_process(
    hosts: Hosts, llama_path: Path, plain: Plain, tmp_path: Path, degree: str, client: int
) -> None:
    """The client is on the first host, or on the other, which sees the same registry directory."""
    launching = command(llama_path, degree, "2")
    beside = launch(hosts, launching)
    code, again = hosts[0].run(*launching)
    assert code == 0, again  # finds the running one

    file = tmp_path / "found.pt"
    notebook = [sys.executable, "tests/on_a_host.py", NAME, json.dumps(PROMPT), str(file)]
    registry = str(tmp_path / "a")
    code, output = hosts[client].run(*notebook, PYTHONPATH=".", GARCON_RUNTIME=registry)
    assert code == 0, output
    assert output.count("seen (2, 6, 80)") == 2  # each probe ran once, wherever: forward, backward
    compare(torch.load(file), plain, [host.name for host in hosts])

    code, output = hosts[0].run(*garcon("stop", NAME))
    assert code == 0, output
    output, _ = beside.communicate(timeout=PATIENCE)
    assert beside.returncode == 0, output
    assert f"{NAME} has ended" in output
    assert tombstone(tmp_path).startswith("shut down by")
    assert_nothing_is_left(hosts, tmp_path)


def compare(found: dict, plain: Plain, names: list[str]) -> None:
    assert found["hosts"] == names  # rank 0 is on the host of the endpoint
    assert close(found["logits"], plain.logits(PROMPT))
    assert close(found["many"], plain.logits(PROMPT * MANY))
    assert close(found[POINT], plain.neurons(1, PROMPT))
    assert close(found[LATE], plain.output("model.layers.3", PROMPT))
    weight = plain.module("model.layers.1.mlp.down_proj").weight
    assert any(torch.equal(found["parameter"], w.detach()) for w in (weight, weight.T))
    with neurons(plain, ablate):
        ablated = plain.logits(PROMPT)
    assert close(found["ablated"], ablated)
    assert not close(found["ablated"], plain.logits(PROMPT))
    gradient, loss = gradient_of_neurons(plain)
    assert close(found["gradient"], gradient, 1e-4)
    assert close(torch.as_tensor(found["loss"]), loss)


def ablate(neurons: torch.Tensor) -> torch.Tensor:
    neurons = neurons.clone()
    neurons[:, :, 37:43] = 0
    return neurons


def neurons(plain: Plain, change: Callable[[torch.Tensor], torch.Tensor]):
    """Change what the down projection of layer 1 reads, while in the context."""
    module = plain.module("model.layers.1.mlp.down_proj")
    return module.register_forward_pre_hook(lambda _, args: (change(args[0]),))


def gradient_of_neurons(plain: Plain) -> tuple[torch.Tensor, torch.Tensor]:
    caught: list[torch.Tensor] = []

    def catch(neurons: torch.Tensor) -> torch.Tensor:
        caught.append(neurons.detach().requires_grad_())
        return caught[0]

    with neurons(plain, catch):
        loss = (plain.model(torch.tensor(PROMPT)).logits[0, -1] ** 2).sum()
    (gradient,) = torch.autograd.grad(loss, caught[0])
    return gradient, loss


CLIENT = f"""
import sys
import garcon_jupyter as garcon

model = garcon.connect({NAME!r}, session="me")
point = model.probe_points[{LATE!r}]

def keep(save_ctx, tensor):
    save_ctx.sum = float(tensor.sum())

model.forward({PROMPT!r}, probes=[point.probe(keep)])
saved = model.recordings()[{LATE!r}].sum
print("ready", flush=True)

def endless(save_ctx, tensor):
    while True:
        pass

try:
    model.forward({PROMPT!r}, probes=[point.probe(endless)])
except garcon.ServerRestarted as error:
    print(error, flush=True)
same = model.forward({PROMPT!r}, probes=[])
assert model.recordings()[{LATE!r}].sum == saved
print("goes on", float(same.sum()), flush=True)
"""


def heard(process: subprocess.Popen[str], word: str) -> str:
    """The line of a process's output that has a word; reads up to there."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return line
    raise AssertionError("".join(lines))


def backed_up(host: Host) -> bool:
    """Whether what the ranks of a host saved is in their files."""
    (rank,) = host.processes("-m garcon_backend /")
    spec = Path(f"/proc/{rank}/cmdline").read_text().rstrip("\0").split("\0")[-1]
    return bool(list((Path(spec).parent / "contexts").glob("*/*.context")))


def test_a_rank_that_is_lost_is_started_anew_on_all_hosts(
    hosts: Hosts, llama_path: Path, plain: Plain, tmp_path: Path
) -> None:
    launching = command(llama_path, "--pp", "2")
    beside = launch(hosts, launching)

    # Once they have met, nobody else is let in: torch would start the ranks anew.
    late = hosts[1].run(*launching, GARCON_RUNTIME=str(tmp_path / "late"))
    assert late[0] == 1
    assert "have met already" in late[1]
    twice = hosts[1].run(*launching)
    assert twice[0] == 1
    assert "runs already" in twice[1]

    client = hosts[0].start(sys.executable, "-u", "-c", CLIENT)
    heard(client, "ready")
    (rank,) = hosts[1].processes("-m garcon_backend /")
    os.kill(rank, signal.SIGKILL)
    assert f"rank 1 on {hosts[1].name} was lost" in heard(client, "starts anew")
    total = float(heard(client, "goes on").split()[-1])
    assert close(torch.tensor(total), plain.logits(PROMPT).sum(), 1e-4)
    client.communicate(timeout=PATIENCE)

    code, output = hosts[0].run(*garcon("stop", NAME))
    assert code == 0, output
    output, _ = beside.communicate(timeout=PATIENCE)
    assert beside.returncode == 0, output
    assert_nothing_is_left(hosts, tmp_path)


def test_a_host_whose_cable_is_cut_comes_back(hosts: Hosts, llama_path: Path, plain: Plain) -> None:
    silence = 3.0
    launching = command(llama_path, "--pp", "2")
    beside = launch(hosts, launching, GARCON_HOST_SILENCE=str(silence))
    client = hosts[0].start(sys.executable, "-u", "-c", CLIENT)
    heard(client, "ready")
    hosts[1].cut_cable()
    start = time.monotonic()
    assert "rank 1" in heard(client, "starts anew")
    assert time.monotonic() - start < silence + 5
    hosts[1].mend_cable()
    total = float(heard(client, "goes on").split()[-1])
    assert close(torch.tensor(total), plain.logits(PROMPT).sum(), 1e-4)
    client.communicate(timeout=PATIENCE)
    code, output = hosts[0].run(*garcon("stop", NAME))
    assert code == 0, output
    beside.communicate(timeout=PATIENCE)


def test_hosts_that_differ_are_refused_at_once(
    hosts: Hosts, llama_path: Path, tmp_path: Path
) -> None:
    launching = command(llama_path, "--tp", "2")
    other = tmp_path / "other-secret"
    other.touch(0o600)
    other.write_text(secrets.token_hex(32))
    first = hosts[0].start(*launching)
    code, output = hosts[1].run(*launching, "--secret-file", str(other))
    assert code == 1
    assert "has another secret" in output
    code, output = hosts[1].run(*launching, "--dtype", "bfloat16")
    assert code == 1
    assert f"Host {hosts[0].name} was launched with dtype None" in output
    output, _ = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert f"Host {hosts[1].name} was launched with dtype bfloat16" in output
    assert_nothing_is_left(hosts, tmp_path)
