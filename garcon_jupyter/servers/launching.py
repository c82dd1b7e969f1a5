"""Starting a server, and waiting until it is ready.

There are three ways, which end in the same: a supervisor with a spec (``spec.json`` in the server's own
directory), on each host that the server runs on.

- On this host: the supervisor is detached, and the launch returns when the connection file is there. Over
  several hosts this is what happens on the first, which rank 0 belongs to.
- On another host than the first: the launch stays as long as the server does, and ends with it.
- By Slurm: the nodes of a job each run a supervisor (:mod:`garcon_jupyter.servers.slurm`).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from garcon_jupyter.connection import called_off
from garcon_jupyter.errors import (
    BadDegrees,
    BadRequest,
    LaunchFailed,
    ServerMismatch,
    UnknownServer,
)
from garcon_jupyter.servers import first_process, hosts, placement, preflight, slurm
from garcon_jupyter.servers.hosts import Place
from garcon_jupyter.servers.options import Several
from garcon_jupyter.servers.registry import find
from garcon_jupyter.servers.server import (
    Progress,
    Server,
    log_file,
    own_directory,
    registry_directory,
    why_gone,
)
from garcon_jupyter.servers.settings import DEGREES, Settings
from garcon_jupyter.wire.failures import revive
from garcon_jupyter.wire.launch_spec import Limits

LAUNCH_TIME = 1800.0
"""Seconds after which a launch that says nothing counts as failed."""

_TICK = 0.01


def launch(
    name: str,
    settings: Settings,
    limits: Limits,
    progress: Progress,
    words: Several | None = None,
) -> tuple[Server, bool]:
    """The server of a name: the running one, or a new one.

    Args:
        words: for one that runs over several hosts.

    Returns:
        The server, and whether it was started now. On another host than its first: the server that has
        ended.

    Raises:
        ServerMismatch: one runs with other settings.
        LaunchFailed: it did not come up; or the typed reason why.
    """
    if not re.fullmatch(r"[\w.@+-]+", name):
        raise BadRequest(f"{name!r} is no server name.", "Use letters, digits, and . _ - @ +.")
    for word in DEGREES:
        degree = getattr(settings, word)
        if degree is not None and degree < 1:
            raise BadDegrees(f"{word}={degree} is no degree.", "Degrees count from one.")
    start = way(name, settings, limits, progress, words or Several())
    if isinstance(start, BesideOthers):
        return start(), True
    with FileLock(registry_directory() / f"{name}.lock"):
        with contextlib.suppress(UnknownServer):
            server = find(name)
            if different := settings.differs(server.facts):
                raise ServerMismatch(
                    f"Server {name!r} runs with {different}.",
                    f"Stop it (garcon stop {name}), or launch under another name.",
                )
            return server, False
        return start(), True


def way(
    name: str, settings: Settings, limits: Limits, progress: Progress, words: Several
) -> Here | BesideOthers | BySlurm:
    """How a server is to be started.

    Raises:
        BadDegrees, BadRequest: the words make no sense together.
    """
    if hosts.by_slurm(words):
        return BySlurm(name, settings, limits, progress, words)
    if not hosts.over_several(words):
        return Here(name, settings, limits, progress)
    place = hosts.place(words, placement.plan(settings).degrees)
    kind = Here if place.first else BesideOthers
    return kind(name, settings, limits, progress, place)


@dataclass(frozen=True)
class _Start:
    name: str
    settings: Settings
    limits: Limits
    progress: Progress

    def spec(self, device: str | None = None) -> dict[str, Any]:
        """The settings that are the same on every host.

        Raises:
            BadDegrees, DoesNotFit, NotAModel: the model cannot be served so.
        """
        if not self.settings.loader:
            preflight.check(self.settings)
        plan = placement.plan(self.settings)
        device = self.settings.device or device or plan.device
        return {
            "name": self.name,
            "model": self.settings.path,
            "registry": str(registry_directory()),
            "degrees": plan.degrees,
            "dtype": self.settings.dtype,
            "device": device,
            "loader": self.settings.loader,
            "family": self.settings.family,
            "unchecked": bool(self.settings.unchecked),
            "settings": {**self.settings.__dict__, "device": device},
            "limits": asdict(self.limits),
            "adapters": self.settings.adapter or {},
            "trust_remote_code": bool(self.settings.trust_remote_code),
        }

    def relayed(self, log: Path) -> Iterator[None]:
        """At each step, tells the progress that was logged since the last."""
        for lines in _new_lines(log):
            for line in lines:
                if line.startswith("[garcon] "):
                    self.progress(line.removeprefix("[garcon] "))
            yield

    def await_ready(
        self,
        log: Path,
        directory: Path,
        goes_on: Callable[[], bool],
        end: Callable[[], None],
        last_word: Callable[[], str] = lambda: "it said nothing",
    ) -> Server:
        """Wait for the connection file; where none comes, end what was started."""
        file = registry_directory() / f"{self.name}.json"
        relay = self.relayed(log)
        latest = time.monotonic() + LAUNCH_TIME
        try:
            while time.monotonic() < latest:
                called_off.check()
                next(relay)
                if file.exists():
                    return find(self.name)
                if not goes_on():
                    break
                time.sleep(_TICK)
            else:
                end()
        except BaseException:
            end()
            raise
        raise _failed(self.name, log, directory, last_word=last_word())


@dataclass(frozen=True)
class Here(_Start):
    """On this host, detached."""

    place: Place | None = None

    def __call__(self) -> Server:
        _forget_former(self.name)
        directory, log = own_directory(self.name), log_file(self.name)
        process = first_process.supervise(self.name, self.spec, self.place, log)
        return self.await_ready(
            log, directory, lambda: process.poll() is None, lambda: first_process.terminate(process)
        )


@dataclass(frozen=True)
class BesideOthers(_Start):
    """On another host than the first, until the server ends."""

    place: Place

    def __call__(self) -> Server:
        own = f"{self.name}@{self.place.label}"
        try:
            with FileLock(registry_directory() / f"{own}.lock", timeout=0):
                self._stay(own)
        except Timeout as error:
            raise BadRequest(
                f"This host's part of {self.name!r} runs already.",
                "It ends with the server; garcon stop ends that.",
            ) from error
        facts = {"name": self.name, "path": self.settings.path, "host": socket.gethostname()}
        degrees = placement.plan(self.settings).degrees
        ended = {**facts, "pid": 0, "supervisor": 0, "degrees": degrees}
        return Server(self.name, registry_directory() / f"{self.name}.json", ended)

    def _stay(self, own: str) -> None:
        directory, log = own_directory(own), log_file(own)
        process = first_process.supervise(own, self.spec, self.place, log)
        relay = self.relayed(log)
        try:
            while process.poll() is None:
                next(relay)
                time.sleep(_TICK)
        except BaseException:
            first_process.terminate(process)
            process.wait()
            shutil.rmtree(directory, ignore_errors=True)
            raise
        next(relay)
        if process.returncode:
            raise _failed(self.name, log, directory, "ended on this host")


@dataclass(frozen=True)
class BySlurm(_Start):
    """By a job of Slurm."""

    words: Several

    def __call__(self) -> Server:
        _forget_former(self.name)
        log = log_file(self.name)
        log.unlink(missing_ok=True)
        log.touch(0o600)
        spec = self.spec("cuda" if self.words.get("gpus_per_node") else "cpu")
        each = self.words.get("nproc_per_node")
        hosts.ranks_per_node(self.words.get("nodes") or 1, each, spec["degrees"])
        job, directory = slurm.submit(
            self.name,
            {**spec, "nproc_per_node": each},
            log,
            self.words,
            first_process.environment(),
        )
        watch = slurm.JobWatch(job)
        return self.await_ready(
            log,
            directory,
            lambda: self._goes_on(watch),
            lambda: slurm.cancel(job),
            lambda: watch.told,
        )

    def _goes_on(self, watch: slurm.JobWatch) -> bool:
        goes_on, news = watch.look()
        if news:
            self.progress(news)
        return goes_on


def _forget_former(name: str) -> None:
    """Remove what the last server of a name left; it is known to be gone."""
    for file in (f"{name}.json", f"{name}.tombstone.json"):
        (registry_directory() / file).unlink(missing_ok=True)


def _new_lines(log: Path) -> Iterator[list[str]]:
    """What was written since the last look, by whole lines."""
    with log.open(errors="replace") as stream:
        rest = ""
        while True:
            *lines, rest = (rest + stream.read()).split("\n")
            yield lines


def _failed(
    name: str, log: Path, directory: Path, what: str = "did not start", last_word: str = ""
) -> Exception:
    try:
        failure = json.loads((directory / "failure.json").read_text())
    except (OSError, ValueError):
        failure = None
    reason = ""
    with contextlib.suppress(OSError):
        reason = (directory / "reason").read_text()
    shutil.rmtree(directory, ignore_errors=True)
    if failure and "problem" in failure and "fault" not in failure:
        return revive(failure)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    told = failure and (failure.get("problem") or f"{failure['original']}: {failure['text']}")
    problem = told or reason or why_gone(name) or last_word
    return LaunchFailed(f"Server {name!r} {what}: {problem}.", f"The end of its log:\n{tail}")
