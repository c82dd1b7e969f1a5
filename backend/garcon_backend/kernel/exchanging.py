"""Whether the weights of the model may be exchanged now: never beneath somebody who does not know of it."""

from __future__ import annotations

from pathlib import Path

from garcon_backend.kernel.context import KernelContext
from garcon_backend.runs.server_runs import Runs
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.wire.requests import ExchangeWeights, Request


def check_undisturbed(context: KernelContext, runs: Runs, request: Request) -> None:
    """Refuse an exchange of weights that would change the model for others; other requests pass.

    Raises:
        BadRequest: a session is connected that the request does not name, or a run goes on.
    """
    weights = context.lockstep.executor.rank.weights
    if not isinstance(request, ExchangeWeights) or weights is None:
        return
    if weights.are(Path(request.path)):
        return
    sharing = {request.session, *request.sharing}
    others = [s for s in context.sessions.living() if s.name not in sharing]
    if others:
        names = ", ".join(f"{s.client.user} ({s.name})" for s in others if s.client)
        raise BadRequest(
            f"Other sessions are connected, whose model would change beneath them: {names}.",
            "Close them, or launch a server of your own.",
        )
    if going := runs.going():
        raise BadRequest(
            f"{going[0].id} of session {going[0].session!r} goes on with the weights that are loaded.",
            "Wait for it, pause it or cancel it.",
        )
