"""Code run on every rank, with the model in scope."""

from __future__ import annotations

from collections.abc import Sequence
from types import CodeType
from typing import Any

import torch

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.probing.user_calls import UserFailure
from garcon_backend.process import memory
from garcon_backend.process.interrupts import Cancelled
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
        try:
            with rank.output.captured(), rank.interrupts.user_code():
                exec(self.code, scope)
        except Cancelled:
            raise
        except BaseException as error:  # noqa: BLE001 - user code may raise anything
            error = memory.typed(error, mesh.device)
            raise UserFailure(error, f"rank {mesh.rank} of {mesh.world}") from None
        return [mesh.rank]

    def combine(self, parts: Sequence[Any]) -> list[int]:
        """The numbers of all ranks."""
        return [number for part in parts for number in part]
