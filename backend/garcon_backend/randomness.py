"""Random streams of user code: seeded by the request, and leaving the process's own untouched.

Each call of a probe, a loss or a logits function has a stream of its own, a function of the request's seed
and of where the call is. So the same seed gives the same numbers on one process and on many, whichever
other points are probed, and neither the model's randomness nor the next request's is moved.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_of(seed: int, *where: object) -> int:
    """The seed of one call: of the request's seed and of the words that say where it is."""
    return zlib.crc32("/".join(map(str, (seed, *where))).encode())


def generator(device: torch.device, seed: int) -> torch.Generator:
    """A random generator of a probe's own."""
    return torch.Generator(device=device).manual_seed(seed)


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn or seeded inside, all states are afterwards what they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with _torch_kept(device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def stream(device: torch.device, seed: int) -> Iterator[None]:
    """A call's own stream, of torch, numpy and Python. Used inside :func:`kept`.

    torch's state is put back at once, since sampling draws from it between the calls; those of numpy and
    Python, which nothing else draws from, once for all calls by :func:`kept`.
    """
    random.seed(seed)
    np.random.seed(seed)
    with _torch_kept(device) as generators:
        for one in generators:
            one.manual_seed(seed)
        yield


@contextmanager
def _torch_kept(device: torch.device) -> Iterator[list[torch.Generator]]:
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [one.get_state() for one in generators]
    dtype = torch.get_default_dtype()
    try:
        yield generators
    finally:
        for one, state in zip(generators, states, strict=True):
            one.set_state(state)
        torch.set_default_dtype(dtype)
