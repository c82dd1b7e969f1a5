"""Launches that the side bar asked for.

Each runs in a process of its own (:mod:`garcon_jupyter.server_extension.worker`): planning looks at devices, which
takes libraries that have no place in a Jupyter server. What it says is kept until somebody has seen it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from garcon_jupyter.errors import UnknownName
from garcon_jupyter.server_extension.launch_form import checked

SEEN = 60.0
"""Seconds for which a launch that succeeded is remembered, so that who asked for it learns the name."""

LINES = 8
"""Most lines of progress that are kept."""


@dataclass
class Launch:
    """One launch.

    Attributes:
        id: of this launch.
        path, name: what was asked for; the name is None where it is chosen.
        state: "starting", "done" or "failed".
        server: name of the server that runs now, once done.
        lines: the last lines of progress.
        problem, remedy: why it failed, and what to do.
        since, ended: times, in seconds since the epoch.
    """

    id: str
    path: str
    name: str | None
    state: str = "starting"
    server: str | None = None
    lines: list[str] = field(default_factory=list)
    problem: str = ""
    remedy: str = ""
    since: float = field(default_factory=time.time)
    ended: float | None = None

    def told(self) -> dict[str, Any]:
        """What there is to say of it, with the ``seconds`` that it has taken."""
        return {**asdict(self), "seconds": (self.ended or time.time()) - self.since}

    def hear(self, said: dict[str, Any]) -> None:
        """Take in one message of the worker."""
        if "line" in said:
            self.lines = [*self.lines, said["line"]][-LINES:]
        elif "server" in said:
            self._end("done", server=said["server"])
        else:
            self.fail(said["problem"], said["remedy"])

    def fail(self, problem: str, remedy: str) -> None:
        """End it as failed, with what is wrong and what to do."""
        self._end("failed", problem=problem, remedy=remedy)

    def _end(self, state: str, **facts: str) -> None:
        self.state, self.ended = state, time.time()
        for name, value in facts.items():
            setattr(self, name, value)


class Launches:
    """Those that run, failed, or have just succeeded."""

    def __init__(self) -> None:
        self._launches: dict[str, Launch] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)

    async def start(self, words: Any) -> dict[str, Any]:
        """Start a launch; what there is to say of it so far.

        Raises:
            BadRequest: the words make no sense.
        """
        words = checked(words)
        launch = Launch(f"launch-{next(self._numbers)}", words["path"], words.get("name"))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "garcon_jupyter.server_extension.worker"),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            limit=2**20,  # bytes of a message: an error may quote a log
        )
        self._launches[launch.id] = launch
        self._processes[launch.id] = process
        task = asyncio.create_task(self._attend(launch, process, words))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return launch.told()

    async def _attend(
        self, launch: Launch, process: asyncio.subprocess.Process, words: dict[str, Any]
    ) -> None:
        assert process.stdin and process.stdout and process.stderr
        errors = asyncio.create_task(process.stderr.read())
        process.stdin.write(json.dumps(words).encode())
        process.stdin.close()
        async for line in process.stdout:
            launch.hear(json.loads(line))
        await process.wait()
        last = (await errors).decode(errors="replace").strip().splitlines()[-1:]
        del self._processes[launch.id]
        if launch.state == "starting":
            launch.fail(
                "The launch ended without a word.", f"The last that it wrote: {''.join(last)}"
            )

    def told(self) -> list[dict[str, Any]]:
        """All of them; those that succeeded a while ago are forgotten."""
        latest = time.time() - SEEN
        self._launches = {
            key: launch
            for key, launch in self._launches.items()
            if launch.state != "done" or (launch.ended or 0) > latest
        }
        return [launch.told() for launch in self._launches.values()]

    def dismiss(self, key: str) -> None:
        """Stop a launch, or forget how it ended.

        Raises:
            UnknownName: there is none.
        """
        if key not in self._launches:
            raise UnknownName.among("launch", key, self._launches, "It may be over.")
        del self._launches[key]
        if process := self._processes.get(key):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
