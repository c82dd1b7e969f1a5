"""Run the benchmarks: ``make bench``, or ``python -m benchmarks [--quick] [--write] [GROUP …]``.

All of them take half an hour, and each group writes its part of ``docs/performance.md`` when it is done; groups that
are named only print, unless ``--write`` says otherwise. With ``--quick`` everything is done but a few times, which shows that it runs and not how fast.
``--against REV`` compares how servers start with another revision, in turns, and prints nothing else.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from benchmarks import harness, launching, report
from benchmarks.harness import Row, machine
from benchmarks.report import GROUPS


def main(chosen: list[str]) -> int:
    """Run groups of rows; the exit code says whether all of them could be measured."""
    quick, write = "--quick" in chosen, "--write" in chosen
    chosen = [word for word in chosen if word not in ("--quick", "--write")]
    revision = None
    if "--against" in chosen:
        place = chosen.index("--against")
        *_, revision = chosen[place : place + 2]
        del chosen[place : place + 2]
    unknown = set(chosen) - set(GROUPS)
    if unknown:
        print(f"There is no group {', '.join(sorted(unknown))}. There are: {', '.join(GROUPS)}.")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server stays behind
    with tempfile.TemporaryDirectory(prefix="garcon-bench-") as name:
        folder = Path(name)
        os.environ["GARCON_RUNTIME"] = str(folder / "runtime")
        os.environ["HF_HUB_OFFLINE"] = "1"
        if quick:
            harness.most_rounds, harness.most_warm = 2, 1
        if revision:
            for row in launching.against(revision, folder):
                _tell(row)
            return 0
        return _run(chosen or list(GROUPS), folder, write=(write or not chosen) and not quick)


def _run(groups: list[str], folder: Path, write: bool) -> int:
    failed = 0
    for group in groups:
        start, on = time.monotonic(), machine()
        print(on, flush=True)
        rows: list[Row] = []
        try:
            for row in importlib.import_module(f"benchmarks.{group}").rows(folder):
                rows.append(row)
                _tell(row)
        except Exception as error:  # noqa: BLE001 - the others can be measured all the same
            failed += 1
            traceback.print_exc()
            rows.append(
                Row(f"group `{group}`", f"could not be measured: {_line(error)}", met=False)
            )
        print(f"({group}: {time.monotonic() - start:.0f} s)", flush=True)
        if write:  # after each group, for a later one may take the machine down
            report.write(group, rows, on)
    if write:
        print(f"Written to {report.PAGE} and {report.PICTURE}.")
    return 1 if failed else 0


def _tell(row: Row) -> None:
    target = f" (target {row.target})" if row.target else ""
    print(f"{report.verdict(row):10} {row.what}{target}\n           {row.measured}", flush=True)


def _line(error: Exception) -> str:
    """The last line of an error: what stands in a table has one."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}".replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
