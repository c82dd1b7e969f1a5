"""Torch's elastic agent (what ``torchrun`` runs), which starts the ranks, watches them, and starts all of
them anew when one is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from garcon_backend.engine.losses import Losses
from garcon_backend.private_files import write_private
from garcon_backend.spec import LaunchSpec

RESTARTS = 1_000
"""How often torch's agent would start anew; :class:`~garcon_backend.engine.losses.Losses` ends it before."""

GRACE = 5.0
"""Seconds from asking a rank to end to killing it."""


class RanksLost(Exception):
    """Ranks were lost, and are not started again; says which and how."""


class Agent(LocalElasticAgent):
    """The agent of one host."""

    def __init__(self, launch: LaunchSpec, spec: WorkerSpec) -> None:
        logs = DefaultLogsSpecs(log_dir=str(launch.directory / "ranks"), tee=Std.NONE)
        super().__init__(spec, logs, start_method="spawn", shutdown_timeout=GRACE)
        self._launch = launch
        self._losses = Losses(launch.losses_file)
        self.reason = ""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        pids = [worker.id for worker in worker_group.workers]
        ends = {rank: end for rank, pid in enumerate(pids) if (end := _failure(pid))}
        if ends:
            self._lose(worker_group.workers[min(ends)].global_rank, ends[min(ends)])
            for pid in pids:  # what they would still do is of no use, and one that is stopped never ends
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return super()._monitor_workers(worker_group)

    def _lose(self, rank: int, end: str) -> None:
        """Decide whether to start anew, and tell the clients that wait."""
        self.reason = self._own_words() or f"rank {rank} was lost ({end})"
        self._losses.note(self.reason)
        if not self._serves or not self._restarts:
            self._remaining_restarts = 0
        elif self._losses.too_many:
            self._remaining_restarts = 0
            self.reason = self._losses.verdict()
        else:
            print(f"[garcon] {self.reason}; starting the ranks anew", flush=True)
            _announce(self._launch.connection_file, self.reason)

    def _own_words(self) -> str:
        """What a rank said of why it ended."""
        file = self._launch.reason_file
        try:
            return file.read_text()
        except OSError:
            return ""
        finally:
            file.unlink(missing_ok=True)

    @property
    def _serves(self) -> bool:
        """Whether the server was ready; a launch that fails is not tried again."""
        return self._launch.connection_file.exists()

    @property
    def _restarts(self) -> bool:
        return self._launch.hosts is None


def run(launch: LaunchSpec, command: list[str], nodes: int, ranks: int, **meeting: Any) -> None:
    """Run the ranks of this host to their end.

    Args:
        command: of each rank.
        nodes, ranks: number of hosts, and of ranks on each.
        meeting: how the agents meet: `backend`, `endpoint`, `run_id`, `local_addr` and its settings.

    Raises:
        RanksLost: some were lost, and starting anew does not help.
        SignalException: this process was told to end.
    """
    local_addr = meeting.get("local_addr")
    parameters = RendezvousParameters(min_nodes=nodes, max_nodes=nodes, **meeting)
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT")
    spec = WorkerSpec(
        role="rank",
        local_world_size=ranks,
        entrypoint=command[0],
        args=tuple(command[1:]),
        rdzv_handler=get_rendezvous_handler(parameters),
        max_restarts=RESTARTS,
        monitor_interval=0.1,
        local_addr=local_addr,
    )
    agent = Agent(launch, spec)
    over = True
    try:
        result = agent.run()
    except SignalException:
        over = False
        raise
    finally:
        if over:
            spec.rdzv_handler.shutdown()
    if result.is_failed():
        raise RanksLost(agent.reason)


def _failure(pid: int) -> str:
    """How a process of ours failed, which stays to be waited for; nothing where it runs or ended well."""
    try:
        end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ""
    if end is None or end.si_status == 0:
        return ""
    code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _announce(connection_file: Path, reason: str) -> None:
    """Tell whoever looks at the connection file that the ranks are being started anew."""
    connection = json.loads(connection_file.read_text())
    connection["garcon"]["restarting"] = reason
    write_private(connection_file, connection)
