"""The preloaded process: nothing in it forbids a fork, and what is forked from it is like a process started afresh."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from garcon_jupyter.servers.first_process import environment
from garcon_jupyter.wire.surroundings import COLD, at_start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks only on Linux")


def run(code: str, around: Mapping[str, str] | None = None, **words: Any) -> dict[str, Any]:
    """What a process of its own prints at the end, as JSON."""
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=dict(around or environment()),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        **words,
    )
    return json.loads(told.stdout.splitlines()[-1])


BEFORE_A_FORK = """
import json, os, socket, sys, threading
from pathlib import Path
from garcon_backend.supervision import preloaded
preloaded.preload()
import torch
process = preloaded.Preloaded.fork(dict(os.environ))
tasks = Path(f"/proc/{process.pid}/task")
here = preloaded.unsafe
wait = threading.Event()
reader, writer = os.pipe()
if (child := os.fork()) == 0:  # like the preloaded process: a fork, and nothing done since
    alone = here()
    other = threading.Thread(target=wait.wait)
    other.start()
    os.write(writer, json.dumps([alone, here()]).encode())
    os._exit(0)
alone, with_a_thread = json.loads(os.read(reader, 1000))
os.waitpid(child, 0)
print(json.dumps({
    "initialised": torch.cuda.is_initialized(),
    "devices": [f for f in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if "nvidia" in f],
    "threads": len(list(tasks.iterdir())), "alone": alone, "with a thread": with_a_thread,
    "torch": "transformers.modeling_utils" in sys.modules,
}))
"""


@pytest.mark.processes
def test_nothing_forbids_a_fork() -> None:
    told = run(BEFORE_A_FORK)
    assert told["torch"]
    assert not told["initialised"]
    assert told["devices"] == []
    assert told["threads"] == 1
    assert told["alone"] == ""
    assert told["with a thread"] == "it has 2 threads"  # what must not pass


@pytest.mark.processes
def test_cuda_that_was_initialised_forbids_it() -> None:
    code = """
import json, os
import torch
from garcon_backend.supervision import preloaded
torch.cuda.is_initialized = lambda: True
if (child := os.fork()) == 0:
    print(json.dumps({"why": preloaded.unsafe()}), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    assert run(code)["why"] == "torch has initialised CUDA"


FORKED = """
import json, os, sys
from garcon_backend.supervision import birth, preloaded
birth._MODULES["tests.backend.supervision.born"] = "tests.backend.supervision.born"
preloaded.MODULES = ("numpy", "torch", "tests.backend.supervision.born")
preloaded.preload()
process = preloaded.Preloaded.fork(dict(os.environ))
around = json.loads(sys.stdin.readline())
sys.stdout.flush()
ends = []
for file in around.pop("files"):
    pid = process.start("tests.backend.supervision.born", [file], around["environment"])
    ends.append([pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])])
print(json.dumps({"ends": ends, "pid": os.getpid()}))
"""


@pytest.mark.processes
def test_a_forked_process_finds_what_one_that_is_started_finds(tmp_path: Path) -> None:
    around = {**environment(), "RANK": "5", "GARCON_ONLY_HERE": "é"}
    files = [str(tmp_path / name) for name in ("one", "two")]
    request = json.dumps({"files": files, "environment": around}) + "\n"
    padded = {**environment(), "GARCON_NOT_THERE": "1"}
    root = Path(__file__).resolve().parents[2]
    told = run(FORKED, padded, input=request, cwd=root)
    one, two = (json.loads(Path(file).read_text()) for file in files)
    assert told["ends"] == [[one["pid"], 3], [two["pid"], 3]]
    assert one["parent"] == two["parent"] == told["pid"]  # whose child it is, and who waited for it

    started = subprocess.run(
        [sys.executable, "-m", "tests.backend.supervision.born", files[0]],
        env=around,
        cwd=root,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        check=False,
        capture_output=True,
    )
    assert started.returncode == 3
    fresh = json.loads(Path(files[0]).read_text())["found"]
    # The command line of `python -c` that it was forked from may be too short for the whole title.
    title = one["found"].pop("command line")
    assert fresh.pop("command line")[: len(title)] == title or title[0] == sys.executable
    for found in (fresh, one["found"]):
        found["environment"].pop("LC_CTYPE", None)
    assert one["found"] == fresh
    assert fresh["variables of C"] == [True, False]
    assert one["chance"]["python"] != two["chance"]["python"]
    assert one["chance"]["numpy"] != two["chance"]["numpy"]


POSSIBLE = "import json; from garcon_backend.supervision import preloaded; print(json.dumps(preloaded.possible()))"


@pytest.mark.processes
def test_where_it_is_not_possible() -> None:
    around = environment()
    assert run(POSSIBLE, around)
    assert not run(POSSIBLE, {**around, COLD: "1"})
    assert not run(POSSIBLE, {**around, "PYTHONHASHSEED": "1"})
    without = {k: v for k, v in around.items() if k != "GLIBC_TUNABLES"}
    assert not run(POSSIBLE, without)
    assert run(POSSIBLE, at_start(without))


GONE = """
import json, os, signal
from garcon_backend.supervision import preloaded
from garcon_jupyter.wire import forking
preloaded.MODULES = ()
forking.PATIENCE = 0.2
process = preloaded.Preloaded.fork(dict(os.environ))
said = []
for number in (signal.SIGSTOP, signal.SIGKILL):
    os.kill(process.pid, number)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
    try:
        process.start("garcon_backend", ["nothing"], {})
    except forking.NotForked as error:
        said.append(str(error))
print(json.dumps(said))
"""


@pytest.mark.processes
def test_one_that_stands_still_or_is_gone_is_not_waited_for() -> None:
    stopped, killed = run(GONE)
    assert "does not answer" in stopped
    assert "gone" in killed or "does not answer" in killed
