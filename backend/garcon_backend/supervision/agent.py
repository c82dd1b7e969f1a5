"""Torch's elastic agent (what ``torchrun`` runs), which starts the ranks, watches them, and starts all of
them anew when one is lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from typing import Any

import psutil
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from garcon_backend.distributed.host_rendezvous import Meeting
from garcon_backend.distributed.rank_failures import Losses
from garcon_backend.supervision import birth
from garcon_backend.supervision.forked import fork_ranks
from garcon_backend.supervision.preloaded import Preloaded
from garcon_jupyter.wire.launch_spec import LaunchSpec
from garcon_jupyter.wire.private_files import write_private

RESTARTS = 1_000
"""How often torch's agent would start anew; :class:`~garcon_backend.distributed.rank_failures.Losses` ends it before."""

STOPPED = 5.0
"""Seconds after which a rank that a signal has stopped counts as lost."""

SILENCE = 30.0
"""Seconds after which a rank 0 no thread of which does anything counts as lost."""

GRACE = 5
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
        self._beat = (0, 0.0)
        self._moved: dict[int, float] = {}
        self.reason = ""

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        pids = [worker.id for worker in worker_group.workers]
        for worker in worker_group.workers:
            if why := self._hangs(worker.global_rank, worker.id):
                self._launch.say_why(f"rank {worker.global_rank} {why}")
                os.kill(worker.id, signal.SIGKILL)
                os.waitid(os.P_PID, worker.id, os.WEXITED | os.WNOWAIT)
        ends = {rank: end for rank, pid in enumerate(pids) if (end := _failure(pid))}
        if ends:
            self._lose(worker_group.workers[min(ends)].global_rank, ends[min(ends)])
            for (
                pid
            ) in pids:  # what they would still do is of no use, and one that is stopped never ends
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        result: RunResult = super()._monitor_workers(worker_group)
        return result

    def _stop_workers(self, worker_group: WorkerGroup) -> None:
        super()._stop_workers(worker_group)
        # Of every start torch keeps a directory, and the ranks a store.
        directory = self._launch.directory
        for left in directory.glob("ranks/*/attempt_*"):
            shutil.rmtree(left, ignore_errors=True)
        for left in directory.glob(f"{self._launch.group_file.name}-*"):
            left.unlink(missing_ok=True)

    def _hangs(self, rank: int, pid: int) -> str:
        """Whether a rank stands still, every thread of it, and for how long."""
        now = time.monotonic()  # which stands still, too, while the machine sleeps
        if not _stopped(pid):
            self._moved[pid] = now
        if now - self._moved.setdefault(pid, now) > STOPPED:
            return f"has been stopped for {STOPPED:.0f} seconds"
        if rank == 0 and now - self._last_beat(now) > SILENCE:
            return f"has not answered for {SILENCE:.0f} seconds"
        return ""

    def _last_beat(self, now: float) -> float:
        try:
            beat = self._launch.pulse_file.stat().st_mtime_ns
        except OSError:  # not ready
            return now
        if beat != self._beat[0]:
            self._beat = (beat, now)
        return self._beat[1]

    def _lose(self, rank: int, end: str) -> None:
        """Decide whether to start anew, and tell the clients that wait."""
        self.reason = self._own_words() or f"rank {rank} was lost ({end})"
        self._losses.note(self.reason)
        self._launch.pulse_file.unlink(missing_ok=True)
        if not self._launch.ready_file.exists():  # a launch that fails is not tried again
            self._remaining_restarts = 0
        elif self._losses.too_many:
            self._remaining_restarts = 0
            self.reason = self._losses.verdict()
        else:
            print(f"[garcon] {self.reason}; starting the ranks anew", flush=True)
            self._announce()

    def _announce(self) -> None:
        """Tell clients, and hosts that want to join, that the ranks are being started anew."""
        file = self._launch.connection_file
        if self._launch.first and file.exists():
            connection = json.loads(file.read_text())
            connection["garcon"]["restarting"] = self.reason
            write_private(file, connection)
        if self._launch.hosts:
            Meeting(self._launch, self._launch.hosts).forget("met")

    def _own_words(self) -> str:
        """What a rank said of why it ended."""
        file = self._launch.reason_file
        try:
            return file.read_text()
        except OSError:
            return ""
        finally:
            file.unlink(missing_ok=True)


def run(
    launch: LaunchSpec,
    spec_file: str,
    source: Preloaded | None,
    nodes: int,
    ranks: int,
    **meeting: Any,
) -> None:
    """Run the ranks of this host to their end.

    Args:
        spec_file: that each rank reads.
        source: the process that they are forked from; None to start each by command.
        nodes, ranks: number of hosts, and of ranks on each.
        meeting: how the agents meet: `backend`, `endpoint`, `run_id`, `local_addr` and its settings.

    Raises:
        RanksLost: some were lost, and starting anew does not help.
        SignalException: this process was told to end.
    """
    local_addr = meeting.get("local_addr")
    parameters = RendezvousParameters(min_nodes=nodes, max_nodes=nodes, **meeting)
    os.environ.setdefault("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT")
    fork_ranks(source)
    spec = WorkerSpec(
        role="rank",
        local_world_size=ranks,
        entrypoint=sys.executable,
        args=("-m", birth.RANK, spec_file),
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


def _stopped(pid: int) -> bool:
    try:
        stopped: bool = psutil.Process(pid).status() == psutil.STATUS_STOPPED
        return stopped
    except psutil.Error:
        return False


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
