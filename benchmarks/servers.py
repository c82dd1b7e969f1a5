"""The models and servers that are measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import garcon_jupyter as garcon
from garcon_jupyter.model_files import embedded
from tests import checkpoints


def tiny(folder: Path) -> Path:
    """A random Llama of four layers: a forward of eight tokens takes a millisecond and a half."""
    path = folder / "tiny"
    return path if path.exists() else checkpoints.make("llama", path)


def divisible(folder: Path) -> Path:
    """A Llama of thirty layers, like SmolLM2, but with heads that two ranks divide."""
    path = folder / "divisible"
    sizes = {"hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 1024}
    longest = {"max_position_embeddings": 1024, "head_dim": 32, "num_hidden_layers": 30}
    return path if path.exists() else checkpoints.make("llama", path, **sizes, **longest)


def smollm2() -> Path:
    """The real SmolLM2, of 135 million parameters and 30 layers."""
    return embedded.fetch("smollm2", progress=lambda line: None)


@contextmanager
def served(path: Path, name: str, **degrees: Any) -> Iterator[garcon.RemoteModel]:
    """A connection to a server of its own, which ends afterwards."""
    garcon.launch(path, name=name, progress=lambda line: None, **degrees)
    model = garcon.connect(name)
    try:
        yield model
    finally:
        model.shutdown(force=True)


def save(save_ctx: Any, tensor: Any) -> None:
    """The probe of all reads."""
    save_ctx.value = tensor


def every_layer(model: garcon.RemoteModel, point: str = "mlp.post_activation") -> Any:
    """A read of one point in every layer."""
    return model.probe_points[f"layers.*.{point}"].probes(save, read_only=True)


def recorded(model: garcon.RemoteModel, attribute: str = "value") -> list[Any]:
    """All that was saved under a name, in the order of the points, fetched at once."""
    found = model.recordings()
    handles = [entry.handle(attribute) for entry in found.values()]
    values = model.fetch(*handles)
    return values if len(handles) > 1 else [values]
