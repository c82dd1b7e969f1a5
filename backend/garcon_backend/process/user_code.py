"""Code of the user's, wherever it is called: what is set up around it and put back, and how its errors are told.

Every call of a probe, a loss, a logits function, a merge rule or a processor of logits goes through
:func:`user_code`, so that the rule stands once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from garcon_backend.process.interrupts import Interrupts
from garcon_backend.process.output import UserOutput
from garcon_backend.process.randomness import RandomStream
from garcon_backend.process.state import KeptSettings
from garcon_jupyter.wire.failures import text_of


class UserFailure(Exception):
    """User code failed: what it raised, and where."""

    def __init__(self, error: BaseException, where: str) -> None:
        super().__init__(text_of(error))
        self.error, self.where = error, where


@contextmanager
def user_code(
    device: torch.device, output: UserOutput, interrupts: Interrupts, seed: int | None = None
) -> Iterator[None]:
    """While code of the user's runs, on the main thread of a rank.

    It has a random stream of its own, what it prints goes to the cell whose request it is, and an interrupt may
    raise in it. What a pass depends on, such as grad mode, is afterwards as it was.

    Args:
        device: that the rank computes on.
        seed: of the stream, within :func:`garcon_backend.process.randomness.kept`; None where the code draws from the
            process's own generators, and may seed them.
    """
    stream = nullcontext() if seed is None else RandomStream(device, seed)
    with stream, KeptSettings(), output.captured(), interrupts.user_code():
        yield
