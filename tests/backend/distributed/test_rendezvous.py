"""What hosts leave for each other in torch's store is believed only with their seal."""

from __future__ import annotations

import base64
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore
from torch.distributed.elastic.rendezvous import RendezvousParameters, RendezvousStateError
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from garcon_backend.distributed import rendezvous

RUN = "a run"
KEY = f"torch.rendezvous.{RUN}"
"""Where torch's backend keeps the state in its store."""


class Trap:
    """A pickle that leaves a file where it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def handler(store: TCPStore, backend: str = rendezvous.BACKEND, seal: bytes = b"k" * 32) -> Any:
    """One host's, at that store."""
    parameters = RendezvousParameters(
        backend=backend,
        endpoint=f"127.0.0.1:{store.port}",
        run_id=RUN,
        min_nodes=2,
        max_nodes=2,
        local_addr="127.0.0.1",
        is_host=False,
        join_timeout=30,
        seal=seal.hex(),
    )
    return get_rendezvous_handler(parameters)


def test_hosts_with_one_secret_meet(store: TCPStore) -> None:
    with ThreadPoolExecutor(2) as hosts:
        met = [hosts.submit(handler(store).next_rendezvous) for _ in range(2)]
        assert sorted(info.result(30).rank for info in met) == [0, 1]


@pytest.mark.parametrize(
    ("backend", "believed"), [(rendezvous.BACKEND, False), ("c10d", True)], ids=["ours", "torch's"]
)
def test_a_strangers_state_is_not_opened(
    backend: str, believed: bool, store: TCPStore, tmp_path: Path
) -> None:
    """Torch's own backend opens it, so the trap is one."""
    host = handler(store, backend)
    trap = tmp_path / "trap"
    store.set(KEY, base64.b64encode(pickle.dumps(Trap(trap))).decode())
    with pytest.raises(Exception, match=None if believed else "without the secret") as caught:
        host.next_rendezvous()
    assert trap.exists() == believed
    assert believed or caught.type is RendezvousStateError


def test_a_host_with_another_secret_is_not_believed(store: TCPStore) -> None:
    backends = []
    for seal in (b"k" * 32, b"x" * 32):
        host = handler(store, seal=seal)
        backends.append(host._state_holder._backend)
    mine, stranger = backends
    assert mine.set_state(b"a state")[0] == b"a state"
    with pytest.raises(RendezvousStateError, match="without the secret"):
        stranger.get_state()
    with pytest.raises(RendezvousStateError, match="without the secret"):
        stranger.set_state(b"another")
    state, token = mine.get_state()
    assert state == b"a state"
    assert mine.set_state(b"the next", token) == (b"the next", mine.get_state()[1], True)
    assert mine.set_state(b"too late", token) == (b"the next", mine.get_state()[1], False)


def test_one_host_meets_nobody() -> None:
    parameters = RendezvousParameters(
        backend=rendezvous.ALONE, endpoint="", run_id=RUN, min_nodes=1, max_nodes=1
    )
    alone = get_rendezvous_handler(parameters)
    met = alone.next_rendezvous()
    assert (met.rank, met.world_size, alone.num_nodes_waiting()) == (0, 1, 0)
