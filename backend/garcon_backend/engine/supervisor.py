"""The process that starts the ranks and outlives them: ``python -m garcon_backend.engine.supervisor SPEC``.

It is torch's own elastic agent (what ``torchrun`` runs). When the ranks have ended, for whatever reason,
it removes what they leave behind and writes a tombstone that says when and why.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from garcon_backend.spec import LaunchSpec


class Stopped(Exception):
    """The supervisor was told to end."""


def main(spec_file: str) -> int:
    """Run the ranks of a server to their end; the exit code."""
    spec = LaunchSpec.read(Path(spec_file))
    # Elastic restarts over a shared store can meet keys of the group before (pytorch #135712).
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ["PYTHONHASHSEED"] = "0"
    reason = "ended"
    try:
        _run(spec, spec_file)
    except ChildFailedError as error:
        reason = _describe(error)
    except BaseException as error:  # noqa: BLE001 - the tombstone says what it was
        reason = f"the supervisor ended: {type(error).__name__}: {error}"
        traceback.print_exc()
    finally:
        _bury(spec, reason)
    return 0


def _run(spec: LaunchSpec, spec_file: str) -> None:
    world = spec.degrees.world
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=world,
        run_id=spec.name,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="spawn",
        logs_specs=DefaultLogsSpecs(log_dir=str(spec.directory / "ranks"), tee=Std.NONE),
    )
    elastic_launch(config, sys.executable)("-m", "garcon_backend", spec_file)


def _describe(error: ChildFailedError) -> str:
    rank, failure = error.get_first_failure()
    code = failure.exitcode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"rank {rank} was lost ({how})"


def _bury(spec: LaunchSpec, reason: str) -> None:
    """Leave nothing but a tombstone, and the log."""
    with contextlib.suppress(OSError):
        reason = spec.reason_file.read_text() or reason
    failed_launch = spec.failure_file.exists()
    for file in (spec.connection_file,):
        file.unlink(missing_ok=True)
    shutil.rmtree(spec.shared, ignore_errors=True)
    tombstone = {"name": spec.name, "path": spec.model, "time": time.time(), "reason": reason}
    temporary = spec.tombstone.with_suffix(".writing")
    temporary.write_text(json.dumps(tombstone))
    temporary.replace(spec.tombstone)
    if not failed_launch:
        shutil.rmtree(spec.directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
