"""Run the benchmarks: ``make bench``, or ``python -m benchmarks [GROUP …]``.

All of them take about a quarter of an hour, and write ``docs/performance.md``; some groups alone only print.
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

GROUPS = ("request", "reads", "fetching", "notebook", "launching", "sharded", "growth", "atlas")


def main(chosen: list[str]) -> int:
    """Run groups of rows; the exit code says whether all of them could be measured."""
    unknown = set(chosen) - set(GROUPS)
    if unknown:
        print(f"There is no group {', '.join(sorted(unknown))}. There are: {', '.join(GROUPS)}.")
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server stays behind
    with tempfile.TemporaryDirectory(prefix="garcon-bench-") as name:
        folder = Path(name)
        os.environ["GARCON_RUNTIME"] = str(folder / "runtime")
        os.environ["HF_HUB_OFFLINE"] = "1"
        return _run(chosen or list(GROUPS), folder, whole=not chosen)


def _run(groups: list[str], folder: Path, whole: bool) -> int:
    from benchmarks import report
    from benchmarks.harness import Row, machine

    on, began, failed = machine(), time.monotonic(), 0
    print(on, flush=True)
    rows: list[Row] = []
    for group in groups:
        try:
            for row in importlib.import_module(f"benchmarks.{group}").rows(folder):
                rows.append(row)
                target = f" (target {row.target})" if row.target else ""
                print(
                    f"{report.verdict(row):10} {row.what}{target}\n           {row.measured}",
                    flush=True,
                )
        except Exception as error:  # noqa: BLE001 - the others can be measured all the same
            failed += 1
            traceback.print_exc()
            rows.append(Row(f"group `{group}`", f"could not be measured: {error}", met=False))
    if whole:
        report.write(rows, on, time.monotonic() - began)
        print(f"Written to {report.PAGE} and {report.PICTURE}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
