"""`garcon serve` as a process, for whoever asks it from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OpenDoor:
    """Where it is, and what lets one in."""

    address: str
    token: str


@contextmanager
def open_door(name: str, *options: str) -> Iterator[OpenDoor]:
    """The door to a server's model, at a free port; closed afterwards."""
    command = [sys.executable, "-m", "garcon_jupyter", "serve", name, "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:  # ends when the process does
            lines.append(line)
            if found := re.search(r"token is in (.*); send", line):
                break
        text = "".join(lines)
        address = re.search(r"(http://\S+)/ is open", text)
        assert address is not None and found is not None, text
        yield OpenDoor(address[1], Path(found[1]).read_text())
    finally:
        process.terminate()
        process.wait(20)
