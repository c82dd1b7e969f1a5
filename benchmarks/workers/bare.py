"""Plain torch and transformers: what one would write without any tool."""

from __future__ import annotations

import socket
import threading
from typing import Any

import torch
from loop import Took, serve
from transformers import AutoModelForCausalLM

held: dict[str, Any] = {}


def load(path: str) -> None:
    held["model"] = AutoModelForCausalLM.from_pretrained(path).eval()


def forward(ids: Any) -> Any:
    """Logits, and nothing else."""
    with torch.no_grad():
        return held["model"](torch.as_tensor(ids), use_cache=False).logits


def reads(ids: Any) -> Any:
    """Logits of the last position, and every layer's neurons, copied by plain hooks."""
    kept: dict[int, torch.Tensor] = {}

    def hook(layer: int) -> Any:
        return lambda module, args: kept.__setitem__(layer, args[0].clone())

    layers = held["model"].model.layers
    hooks = [
        layer.mlp.down_proj.register_forward_pre_hook(hook(i)) for i, layer in enumerate(layers)
    ]
    try:
        logits = forward(ids)
    finally:
        for one in hooks:
            one.remove()
    held["reads"] = kept
    return logits[:, -1].clone()


def read_back() -> Any:
    """What the last :func:`reads` kept."""
    return list(held["reads"].values())


def copy(seed: int, count: int) -> Any:
    """One copy in memory of `count` float32: only the copy is timed."""
    import time

    source = torch.full((count,), float(seed))
    start = time.perf_counter()
    copied = source.clone()
    took = time.perf_counter() - start
    return Took((took, float(copied[-1]) + float(copied[0])))


def embedding() -> Any:
    """A copy of the embedding."""
    import time

    weight = held["model"].get_input_embeddings().weight.detach()
    start = time.perf_counter()
    copied = weight.clone()
    took = time.perf_counter() - start
    return Took((took, float(copied.double().sum())))


def through_a_socket(seed: int, count: int) -> Any:
    """`count` bytes over TCP on this host, into memory that is there already."""
    import time

    source = memoryview(bytearray(count))
    source[-1] = seed % 256
    target = memoryview(bytearray(count))
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
        with sender, receiver:
            start = time.perf_counter()
            thread = threading.Thread(target=sender.sendall, args=(source,))
            thread.start()
            got = 0
            while got < count:
                got += receiver.recv_into(target[got:], min(1 << 20, count - got))
            took = time.perf_counter() - start
            thread.join()
    return Took((took, target[-1]))


if __name__ == "__main__":
    serve(
        {
            "load": load,
            "forward": forward,
            "reads": reads,
            "read_back": read_back,
            "copy": copy,
            "embedding": embedding,
            "through_a_socket": through_a_socket,
        }
    )
