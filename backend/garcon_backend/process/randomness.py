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
    torchs = [(one, one.get_state()) for one in _generators(device)]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for one, state in torchs:
            one.set_state(state)


class RandomStream:
    """A call's own stream, of torch, numpy and Python, while this is entered. Used inside :func:`kept`.

    torch's state is put back at once, since sampling draws from it between the calls; those of numpy and
    Python, which nothing else draws from, once for all calls by :func:`kept`.
    """

    __slots__ = ("_device", "_seed", "_states")

    def __init__(self, device: torch.device, seed: int) -> None:
        self._device, self._seed = device, seed

    def __enter__(self) -> None:
        self._states = [(one, one.get_state()) for one in _generators(self._device)]
        for one, _ in self._states:
            one.manual_seed(self._seed)
        random.seed(self._seed)
        np.random.seed(self._seed)

    def __exit__(self, *raised: object) -> None:
        for one, state in self._states:
            one.set_state(state)


def _generators(device: torch.device) -> list[torch.Generator]:
    """torch's own generators that code which works on a device draws from."""
    if device.type == "cuda":
        return [torch.default_generator, torch.cuda.default_generators[device.index or 0]]
    return [torch.default_generator]
