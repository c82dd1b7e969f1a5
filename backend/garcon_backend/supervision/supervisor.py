"""The process that starts the ranks and outlives them; :mod:`garcon_backend.supervision.start` becomes it.

It is torch's own elastic agent (what ``torchrun`` runs); over hosts, one on each. When the ranks have ended,
for whatever reason, it removes what they leave behind and writes a tombstone that says when and why.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
from torch.distributed.elastic.multiprocessing import SignalException

from garcon_backend.distributed import rendezvous
from garcon_backend.distributed.host_rendezvous import Meeting, await_store, run_id
from garcon_backend.distributed.mesh import GROUP_STORE
from garcon_backend.distributed.secret import RANKS_KEY, derived
from garcon_backend.supervision.agent import RanksLost, run
from garcon_backend.supervision.parent import end_with_parent
from garcon_backend.supervision.preloaded import Preloaded
from garcon_jupyter.errors import BadRequest, GarconError
from garcon_jupyter.wire.failures import describe
from garcon_jupyter.wire.launch_spec import Hosts, LaunchSpec
from garcon_jupyter.wire.surroundings import at_start

JOIN_TIME = 1800
"""Seconds that a host waits for the others."""


class Stopped(Exception):
    """The supervisor was told to end, before the ranks ran; afterwards torch's SignalException says it."""

    def __init__(self, sigval: int) -> None:
        super().__init__()
        self.sigval = sigval


def main(spec_file: str, source: Preloaded | None = None) -> int:
    """Run the ranks of a server to their end; 0 if it was the end that rank 0 wanted.

    Args:
        source: the process that ranks are forked from; without it each is started by command.
    """
    spec = LaunchSpec.read(Path(spec_file))
    signal.signal(signal.SIGTERM, _stop)
    if not spec.first or spec.slurm_job:  # then somebody stays for it: a command, or the job
        end_with_parent(lambda: os.kill(os.getpid(), signal.SIGTERM))
    # Elastic restarts over a shared store can meet keys of the group before (pytorch #135712).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ.update(at_start(os.environ))
    reason, well = "ended", False
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        meeting = _over_hosts(spec, spec.hosts) if spec.hosts else _on_one_host(spec)
        run(spec, spec_file, source, **meeting)
        well = True
    except RanksLost as error:
        reason = str(error)
    except (Stopped, SignalException) as error:
        reason = f"it was ended by {signal.Signals(error.sigval).name}"
    except GarconError as error:
        reason = str(error)
        spec.failure_file.write_text(json.dumps(describe(error)))
    except BaseException as error:  # noqa: BLE001 - the tombstone says what it was
        reason = f"the supervisor ended: {type(error).__name__}: {error}"
        traceback.print_exc()
    finally:
        _bury(spec, reason, well)
    return 0 if well else 1


def _stop(signum: int, frame: Any) -> None:
    raise Stopped(signum)


def _on_one_host(spec: LaunchSpec) -> dict[str, Any]:
    """Nobody else is to be met. The ranks find each other through a file of the server's own directory: a store
    that listens on a port would take words from whoever reaches it."""
    os.environ[RANKS_KEY] = secrets.token_hex(32)
    os.environ[GROUP_STORE] = str(spec.group_file)
    if "lo" in psutil.net_if_addrs():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return {
        "nodes": 1,
        "ranks": spec.degrees.world,
        "run_id": spec.name,
        "backend": rendezvous.ALONE,
        "endpoint": "",
    }


def _over_hosts(spec: LaunchSpec, hosts: Hosts) -> dict[str, Any]:
    """Meet the other hosts.

    Raises:
        BadRequest: others meet there.
    """
    interface = _interface(hosts.local_addr)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    if hosts.nnodes > 1 and (spec.first or not spec.slurm_job):
        others = "another host" if hosts.nnodes == 2 else f"{hosts.nnodes - 1} other hosts"
        print(f"[garcon] meeting {others} at {hosts.endpoint}", flush=True)
    meeting = Meeting(spec, hosts)
    if hosts.is_host:
        meeting.announce()
    else:
        await_store(hosts, JOIN_TIME)
        meeting.check()
    return {
        "nodes": hosts.nnodes,
        "ranks": hosts.nproc_per_node,
        "run_id": run_id(spec, hosts),
        "backend": rendezvous.BACKEND,
        "seal": derived(hosts.secret_file, f"seal of {spec.name}").hex(),
        "endpoint": hosts.endpoint,
        "is_host": hosts.is_host,
        "join_timeout": JOIN_TIME,
        "local_addr": hosts.local_addr,
    }


def _interface(address: str) -> str:
    """The network interface that has an address of this host.

    Raises:
        BadRequest: none has it.
    """
    interfaces: dict[str, list[Any]] = psutil.net_if_addrs()
    for name, addresses in interfaces.items():
        if any(a.address.split("%")[0] == address for a in addresses):
            return name
    raise BadRequest(
        f"No network interface of {socket.gethostname()} has the address {address}.",
        "Give one with --local-addr; ip address lists them.",
    )


def _bury(spec: LaunchSpec, reason: str, well: bool) -> None:
    """Leave nothing but a tombstone, and the log; on other hosts than the first, the reason of a failure."""
    with contextlib.suppress(OSError):
        reason = spec.reason_file.read_text() or reason
    failed_launch = spec.failure_file.exists()
    shutil.rmtree(spec.shared, ignore_errors=True)
    if spec.first:
        _write_tombstone(spec, reason)
    elif not well:
        spec.say_why(reason)
    if not failed_launch and (spec.first or well):
        shutil.rmtree(spec.directory, ignore_errors=True)


def _write_tombstone(spec: LaunchSpec, reason: str) -> None:
    spec.connection_file.unlink(missing_ok=True)
    tombstone = {"name": spec.name, "path": spec.model, "time": time.time(), "reason": reason}
    temporary = spec.tombstone.with_suffix(".writing")
    temporary.write_text(json.dumps(tombstone))
    temporary.replace(spec.tombstone)
