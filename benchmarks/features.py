"""Features of all latents beside the bare encoder on the same rows: ``python -m benchmarks.features [ROWS] [LATENTS] [ROUNDS]``.

A top-k dictionary (k = 64) of random weights reads 576 numbers of a token, which are float16 in a store. The bare encoder computes the same tiles of the
same data shards in as many processes, counts what is not 0, and throws it away; both take turns, A B A B. Bytes are those that the system counts. ``million`` as
the first word takes a million features over ten million rows whose latents are generated, as there is no time to compute them here:
``python -m benchmarks.features million [ROWS]``.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.shuffling import Watch, forget
from garcon_jupyter.activation_stores import ActivationStore, from_arrays
from garcon_jupyter.amounts import sized
from garcon_jupyter.atlas import open_atlas
from garcon_jupyter.exchanges.engines.local import LocalEngine
from garcon_jupyter.features import features, jobs, passes
from garcon_jupyter.features.codes import TILE, CodesWriter
from garcon_jupyter.features.source import CodesOfShards, DataShard

WIDTH, K = 576, 64


def dictionary(path: Path, latents: int) -> Path:
    """A top-k dictionary of random weights, as SAELens has it."""
    import torch
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(0)
    path.mkdir(parents=True)
    weights = {
        "W_enc": torch.randn(WIDTH, latents, generator=draw) / WIDTH**0.5,
        "b_enc": torch.zeros(latents),
        "W_dec": torch.randn(latents, WIDTH, generator=draw) / latents**0.5,
        "b_dec": torch.zeros(WIDTH),
    }
    told = {
        "architecture": "topk", "k": K, "d_in": WIDTH, "d_sae": latents, "dtype": "float32",
        "apply_b_dec_to_input": False, "normalize_activations": "none",
        "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.15.hook_resid_post"},
    }  # fmt: skip
    (path / "cfg.json").write_text(json.dumps(told))
    save_file(weights, path / "sae_weights.safetensors")
    return path


def places(rows: int, each: int = 256) -> np.ndarray:
    """Documents of as many tokens each."""
    number = np.arange(rows)
    return number // each << 32 | number % each


def store(path: Path, rows: int) -> ActivationStore:
    """Rows of random numbers."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, 49152, rows)

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, rows, 4096):
            yield draw.normal(size=(min(4096, rows - first), WIDTH)).astype(np.float16)

    return from_arrays(path, blocks(), places(rows), tokens, "layers.15.resid_post")


@dataclass(frozen=True)
class BareJob:
    """The encoder alone, over a data shard."""

    dictionary: str
    memory: int
    shard: DataShard


def bare(job: BareJob) -> int:
    """How many latents are not 0."""
    return sum(len(row) for _, row, _, _ in jobs.walked(job.dictionary, job.memory, job.shard, []))


def bare_seconds(source: ActivationStore, sae: Path, engine: LocalEngine, shards: int) -> float:
    """Seconds of the encoder alone."""
    forget(source.path)
    facts = source.facts["points"]["layers.15.resid_post"]
    tiles = -(-source.rows // TILE)
    cuts = [tiles * n // shards for n in range(shards + 1)]
    where = str(source.path.absolute())
    wanted = [
        BareJob(str(sae), 1 << 40, DataShard(where, "layers.15.resid_post", facts, n, cuts[n], cuts[n + 1], source.rows))
        for n in range(shards)
    ]  # fmt: skip
    began = time.perf_counter()
    count = sum(engine.map(bare, wanted, 0))
    took = time.perf_counter() - began
    assert count <= K * source.rows
    return took


def main(words: list[str]) -> None:
    """Take turns, and say what came of it."""
    if words[:1] == ["million"]:
        million(int(words[1]) if len(words) > 1 else 10_000_000)
        return
    rows = int(words[0]) if words else 16_384
    latents = int(words[1]) if len(words) > 1 else 65_536
    rounds = int(words[2]) if len(words) > 2 else 3
    workers = min(8, len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory(prefix="garcon-features-") as name:
        folder = Path(name)
        sae, source = dictionary(folder / "sae", latents), store(folder / "acts", rows)
        print(f"{source}; {latents:,} latents, {workers} processes", flush=True)
        ratios = []
        for number in range(rounds):
            engine = LocalEngine(workers)
            alone = bare_seconds(source, sae, engine, workers)
            engine.close()
            forget(source.path)
            told: list[str] = []
            watch = Watch()
            watch.start()
            began = time.perf_counter()
            features(source, folder / f"atlas{number}", sae, memory="6 GB", progress=told.append)
            took = time.perf_counter() - began
            watch.over.set()
            ratios.append(alone / took)
            print(
                f"bare {alone:.1f} s, features {took:.1f} s: {alone / took:.2f} of its tokens/s; peak {sized(watch.most)}; "
                f"load {os.getloadavg()[0]:.1f}; {told[0]}",
                flush=True,
            )
            shutil.rmtree(folder / f"atlas{number}")
        print(f"median {statistics.median(ratios):.2f} of the bare encoder's tokens/s")


# -- a million ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GenerateJob:
    """Latents of a data shard that are drawn: `each` of a token, of rates over three decades."""

    number: int
    shard: DataShard
    codes: CodesOfShards
    edges: tuple[int, ...]
    each: int


def generate(job: GenerateJob) -> dict[str, Any]:
    """Write them as an encoder's are written."""
    writer = CodesWriter(job.codes.path(job.number), job.edges, job.number)
    units, count = job.edges[-1], TILE * job.each
    for tile in job.shard.tiles:
        draw = np.random.default_rng(tile)
        row = np.repeat(np.arange(TILE), job.each)
        unit = (units * draw.random(count) ** 3).astype(np.int64)
        value = draw.exponential(size=count).astype(np.float32) + np.float32(1e-3)
        once = np.unique(row * units + unit, return_index=True)[1]
        writer.add(tile, row[once], unit[once], value[once])
    return {"number": job.number, "codes": writer.finish(), "read": []}


def million(rows: int, units: int = 1_000_000, each: int = 8) -> None:
    """All four passes over generated latents, within 3 GB."""
    from unittest import mock

    with tempfile.TemporaryDirectory(prefix="garcon-features-") as name:
        folder = Path(name)
        zeros = (np.zeros((1 << 16, 1), np.float16) for _ in range(-(-rows // (1 << 16))))
        rows = -(-rows // (1 << 16)) * (1 << 16)
        source = from_arrays(folder / "acts", zeros, places(rows), np.arange(rows) % 50_000, "p")
        watch = Watch()
        watch.start()
        began = time.perf_counter()
        known = {"latents": units, "d_in": 1, "weights": 1, "parts": 1, "codes": each, "reads": []}

        def generated(self: Any, engine: Any, shards: Any, cuts: Any, memory: int) -> Any:
            where = self.between / "codes"
            where.mkdir(exist_ok=True)
            codes = CodesOfShards(str(where), tuple(shard.stop for shard in shards))
            wanted = [GenerateJob(n, shard, codes, cuts, each) for n, shard in enumerate(shards)]
            self._mapped("latents", "encode", generate, wanted, engine)
            return codes

        with (
            mock.patch.object(passes.FeaturePasses, "_look", lambda self, memory: known),
            mock.patch.object(passes.FeaturePasses, "_encoded", generated),
        ):
            atlas = features(
                source, folder / "atlas", "generated", before=2, after=1, memory="3 GB",
                progress=lambda line: print(f"{time.perf_counter() - began:.0f} s: {line}", flush=True),
            )  # fmt: skip
        watch.over.set()
        took = time.perf_counter() - began
        opened = time.perf_counter()
        record = open_atlas(atlas.path)["p", units // 2]
        print(
            f"{units:,} features over {rows:,} rows: {took:.0f} s, peak {sized(watch.most)}; a record opens in "
            f"{(time.perf_counter() - opened) * 1e3:.1f} ms: {record!r}; load {os.getloadavg()[0]:.1f}"
        )


if __name__ == "__main__":
    from benchmarks.features import main as run  # by its name, by which processes find its jobs

    run(sys.argv[1:])
