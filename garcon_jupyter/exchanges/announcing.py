"""Work in directories that other processes find: how far it is, paused, cancelled, gone on with.

Whoever shuffles, or makes features, puts down in the directory for files between passes what was called and how far it is, and looks there, after each
task, whether somebody wants it to stop. That the work goes on says the lock of the directory; so a process that was killed leaves work that is
interrupted, and nothing that is wrong. A list of the directories is beside the servers' connection files.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from garcon_jupyter.activation_stores import journal
from garcon_jupyter.errors import BadData, BadRequest, GarconError, Interrupted
from garcon_jupyter.exchanges.alone import BETWEEN

CALL, PROGRESS, STOP, FAILED, LOG = "call.json", "progress", "stop", "failed", "log"
"""Files for others, in the directory for files between passes: what was called, how far it is, that it should stop, why it failed, what it said."""

STOPS = ("pause", "cancel")

_TASKS = re.compile(r"([\d,]+) of (?:about )?([\d,]+) tasks")
"""How work in directories says how far it is."""

Told = Callable[[str], None]


@dataclass(frozen=True)
class DirectoryCall:
    """A call by which the work is done.

    Attributes:
        kind: what it does, in a word: "shuffle", "features".
        function: where it is at home, "module:name".
        arguments: by name, as JSON has them.
        worthless: patterns of names in the directory of the result that are of no use when the work was cancelled.
    """

    kind: str
    function: str
    arguments: Mapping[str, Any]
    worthless: tuple[str, ...] = ()


def jobs_directory() -> Path:
    """Where the directories are listed: in ``GARCON_RUNTIME``, or beside Jupyter's connection files."""
    from jupyter_core.paths import jupyter_runtime_dir

    path = Path(os.environ.get("GARCON_RUNTIME") or Path(jupyter_runtime_dir()) / "garcon") / "jobs"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def announced(directory: Path, call: DirectoryCall, progress: Told | None) -> Iterator[Told]:
    """While this is entered, others find the work; what is yielded is told how far it is.

    Args:
        directory: of the result, which this process has alone.
        progress: is told the same.

    Raises:
        Interrupted: somebody paused or cancelled it, at a time when something is told.
    """
    between = directory / BETWEEN
    for name in (STOP, FAILED):
        (between / name).unlink(missing_ok=True)
    journal.put(between / CALL, asdict(call))
    entry = _entry(directory)
    _say(entry, json.dumps({"directory": str(directory), "kind": call.kind}))

    def told(line: str) -> None:
        _say(between / PROGRESS, line)
        if progress is not None:
            progress(line)
        if (between / STOP).exists():
            raise Interrupted(
                f"The {call.kind} into {directory} is to {(between / STOP).read_text() or 'pause'}.",
                f"garcon jobs resume {directory}, or the same call, goes on.",
            )

    try:
        yield told
    except Interrupted:
        if (between / STOP).exists() and (between / STOP).read_text() == "cancel":
            entry.unlink(missing_ok=True)
            _let_go(directory)
        raise
    except GarconError as error:
        if between.exists():
            _say(between / FAILED, str(error))
        raise
    entry.unlink(missing_ok=True)


def _say(path: Path, text: str) -> None:
    """Write what others read; where there is no room for it, they do not, and the work goes on."""
    temporary = path.with_name(f"{path.name}.writing")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)


def _let_go(directory: Path) -> None:
    """Take away what lies between the passes, and what is there of a result that nobody will have."""
    with contextlib.suppress(OSError, BadData):
        for pattern in journal.get(directory / BETWEEN / CALL).get("worthless", ()):
            for path in directory.glob(pattern):
                path.unlink()
    shutil.rmtree(directory / BETWEEN, ignore_errors=True)


def _entry(directory: Path) -> Path:
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    return jobs_directory() / f"{name}.json"


class DirectoryJob:
    """Work in a directory, seen from elsewhere.

    Attributes:
        directory: of the result.
        kind: what is done.
    """

    def __init__(self, directory: Path, kind: str) -> None:
        self.directory, self.kind = directory, kind

    @property
    def _between(self) -> Path:
        return self.directory / BETWEEN

    @property
    def name(self) -> str:
        """By which it is named: its directory."""
        return str(self.directory)

    @property
    def state(self) -> str:
        """One of "running", "pausing"; "paused" or "failed" where nobody is at it; and "gone"."""
        if not self._between.exists():
            return "gone"
        if self._held():
            return "pausing" if (self._between / STOP).exists() else "running"
        return "failed" if (self._between / FAILED).exists() else "paused"

    def _held(self) -> bool:
        try:
            lock = os.open(self.directory / ".lock", os.O_RDWR)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    @property
    def told(self) -> str:
        """How far it is; why it failed, if it did."""
        for name in (FAILED, PROGRESS):
            with contextlib.suppress(OSError):
                return (self._between / name).read_text()
        return ""

    @property
    def fraction(self) -> float | None:
        """How much of it is done, by the tasks that it tells of; None where it tells of none."""
        try:
            found = _TASKS.search((self._between / PROGRESS).read_text())
        except OSError:
            return None
        if found is None:
            return None
        done, total = (int(number.replace(",", "")) for number in found.groups())
        return min(1.0, done / max(total, 1))

    def pause(self) -> None:
        """Let it stop after the tasks that are under way."""
        self._stop("pause")

    def cancel(self) -> None:
        """End it, and let go of what lies between its passes."""
        if self._held():
            self._stop("cancel")
            return
        _let_go(self.directory)
        _entry(self.directory).unlink(missing_ok=True)

    def _stop(self, how: str) -> None:
        if self._between.exists():
            (self._between / f"{STOP}.writing").write_text(how)
            (self._between / f"{STOP}.writing").replace(self._between / STOP)

    def resume(self) -> None:
        """Let it go on, in a process of its own that needs nobody.

        Raises:
            BadRequest: it goes on already.
            BadData: nothing is known of it any longer.
        """
        if self._held():
            raise BadRequest(f"The {self.kind} into {self.directory} goes on.", "Wait for its end.")
        if not (self._between / CALL).exists():
            raise BadData(f"Nothing was begun in {self.directory}.", "Give the call itself.")
        for name in (STOP, FAILED):
            (self._between / name).unlink(missing_ok=True)
        start = (
            "import sys; from garcon_jupyter.exchanges.announcing import again; again(sys.argv[1])"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        with (self.directory / f"{BETWEEN}-{LOG}").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-c", start, str(self.directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def wait(self, seconds: float = 60.0) -> str:
        """Wait until nobody is at it; its state then."""
        limit = time.monotonic() + seconds
        while self.state in ("running", "pausing") and time.monotonic() < limit:
            time.sleep(0.05)
        return self.state

    def __repr__(self) -> str:
        return f"<{self.kind} into {self.directory}: {self.state}; {self.told}>"


def again(directory: str) -> None:
    """Do again what was called for a directory: it goes on."""
    call = journal.get(Path(directory) / BETWEEN / CALL)
    module, _, name = call["function"].partition(":")
    getattr(import_module(module), name)(**call["arguments"])
    (Path(directory) / f"{BETWEEN}-{LOG}").unlink(missing_ok=True)


def directory_jobs() -> list[DirectoryJob]:
    """The work in directories that is not done, whoever began it."""
    found = []
    for entry in sorted(jobs_directory().glob("*.json")):
        try:
            told = json.loads(entry.read_text())
            job = DirectoryJob(Path(told["directory"]), told["kind"])
        except (OSError, ValueError, KeyError):
            continue
        if job.state == "gone":
            entry.unlink(missing_ok=True)
        else:
            found.append(job)
    return found
