"""Connection files: how a server is reached, and that it runs.

A server writes one (0600) when it is ready, and anew when it was started anew. Whoever has it can run code there.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from garcon_jupyter.errors import BadConnectionFile


def read_connection_file(file: Path) -> dict[str, Any]:
    """The content of a connection file of a Garçon server.

    Raises:
        BadConnectionFile: it is not one, or others can read it.
    """
    try:
        info = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadConnectionFile(
            f"{file} cannot be read as a connection file: {error}.",
            "garcon list names the servers.",
        ) from error
    needed = {"key", "ip", "transport", "shell_port", "control_port", "iopub_port", "hb_port"}
    if not isinstance(info, dict) or not needed <= set(info):
        raise BadConnectionFile(
            f"{file} is no connection file: it lacks {', '.join(sorted(needed - set(info)))}.",
            "garcon list names the servers.",
        )
    facts = info.get("garcon")
    if not isinstance(facts, dict) or not {"name", "host", "pid", "supervisor"} <= set(facts):
        raise BadConnectionFile(
            f"{file} belongs to a Jupyter kernel that is no Garçon server.",
            "garcon list names the servers.",
        )
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise BadConnectionFile(
            f"Others can read {file}, which holds the key of the server.",
            f"chmod 600 {file}; whoever has the key can run code.",
        )
    return info


def version(file: Path) -> tuple[int, int]:
    """Changes whenever the file is written."""
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return (found.st_ino, found.st_mtime_ns)


def process_lives(pid: int) -> bool:
    """Whether a process of this host runs (a zombie does not)."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
