"""A real Jupyter server with the extension, and a way to ask it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.served import rmodel  # noqa: F401
from tests.server_extension import answers

START = 60.0
"""Seconds in which a Jupyter server starts."""


@dataclass
class Jupyter:
    """A running Jupyter server.

    Attributes:
        address: "http://127.0.0.1:PORT".
        token: what it asks of whoever comes.
    """

    address: str
    token: str

    def ask(
        self, method: str, path: str, content: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """(status, JSON) of an answer, which is like the examples; with `headers` instead of the token."""
        request = urllib.request.Request(
            f"{self.address}/{path}",
            method=method,
            data=None if content is None else json.dumps(content).encode(),
            headers={"Authorization": f"token {self.token}"} if headers is None else headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, told = answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            body = error.read()
            status, told = error.code, json.loads(body) if body.startswith(b"{") else body.decode()
        own = (
            path.startswith("garcon/") and "/v1/" not in path
        )  # whose answers the side bar's types say
        if own and (status < 400 or "kind" in told):  # else Jupyter's own
            answers.check(told, answers.EXAMPLES[answers.which(method, path, status)], path)
        return status, told

    def server(self, name: str) -> dict[str, Any]:
        """What is told of a running server."""
        _, told = self.ask("GET", "garcon/servers")
        return next(server for server in told["servers"] if server["name"] == name)


@pytest.fixture(scope="package")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jupyter]:
    """A Jupyter server with no extension but ours."""
    directory = tmp_path_factory.mktemp("jupyter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    root = Path(__file__).parents[2]
    command = [
        *(sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={directory}"),
        "--ServerApp.jpserver_extensions={'garcon_jupyter.server_extension': True}",
    ]
    own = ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")
    environment = {
        **os.environ,
        **{name: str(directory / name) for name in own},
        "JUPYTER_NO_CONFIG": "1",
        "PYTHONPATH": os.pathsep.join([str(root), str(root / "backend")]),
    }
    log = directory / "log.txt"
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    running = Jupyter(f"http://127.0.0.1:{port}", token)
    try:
        _wait(running, process, log)
        yield running
    finally:
        process.terminate()
        process.wait(20)


def _wait(jupyter: Jupyter, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        try:
            jupyter.ask("GET", "api/status")
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"Jupyter did not start:\n{log.read_text()[-3000:]}")
