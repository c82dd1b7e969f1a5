"""How the hosts of a server meet.

Torch's launcher brings the hosts together in a *store* that one of them holds at the endpoint. It numbers
them by their addresses, as strings; a user expects rank 0 on the host that they named first. So the ranks
are numbered again before the group forms: hosts in the order of their node ranks, or, where none was
given, the host of the endpoint first. On each host ranks are neighbours, so that a tensor-parallel
group stays within a host wherever its size divides the ranks of a host.

What is said here is read by whoever reaches the endpoint: nothing secret, and nothing that is believed
without the keys of :mod:`garcon_backend.lockstep.command_sockets`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, TCPStore

from garcon_backend.distributed.secret import derived
from garcon_jupyter.errors import BadRequest, ServerMismatch
from garcon_jupyter.wire import protocol
from garcon_jupyter.wire.launch_spec import Hosts, LaunchSpec

PATIENCE = timedelta(minutes=2)
"""How long hosts that have met wait for each other's words."""

_BETWEEN_TRIES = 0.5


def run_id(spec: LaunchSpec, hosts: Hosts) -> str:
    """What the launcher calls this run: hosts with another name or secret never meet."""
    return derived(hosts.secret_file, f"rendezvous of {spec.name}").hex()


class Meeting:
    """The words that the hosts exchange through the store, from one process's side.

    Args:
        turn: of ranks, which of the times that they were started this is: words of the time before are
            not heard again. Launchers have none.
    """

    def __init__(self, spec: LaunchSpec, hosts: Hosts, turn: str = "") -> None:
        self._spec, self._hosts, self._turn = spec, hosts, turn

    @classmethod
    def of_rank(cls, spec: LaunchSpec, hosts: Hosts) -> Meeting:
        """From a rank's side: the launchers give each turn an address of its own."""
        return cls(spec, hosts, "{MASTER_ADDR}:{MASTER_PORT}".format(**os.environ))

    def _store(self, prefix: str = "") -> PrefixStore:
        # A connection of its own: another thread may be waiting on the first.
        host, port = self._hosts.address
        store = TCPStore(host, port, is_master=False, timeout=PATIENCE)
        mine = f"garcon/{run_id(self._spec, self._hosts)}/{self._turn}"
        return PrefixStore(prefix or mine, store)

    def announce(self) -> None:
        """On the host of the endpoint, on a thread: say who meets there, once the store stands."""

        def announce() -> None:
            await_store(self._hosts, PATIENCE.total_seconds())
            self._store("garcon").set("who", json.dumps(self._who()))

        threading.Thread(target=announce, daemon=True, name="announcement").start()

    def _who(self) -> dict[str, str]:
        return {"name": self._spec.name, "run": run_id(self._spec, self._hosts)}

    def check(self) -> None:
        """On another host: whether those that this one wants to meet do so at the endpoint.

        Raises:
            BadRequest: they have another secret or server, or have met already.
        """
        mine, theirs = self._who(), json.loads(self._store("garcon").get("who"))
        at = self._hosts.endpoint
        if theirs["name"] != mine["name"]:
            raise BadRequest(
                f"The hosts at {at} meet for server {theirs['name']!r}, not {mine['name']!r}.",
                "Give the same --name on every host, if the paths differ, or another port.",
            )
        if theirs["run"] != mine["run"]:
            raise BadRequest(
                f"The host at {at} has another secret than {socket.gethostname()}.",
                "Copy the same secret file to every host.",
            )
        if self.heard("met"):
            raise BadRequest(
                f"All {self._hosts.nnodes} hosts of {mine['name']!r} have met already.",
                "Stop the server before you launch it again.",
            )

    def say(self, what: str, words: Any) -> None:
        """Leave words for the others."""
        self._store().set(what, json.dumps(words))

    def forget(self, what: str) -> None:
        """Take words back, if the store still stands."""
        with contextlib.suppress(Exception):
            self._store().delete_key(what)

    def ask(self, what: str) -> Any:
        """Words that another rank leaves; waits for them."""
        return json.loads(self._store().get(what))

    def heard(self, what: str) -> Any:
        """Words that another rank has left; None where there are none, or the store has gone."""
        with contextlib.suppress(Exception):
            store = self._store()
            if store.check([what]):
                return json.loads(store.get(what))
        return None

    def settle(self) -> None:
        """Give this process its rank among all, and the address of the group, in the environment.

        Raises:
            ServerMismatch: the hosts were launched differently.
            BadRequest: not exactly one of them is the first.
        """
        group, local = int(os.environ["GROUP_RANK"]), int(os.environ["LOCAL_RANK"])
        if local == 0:
            self.say(f"host/{group}", self._words())
        others = [self.ask(f"host/{n}") for n in range(self._hosts.nnodes)]
        _check_alike(others, others[group])
        place = host_order(others).index(group)
        rank = place * self._hosts.nproc_per_node + local
        if rank == 0:
            Meeting(self._spec, self._hosts).say("met", True)
            self.say("group", [self._hosts.local_addr, _free_port()])
        address, port = self.ask("group")
        os.environ.update(
            RANK=str(rank), GROUP_RANK=str(place), MASTER_ADDR=address, MASTER_PORT=str(port)
        )

    def _words(self) -> dict[str, Any]:
        hosts, spec = self._hosts, self._spec
        return {
            "host": socket.gethostname(),
            "first": spec.first,
            "node_rank": hosts.node_rank,
            "launched": {
                "degrees": str(spec.degrees),
                "nproc-per-node": hosts.nproc_per_node,
                "dtype": spec.dtype,
                "device": spec.device,
                "loader": spec.loader,
                "protocol": protocol.PROTOCOL,
                "python": protocol.python_version(),
            },
        }


def host_order(words: Sequence[dict[str, Any]]) -> list[int]:
    """The launcher's numbers of the hosts, in the order in which their ranks count.

    Raises:
        BadRequest: not exactly one of them is the first.
    """
    firsts = [word["host"] for word in words if word["first"]]
    if len(firsts) != 1:
        raise BadRequest(
            f"{len(firsts)} of the {len(words)} hosts say that they are the first.",
            "Give node rank 0 to exactly one, or to none; then the host of the endpoint is the first.",
        )
    return sorted(
        range(len(words)), key=lambda n: (not words[n]["first"], words[n]["node_rank"] or 0, n)
    )


def _check_alike(words: Sequence[dict[str, Any]], mine: dict[str, Any]) -> None:
    for word in words:
        for what, said in word["launched"].items():
            if said != mine["launched"][what]:
                raise ServerMismatch(
                    f"Host {word['host']} was launched with {what} {said}, "
                    f"{mine['host']} with {mine['launched'][what]}.",
                    "Run the same command on every host.",
                )


def await_store(hosts: Hosts, seconds: float) -> None:
    """Wait until the host of the endpoint holds the store.

    Raises:
        TimeoutError: it does not.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(hosts.address, timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError(f"nobody answers at {hosts.endpoint}: {error}") from error
            time.sleep(_BETWEEN_TRIES)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("", 0))
        return int(sock.getsockname()[1])
