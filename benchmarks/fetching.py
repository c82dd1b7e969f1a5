"""Moving values: recordings down, tokens up, parameters."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.harness import Row, Times, at_most, interleaved, local
from benchmarks.peers import Worker
from benchmarks.servers import served, smollm2, tiny

GIB = 1 << 30
SMALL = 1000
POINT = "layers.0.resid_pre"
SHARED = "/dev/shm" if Path("/dev/shm").is_dir() else None


def rows(folder: Path) -> Iterator[Row]:
    with served(tiny(folder), "bench-fetching") as model, Worker("bare") as bare:
        yield large(model, bare, "fetch 1 GiB on one host, over one copy of it in memory", GIB)
        yield _many_small(model)
        yield _tokens_up(model, bare, "on one host")
    with elsewhere(folder, "127.0.0.1") as model, Worker("bare") as bare:
        yield _over_a_socket(model, bare)
        yield _tokens_up(model, bare, "between hosts")
    if address := _address():
        with elsewhere(folder, address) as model, Worker("bare") as bare:
            yield _over_a_socket(model, bare, "encrypted")
    with served(smollm2(), "bench-embedding") as model, Worker("bare") as bare:
        bare.do("load", str(smollm2()))
        yield _embedding(model, bare)


def _recorded(model: Any, floats: int, point: str = POINT) -> Any:
    """A fresh recording of so many float32, filled with a number of this call; and the number."""
    seed = int(torch.randint(1, 1 << 20, ()))

    def fill(save_ctx: Any, tensor: Any) -> None:
        save_ctx.value = tensor.new_full((floats,), float(seed))

    probe = model.probe_points[point].probe(fill, read_only=True)
    model.forward([[5, 6]], probes=[probe], logits="none")
    return seed, model.recordings()[point]


def _fetched(made: Any, out: Any = None) -> tuple[float, Any]:
    """Fetch what :func:`_recorded` made; the seconds it took. The value is looked at, or it might be lazy."""
    seed, recording = made
    handle = recording.handle("value")
    start = time.perf_counter()
    value = handle.fetch(out=out)
    took = time.perf_counter() - start
    assert value.shape == handle.shape and float(value[0]) == float(value[-1]) == seed
    assert float(value[:: 1 << 16].sum()) == float(seed) * len(value[:: 1 << 16])
    return took, None


def _written(data: torch.Tensor) -> tuple[float, Any]:
    """One write of a tensor's bytes into a new file in shared memory: the least that another process's seeing it costs."""
    left = memoryview(data.numpy()).cast("B")
    with tempfile.TemporaryFile(dir=SHARED, buffering=0) as file:
        start = time.perf_counter()
        while left:
            left = left[file.write(left) :]
        return time.perf_counter() - start, None


def large(model: Any, bare: Worker, what: str, size: int, point: str = POINT) -> Row:
    """Fetch so many bytes that were recorded at a point, from the rank that has it."""
    floats = size // 4

    source = torch.ones(floats)

    def copied(made: Any) -> tuple[float, Any]:
        return bare.do("copy", made[0], floats)

    times = interleaved(
        {"memcpy": copied, "garcon": _fetched, "write": lambda made: _written(source)},
        lambda: _recorded(model, floats, point),
        rounds=5,
        warm=1,
    )
    model.clear_recordings()
    ratio = times["garcon"].median / times["memcpy"].median
    return at_most(
        what,
        ratio,
        1.4,
        f"{ratio:.2f}: {times['garcon']} over {times['memcpy']}; {_bound(times)}",
    )


def _bound(times: Mapping[str, Times]) -> str:
    return f"a plain write of as many bytes into shared memory takes {times['write']}"


@contextmanager
def elsewhere(folder: Path, address: str) -> Iterator[Any]:
    """A model served over TCP, to a client that sees nothing of its host but its ports."""
    secret = folder / "secret"
    secret.touch(0o600)
    secret.write_text("0" * 64)
    at = {"nnodes": 1, "rdzv_endpoint": f"{address}:{_free_port()}", "local_addr": address}
    with served(tiny(folder), "bench-elsewhere", **at, secret_file=secret) as model:
        model._channel.same_host = False
        yield model


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def _address() -> str | None:
    """An address of this host that is not of loopback, where it has one."""
    found = [a for every in psutil.net_if_addrs().values() for a in every]
    inet = [a.address for a in found if a.family == socket.AF_INET]
    return next((address for address in inet if not address.startswith("127.")), None)


def _over_a_socket(model: Any, bare: Worker, encrypted: str = "") -> Row:
    """Both into memory that is there; what it takes into memory that nobody has touched is told beside it."""
    floats = GIB // 4
    out = torch.zeros(floats)

    times = interleaved(
        {
            "socket": lambda made: bare.do("through_a_socket", made[0], floats * 4),
            "garcon": partial(_fetched, out=out),
            "fresh": _fetched,
        },
        lambda: _recorded(model, floats),
        rounds=5,
        warm=1,
    )
    rate = times["socket"].median / times["garcon"].median
    told = (
        f"{rate:.2f} of its rate: {times['garcon']} beside {times['socket']}; "
        f"into memory that nobody has touched {times['fresh']}"
    )
    what = "fetch 1 GiB over TCP on this host, over a raw socket, both into memory that is there"
    if encrypted:
        return Row(f"the same, {encrypted}", told)
    return Row(what, told, "≥ 0.8 of its rate", rate >= 0.8, 0.8 / rate)


def _many_small(model: Any) -> Row:
    def keep(save_ctx: Any, tensor: Any) -> None:
        for number in range(SMALL):
            setattr(save_ctx, f"v{number}", tensor[0, 0] + number)

    model.clear_recordings()
    probe = model.probe_points[POINT].probe(keep, read_only=True)
    seconds = []
    for _ in range(12):
        model.forward(torch.randint(3, 263, (1, 8)), probes=[probe], logits="none")
        recording = model.recordings()[POINT]
        handles = [recording.handle(f"v{number}") for number in range(SMALL)]
        start = time.perf_counter()
        values = model.fetch(*handles)
        seconds.append(time.perf_counter() - start)
        assert all(torch.equal(value, values[0] + n) for n, value in enumerate(values))
    model.clear_recordings()
    times = Times(tuple(seconds[2:]))
    met = times.median <= 0.05
    return Row("1,000 small recordings at once", str(times), "≤ 50 ms", met, times.median / 0.05)


def _tokens_up(model: Any, bare: Worker, where: str) -> Row:
    """A million tokens to the server, which refuses them at once: the model reads 128 at most."""
    count = 1 << 20

    def up(ids: Any) -> tuple[float, Any]:
        start = time.perf_counter()
        try:
            model.forward(ids, probes=[], logits="none")
        except ValueError as error:
            assert "too long" in str(error)
        else:
            raise AssertionError("a million tokens are too many for this model")
        return time.perf_counter() - start, None

    times = interleaved(
        {
            "socket": lambda ids: bare.do("through_a_socket", int(ids[0, 0]), count * 8),
            "garcon": up,
            "write": _written,
            "refused": lambda ids: up(ids[:, :129]),
        },
        lambda: torch.randint(3, 263, (1, count)),
        rounds=10,
    )
    rate = times["socket"].median / times["garcon"].median
    least = f"a request of 129 tokens, refused as well, takes {times['refused']}"
    if where == "on one host":
        least += f", and {_bound(times)}"
    return Row(
        f"1 M tokens sent up (8 MB) {where}, over a raw socket",
        f"{rate:.2f} of its rate: {times['garcon']} beside {times['socket']}; {least}",
        "≥ 0.8 of its rate",
        rate >= 0.8,
        0.8 / rate,
    )


def _embedding(model: Any, bare: Worker) -> Row:
    def agree(results: Mapping[str, Any]) -> None:
        assert abs(float(results["garcon"].double().sum()) - results["memcpy"]) < 1e-3

    source = torch.ones_like(model.get_parameter("embed.weight"))
    times = interleaved(
        {
            "memcpy": lambda _: bare.do("embedding"),
            "garcon": local(lambda _: model.get_parameter("embed.weight")),
            "write": lambda _: _written(source),
        },
        lambda: None,
        rounds=7,
        agree=agree,
    )
    rate = times["memcpy"].median / times["garcon"].median
    return Row(
        "`get_parameter` of SmolLM2's embedding (113 MB), over one copy of it in memory",
        f"{rate:.2f} of its rate: {times['garcon']} beside {times['memcpy']}; {_bound(times)}",
        "≥ 0.8 of its rate",
        rate >= 0.8,
        0.8 / rate,
    )
