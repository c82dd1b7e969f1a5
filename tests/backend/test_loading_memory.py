"""Each rank reads its own part and no more: bytes kept, and the most memory used while loading."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from tests.backend.ranks import run_on_ranks

pytestmark = pytest.mark.processes

SLACK = 24 << 20
"""Bytes that transformers' loader takes for itself: threads, headers, the meta model."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 340 MB over several files with an index."""
    config = LlamaConfig(
        hidden_size=1024,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=3072,
        vocab_size=4099,
        tie_word_embeddings=False,
    )
    directory = tmp_path_factory.mktemp("large")
    LlamaForCausalLM(config).save_pretrained(directory, max_shard_size="60MB")
    assert (directory / "model.safetensors.index.json").exists()
    return directory


class AnonymousMemory(threading.Thread):
    """The most anonymous memory of this process while it watches; mapped files are not counted."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = self.now()
        self._over = threading.Event()

    @staticmethod
    def now() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")

    def run(self) -> None:
        while not self._over.wait(0.002):
            self.most = max(self.most, self.now())

    def stop(self) -> int:
        self._over.set()
        self.join()
        return max(self.most, self.now()) - self.before


def load_on_rank(directory: str, degrees: dict[str, int]) -> dict[str, Any]:
    from garcon_backend.distributed.mesh import Mesh
    from garcon_backend.hook_sites import attention
    from garcon_backend.models.loading import load
    from garcon_jupyter.wire.launch_spec import Degrees

    attention.register()
    mesh = Mesh.form(Degrees(**degrees))
    watch = AnonymousMemory()
    watch.start()
    model = load(directory, mesh)
    most = watch.stop()
    mine = sum(p.numel() * p.element_size() for p in model.parameters())
    mesh.leave()
    return {"bytes": mine, "most": most}


def share(directory: Path, degrees: dict[str, int], stage: int) -> tuple[int, int]:
    """Bytes that a rank must hold by hand count, and those of its largest tensor."""
    config = LlamaConfig.from_pretrained(directory)
    d, m, v, tp = config.hidden_size, config.intermediate_size, config.vocab_size, degrees["tp"]
    kv = config.num_key_value_heads * (d // config.num_attention_heads)
    layer = (2 * d * d + 2 * d * kv + 3 * d * m) // tp + 2 * d
    layers = config.num_hidden_layers // degrees["pp"]
    total = layers * layer
    if stage == 0:
        total += -(-v // tp) * d
    if stage == degrees["pp"] - 1:
        total += d + -(-v // tp) * d
    return 4 * total, 4 * max(v * d, d * m)


@pytest.mark.parametrize("degrees", [{"tp": 2, "pp": 1}, {"tp": 1, "pp": 2}], ids=["tp2", "pp2"])
def test_a_rank_holds_its_share_and_loads_little_more(
    checkpoint: Path, degrees: dict[str, int]
) -> None:
    whole = sum(p.numel() * 4 for p in LlamaForCausalLM.from_pretrained(checkpoint).parameters())
    ranks = run_on_ranks(2, load_on_rank, str(checkpoint), degrees, fresh=True)
    for rank, told in enumerate(ranks):
        stage = rank // degrees["tp"]
        expected, largest = share(checkpoint, degrees, stage)
        rows = 2 * 4 * 1024  # an odd vocabulary: the last rank has a row less, at both ends
        assert abs(told["bytes"] - expected) <= rows
        assert told["bytes"] < 0.75 * whole
        assert told["most"] <= 1.2 * told["bytes"] + largest + SLACK, told["most"]
