"""The model run forward: logits, whole or as they were asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.requests.probed import ProbedRequestHandler
from garcon_backend.execution.row_chunks import RowChunk, cut
from garcon_jupyter.amounts import sized
from garcon_jupyter.errors import CannotTravel, DoesNotFit
from garcon_jupyter.wire import requests as wire
from garcon_jupyter.wire.transport import INLINE_LIMIT


class ForwardHandler(ProbedRequestHandler[wire.Forward]):
    """A forward: the leader of the last stage answers with logits."""

    kind = wire.Forward

    batch: Inputs
    chunks: Sequence[RowChunk]
    reduce: Callable[..., Any] | None

    def admit(self, shared: Path | None) -> None:
        """Refuse logits that have no room in shared memory.

        Raises:
            DoesNotFit: with the bytes that they need and those that there are.
        """
        if shared is None:
            return
        needed = self.tools.admission.answered_logits(self.request)
        if needed <= max(INLINE_LIMIT, there := shutil.disk_usage(shared).free):
            return
        raise DoesNotFit(
            f"The logits need {sized(needed)} of shared memory to be answered; "
            f"{sized(there)} are free.",
            'Ask for logits="last", or give a function that reduces them on the server.',
        )

    def prepare(self) -> None:
        request, most = self.request, self.request.batch_tokens
        self.batch = self.tools.passes.batch(request.batch)
        # Where nobody said how many tokens, a row each must fit; how many do the ranks find out together.
        self.chunks = (
            () if most is None else cut(request.batch, most if isinstance(most, int) else 1)
        )
        self.admit_probes(self.chunks)
        logits = request.logits
        self.reduce = self.tools.code.load(logits) if isinstance(logits, wire.Code) else None

    def run_pass(self) -> Any:
        request, passes = self.request, self.tools.passes
        if request.batch_tokens is None:
            return passes.forward(request, self.batch, self.probes, self.reduce)
        fixed = isinstance(request.batch_tokens, int)
        chunks = self.chunks if fixed else self._largest_chunks()
        return passes.forward_in_chunks(request, chunks, self.probes, self.reduce)

    def _largest_chunks(self) -> Sequence[RowChunk]:
        """As few chunks as fit on every rank, which all ranks find out together; a row each at least."""
        rows, length = torch.as_tensor(self.request.batch.ids).shape
        most = rows * length
        while True:
            chunks = cut(self.request.batch, most)
            fits = len(chunks) == rows or self.tools.admission.fits(self.request, chunks)
            if not self.rank.mesh.everyone.any(not fits):
                return chunks
            most //= 2

    def name_culprit(self, value: Any, error: CannotTravel) -> CannotTravel:
        if not isinstance(self.request.logits, wire.Code):
            return error
        problem = f"What {self.request.logits.name} returned cannot be fetched. {error.problem}"
        return CannotTravel(problem, error.remedy)
