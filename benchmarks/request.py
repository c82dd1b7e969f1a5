"""A whole request, notebook ⇄ server and back: what reading four points costs over the bare model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from jupyter_client.manager import start_new_kernel

from benchmarks.harness import Row, close, interleaved, local, told
from benchmarks.peers import Worker, python_of_peers
from benchmarks.servers import every_layer, recorded, save, served, tiny

ALLOWED = 1.5e-3


def rows(folder: Path) -> Iterator[Row]:
    path = tiny(folder)
    peer = python_of_peers()
    with (
        served(path, "bench-tiny") as model,
        Worker("bare") as bare,
        Worker("nnsight_reads", peer) as nnsight,
    ):
        bare.do("load", str(path))
        nnsight.do("load", str(path))
        probes = every_layer(model)

        def agree(results: Mapping[str, Any]) -> None:
            close(results["garcon"], results["bare"], "logits")
            logits, *reads = results["nnsight"]
            close(results["garcon"], logits, "logits of nnsight")
            for mine, theirs in zip(recorded(model), reads, strict=True):
                close(mine, theirs, "reads")

        times = interleaved(
            {
                "bare": bare.side("forward"),
                "garcon": local(lambda ids: model.forward(ids, probes=probes)),
                "nnsight": nnsight.side("here"),
                "nnsight remote": nnsight.side("remote"),
            },
            lambda: torch.randint(3, 263, (1, 8)),
            rounds=100,
            agree=agree,
            warm=10,
        )
        over = times["garcon"].median - times["bare"].median
        others = "; ".join(
            f"nnsight {how} {told(times[name].median - times['bare'].median)} over it"
            for name, how in (("nnsight", "in process"), ("nnsight remote", '`remote="local"`'))
        )
        yield Row(
            "whole request with 4 reads, tiny Llama",
            f"{told(over)} over the bare forward of {times['bare']}; {others}",
            f"≤ {told(ALLOWED)} over the bare forward",
            over <= ALLOWED,
            over / ALLOWED,
        )
        yield from _where_it_goes(model, bare)
        nnsight.close()
        yield from _beside_an_engine(model, bare, path, peer)


def _where_it_goes(model: Any, bare: Worker) -> Iterator[Row]:
    """The same without probes, and a request that runs no model at all."""
    one = model.probe_points["layers.0.mlp.post_activation"].probe(save, read_only=True)
    times = interleaved(
        {
            "bare": bare.side("forward"),
            "none": local(lambda ids: model.forward(ids, probes=[])),
            "one": local(lambda ids: model.forward(ids, probes=[one])),
            "empty": local(lambda ids: model.clear_recordings(name="nobody's")),
        },
        lambda: torch.randint(3, 263, (1, 8)),
        rounds=100,
        warm=10,
    )
    bare_time = times["bare"].median
    kernel = _stock_kernel()
    yield Row(
        "… where it goes",
        f"there and back with nothing to do {told(times['empty'].median)} (a stock ipykernel takes "
        f"{told(kernel['kernel_info'])} to say who it is, {told(kernel['pass'])} to run `pass`); "
        f"without probes {told(times['none'].median - bare_time)} over the bare forward, "
        f"with one {told(times['one'].median - bare_time)}",
    )


def _stock_kernel() -> dict[str, float]:
    """Median seconds of a round trip to a kernel that is nothing but ipykernel: the bound of every request here."""
    manager, client = start_new_kernel(kernel_name="python3")

    def seconds(ask: Callable[[], str]) -> float:
        taken = []
        for _ in range(120):
            start = time.perf_counter()
            asked = ask()
            while client.get_shell_msg(timeout=30)["parent_header"]["msg_id"] != asked:
                pass
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[20:])

    try:
        return {
            "kernel_info": seconds(client.kernel_info),
            "pass": seconds(lambda: client.execute("pass", silent=True, store_history=False)),
        }
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _beside_an_engine(model: Any, bare: Worker, path: Path, peer: Path) -> Iterator[Row]:
    """ipyparallel: the model in another process, too, and the four values brought here."""
    probes = every_layer(model)

    def ours(ids: torch.Tensor) -> list[Any]:
        logits = model.forward(ids, probes=probes)
        return [logits, *recorded(model)]

    def agree(results: Mapping[str, Any]) -> None:
        for mine, theirs in zip(results["garcon"], results["ipyparallel"], strict=True):
            close(mine, theirs, "logits and reads of ipyparallel")

    with Worker("ipyparallel_reads", peer) as engine:
        engine.do("load", str(path))
        times = interleaved(
            {
                "bare": bare.side("forward"),
                "garcon": local(ours),
                "ipyparallel": engine.side("reads"),
            },
            lambda: torch.randint(3, 263, (1, 8)),
            rounds=60,
            agree=agree,
            warm=10,
        )
    bare_time = times["bare"].median
    yield Row(
        "the same, with the four values brought here, beside ipyparallel",
        f"{told(times['garcon'].median - bare_time)} over the bare forward; ipyparallel "
        f"{told(times['ipyparallel'].median - bare_time)}",
    )
