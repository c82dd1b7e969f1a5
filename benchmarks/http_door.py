"""The door over HTTP beside the same asked without it: one request, many at once, and many bytes."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Row, Times, close, interleaved, local, told
from benchmarks.servers import save, served, smollm2
from garcon_jupyter.operations.plain_data import Array

POINT = "layers.10.resid_post"
CLIENTS, EACH = 32, 2
ROWS = 29_128
"""Of SmolLM2's embedding, which are 64 MiB."""

DOWNLOAD = """
import sys
import uvicorn
from starlette.applications import Starlette
from starlette.responses import FileResponse
from starlette.routing import Route

async def file(request):
    return FileResponse(sys.argv[1])

config = uvicorn.Config(Starlette(routes=[Route("/", file)]), port=0, log_level="critical", timeout_keep_alive=75)
listening = config.bind_socket()
listening.listen()
print(listening.getsockname()[1], flush=True)
uvicorn.Server(config).run(sockets=[listening])
"""


def rows(folder: Path) -> Iterator[Row]:
    with served(smollm2(), "bench-http") as model, door("bench-http") as (port, token):
        client = Client(port, token)
        yield _one(model, client)
        yield _many(port, token)
        yield _bytes(folder, Client(port, token))


class Client:
    """A connection that is kept, as a browser keeps it."""

    def __init__(self, port: int, token: str) -> None:
        self.line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, operation: str, asked: Any) -> bytes:
        self.line.request("POST", f"/v1/{operation}", json.dumps(asked).encode(), self.headers)
        answer = self.line.getresponse()
        body = answer.read()
        assert answer.status == 200, body[:300]
        return body

    def get(self) -> bytes:
        self.line.request("GET", "/")
        return self.line.getresponse().read()


@contextmanager
def door(name: str) -> Iterator[tuple[int, str]]:
    """``garcon serve`` in a process of its own: its port, its token."""
    command = [sys.executable, "-m", "garcon_jupyter", "serve", name, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split("/")[2].split(":")[1])
        file = process.stdout.readline().removeprefix("Its token is in ").split("; ")[0]
        yield port, Path(file).read_text()
    finally:
        process.terminate()
        process.wait()


def _one(model: Any, client: Client) -> Row:
    """A forward of 16 tokens with one activation."""
    probe = model.probe_points[POINT].probe(save, read_only=True, name="bench")

    def directly(ids: list[int]) -> Any:
        model.forward([ids], probes=[probe], logits="none")
        value = model.fetch(model.recordings(fetch=False)[POINT, "bench"].handle("value"))
        model.clear_recordings(name="bench")
        return value

    def by_http(ids: list[int]) -> Any:
        asked = {"prompts": [ids], "reads": [{"point": POINT}], "form": "base64"}
        (found,) = json.loads(client.ask("forward", asked))["activations"]
        return Array(**found["values"]).numpy()

    times = interleaved(
        {"RemoteModel": local(directly), "HTTP": local(by_http)},
        lambda: torch.randint(3, 40_000, (16,)).tolist(),
        rounds=40,
        agree=lambda found: close(found["HTTP"].copy(), found["RemoteModel"], "activations", 0),
        warm=5,
    )
    over = times["HTTP"].median - times["RemoteModel"].median
    return Row(
        "a forward with one activation over HTTP, SmolLM2",
        f"{times['HTTP']}; by `RemoteModel` {times['RemoteModel']}: {told(max(over, 0))} more",
        "≤ 5 ms more",
        over <= 5e-3,
        max(over, 0) / 5e-3,
    )


def _many(port: int, token: str) -> Row:
    """As many requests by 32 clients at once as by one in a loop."""
    asked = {"prompts": [[*range(5, 21)]], "reads": [{"point": POINT, "reduce": "norm"}]}
    answers: list[bytes] = []

    def some(count: int) -> None:
        client = Client(port, token)
        answers.extend(client.ask("forward", asked) for _ in range(count))

    def loop(value: Any) -> tuple[float, Any]:
        start = time.perf_counter()
        some(CLIENTS * EACH)
        return time.perf_counter() - start, None

    def at_once(value: Any) -> tuple[float, Any]:
        threads = [threading.Thread(target=some, args=(EACH,)) for _ in range(CLIENTS)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start, None

    answers.clear()
    times = interleaved({"loop": loop, "at once": at_once}, lambda: None, rounds=2, warm=1)
    assert len(set(answers)) == 1 and len(answers) % (CLIENTS * EACH) == 0, "some were lost"
    ratio = times["loop"].median / times["at once"].median
    return Row(
        f"{CLIENTS} clients at once over HTTP, {EACH} requests each",
        f"{ratio:.2f} of the throughput of one in a loop ({_rate(times['at once'])} against {_rate(times['loop'])} requests/s); none lost",
        "≥ 0.9",
        ratio >= 0.9,
        0.9 / ratio,
    )


def _rate(times: Times) -> str:
    return f"{CLIENTS * EACH / times.median:.0f}"


def _bytes(folder: Path, client: Client) -> Row:
    """64 MiB of numbers, beside a file of as many bytes from the same kind of server."""
    asked = {"name": "embed.weight", "rows": [*range(ROWS)], "form": "base64"}
    file = folder / "file"
    file.write_bytes(np.random.default_rng(0).bytes(ROWS * 576 * 4))
    command = [sys.executable, "-c", DOWNLOAD, str(file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        plain = Client(int(process.stdout.readline()), "")
        times = interleaved(
            {
                "numbers": local(lambda _: client.ask("parameter", asked)),
                "file": local(lambda _: plain.get()),
            },
            lambda: None,
            rounds=7,
        )
    finally:
        process.kill()
        process.wait()
    ratio = times["file"].median / times["numbers"].median
    return Row(
        "64 MiB of numbers over HTTP",
        f"{ratio:.2f} of the speed of a plain file from a server of the same kind ({times['numbers']} against {times['file']})",
        "≥ 0.5",
        ratio >= 0.5,
        0.5 / ratio,
    )
