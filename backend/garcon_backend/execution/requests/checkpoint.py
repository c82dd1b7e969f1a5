"""What contexts hold, written into files, one for each rank."""

from __future__ import annotations

from garcon_backend.execution.requests.handler import RequestHandler
from garcon_backend.save_contexts import checkpoints
from garcon_jupyter.wire import requests as wire


class CheckpointHandler(RequestHandler[wire.Checkpoint]):
    """Each rank writes its own file; that the checkpoint is whole is for rank 0 to say, when all have answered."""

    kind = wire.Checkpoint

    def prepare(self) -> None:
        """Whether it can be written is seen by writing."""

    def run(self) -> None:
        checkpoints.write(self.rank.contexts, self.rank.mesh.rank, self.request)
