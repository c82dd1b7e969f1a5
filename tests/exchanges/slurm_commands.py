"""``sbatch``, ``squeue`` and ``scancel`` for machines without Slurm: arrays are run here, element by element, each by its script.

They do what the engine asks of Slurm's own: number a job, run its elements so many at a time, each in a process of its own with its number in
``SLURM_ARRAY_TASK_ID``; say whether the job goes on; end it. What ``sbatch`` was given is in the file ``said``.
"""

from __future__ import annotations

import sys
from pathlib import Path

_SBATCH = """#!{python}
import os, re, subprocess, sys
here = os.path.dirname(os.path.abspath(__file__))
with open(here + "/said", "a") as said:
    said.write(" ".join(sys.argv[1:]) + "\\n")
array = next(word for word in sys.argv if word.startswith("--array="))[8:]
which, _, most = array.partition("%")
numbers = []
for part in which.split(","):
    first, _, last = part.partition("-")
    numbers += range(int(first), int(last or first) + 1)
runner = subprocess.Popen(
    [sys.executable, here + "/elements", sys.argv[-1], most, *map(str, numbers)],
    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
)
print(runner.pid)
"""

_ELEMENTS = """
import os, subprocess, sys
from concurrent.futures import ThreadPoolExecutor
def run(number):
    subprocess.run(["bash", sys.argv[1]], env={**os.environ, "SLURM_ARRAY_TASK_ID": number})
with ThreadPoolExecutor(int(sys.argv[2])) as pool:
    list(pool.map(run, sys.argv[3:]))
"""

_SQUEUE = """#!/bin/bash
for word in "$@"; do case $word in --jobs=*) job=${word#--jobs=};; esac; done
state=$(ps -o stat= -p "$job" 2>/dev/null)
if [ -n "$state" ] && [ "${state:0:1}" != Z ]; then echo RUNNING; fi
"""

_SCANCEL = """#!/bin/bash
kill -KILL -- -"$1"
"""


def put(directory: Path) -> None:
    """Write the commands into a directory."""
    directory.mkdir(exist_ok=True)
    sbatch = _SBATCH.replace("{python}", sys.executable).replace("\\\\n", "\\n")
    for name, text in (("sbatch", sbatch), ("squeue", _SQUEUE), ("scancel", _SCANCEL)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    (directory / "elements").write_text(_ELEMENTS)
