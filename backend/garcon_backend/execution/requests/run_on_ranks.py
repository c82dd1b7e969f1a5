"""Code run on every rank, with the model in scope."""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType
from typing import Any

import torch

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.user_code import source_lines
from garcon_jupyter.wire import requests as wire


class RunOnRanksHandler(RequestHandler[wire.RunOnRanks]):
    """Each rank runs the code once, in a scope of its own, and answers with its number."""

    kind = wire.RunOnRanks

    code: CodeType

    def prepare(self) -> None:
        request = self.request
        try:
            self.code = compile(request.source, request.filename, "exec")
            source_lines.remember(request.filename, 1, request.source.splitlines())
        except (SyntaxError, ValueError) as error:
            raise BadRequest(f"The code does not compile: {error}.", "Correct it.") from None

    def run(self) -> list[int]:
        rank, mesh = self.rank, self.rank.mesh
        scope = {
            "model": rank.model,
            "rank": mesh.rank,
            "world_size": mesh.world,
            "mesh": mesh,
            "torch": torch,
            "__name__": "__garcon__",
        }
        rank.call(f"rank {mesh.rank} of {mesh.world}", exec, self.code, scope)
        return [mesh.rank]

    def combine(self, parts: Sequence[Any]) -> list[int]:
        """The numbers of all ranks."""
        return [number for part in parts for number in part]
