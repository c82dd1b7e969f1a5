"""Runs: data streamed past probes on the server, seen from the notebook.

A run belongs to the server and to the session, so it goes on when the notebook is closed, and ``rmodel.runs()``
finds it again. What its probes record can be read at any time, by ``rmodel.recordings()``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client import display_hooks
from garcon_jupyter.connection import called_off, prints, progress
from garcon_jupyter.errors import BadData, Interrupted, ServerRestarted
from garcon_jupyter.wire import protocol, transport
from garcon_jupyter.wire.failures import revive
from garcon_jupyter.wire.runs import BEGINNING, Data, RunStatus

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.recordings import Recordings

POLLED = 0.2
"""Seconds between two looks at a run that is waited for."""


class Run:
    """A run on the server.

    Attributes:
        id: what the server calls it.
        status: how far it was when last looked at.
    """

    def __init__(self, model: Client, status: RunStatus) -> None:
        self._model, self.id, self.status = model, status.id, status
        self._heard = 0

    def poll(self) -> RunStatus:
        """How far it is now."""
        return self._ask("poll")

    def pause(self) -> RunStatus:
        """Let it stop after the batch that it is at."""
        return self._ask("pause")

    def resume(self) -> RunStatus:
        """Let it go on after a pause, a cancellation or a failure.

        Where it failed in the midst of a batch, it goes back to its last checkpoint, so that nothing counts
        twice.
        """
        return self._ask("resume")

    def cancel(self) -> RunStatus:
        """End it after the batch that it is at; what was recorded stays."""
        return self._ask("cancel")

    def recordings(self, fetch: bool = True) -> Recordings:
        """A snapshot of what was recorded so far; as :meth:`RemoteModel.recordings`."""
        return self._model.recordings(fetch)

    def wait(self, show: bool = True) -> Run:
        """Wait for its end, or for a pause.

        An interrupt cancels the run after the batch that it is at.

        Args:
            show: how far it is, and what probes print.

        Returns:
            Itself.

        Raises:
            Interrupted: it was cancelled; what was recorded is there.
            GarconError: what it failed with; what was recorded before is there.
        """
        line = progress.Line() if show else None
        try:
            self._follow(line, called_off.check)
        except KeyboardInterrupt:
            self.cancel()
            self._follow(line)
        finally:
            if line:
                line.end(describe(self.status))
        if self.status.failure:
            raise revive(self.status.failure)
        if self.status.state == "cancelled":
            raise Interrupted(
                f"{self.id} was cancelled after {self.status.tokens:,} tokens.",
                "What it recorded is there; resume() lets it go on.",
            )
        return self

    def show(self, draw: Callable[[Recordings], Any] | None = None) -> Any:
        """How far it is, with buttons to pause, resume and cancel; it follows the run while it is in sight.

        Args:
            draw: is given the recordings as they are, and makes a picture, which is drawn below and again at
                each look: a widget of ours, anything that shows itself as HTML, or a text.
        """
        return display_hooks.drawn(self, "show", draw)

    def _follow(
        self, line: progress.Line | None, at_each_look: Callable[[], None] = lambda: None
    ) -> None:
        while True:
            at_each_look()
            status = self.poll()
            if line:
                for rank, stream, text in status.printed:
                    prints.plain(rank, stream, text)
                line.show(describe(status))
            if status.over or status.state == "paused":
                return
            time.sleep(POLLED)

    def _ask(self, verb: str) -> RunStatus:
        self.status = ask(self._model, verb, run=self.id, prints=self._heard)
        self._heard = self.status.prints
        return self.status

    def __repr__(self) -> str:
        return f"<{self.id}: {describe(self.status)}>"


def describe(status: RunStatus) -> str:
    """How far a run is, on one line."""
    parts = [status.state if status.state != "running" else "", progress.bar(status.fraction)]
    parts.append(f"{status.tokens:,} tokens")
    if status.seconds:
        parts.append(f"{status.rate:,.0f}/s")
    if status.left is not None and status.state == "running":
        parts.append(f"{progress.duration(status.left)} left")
    if status.skipped:
        parts.append(f"{status.skipped:,} documents left out")
    if status.lost:
        parts.append(status.lost)
    return "  ".join(filter(None, parts))


def as_data(data: Any, field: str = "", documents: str = "line") -> Data:
    """Data as it travels: texts and tokens as they are, of files their path.

    Args:
        data: a path, texts, rows of token ids, or an array of them, [tokens] or [rows, tokens].
        field: the column or key that holds the text or the tokens.
        documents: what a document of a text file is.

    Raises:
        BadData: it is nothing of these.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, (str, Path)):
        return Data(path=str(data), field=field, documents=documents)
    if hasattr(data, "ids") and hasattr(data, "mask"):  # tokens, without their padding
        rows = zip(data.ids, data.mask, strict=True)
        return Data(rows=tuple(ids[mask].numpy() for ids, mask in rows))
    try:
        items = list(data)
    except TypeError:
        raise BadData(
            f"A {type(data).__name__} is no data.",
            "Give texts, rows of token ids, an array of them, or the path of a file.",
        ) from None
    if items and all(isinstance(item, str) for item in items):
        return Data(texts=tuple(items))
    return Data(rows=_rows(data, items))


def _rows(data: Any, items: Sequence[Any]) -> tuple[Any, ...]:
    import numpy as np

    def row(item: Any) -> Any:
        return np.asarray(item.cpu() if hasattr(item, "cpu") else item)

    try:
        found = [row(item) for item in items]
        if found and all(one.ndim == 0 for one in found):
            found = [np.asarray(found)]
        if not all(one.ndim == 1 and (one.dtype.kind in "iu" or not one.size) for one in found):
            raise ValueError
    except (TypeError, ValueError):
        raise BadData(
            f"This {type(data).__name__} holds neither texts nor rows of token ids.",
            "Give texts, rows of integers, an array of them, or the path of a file.",
        ) from None
    return tuple(found)


def ask(rmodel: Client, verb: str, question: Any = None, **content: Any) -> Any:
    """Ask the server about runs of this session."""
    rmodel._follow()
    packed, buffers = transport.pack(question)
    told = {"verb": verb, "session": rmodel.session, **content, **packed}
    computes = verb in BEGINNING or verb == "resume"
    try:
        with rmodel._computing() if computes else nullcontext():
            reply = rmodel._channel.ask(protocol.RUN, told, buffers)
    except ServerRestarted:
        if verb in BEGINNING:  # it may have begun
            raise
        return ask(rmodel, verb, question, **content)
    return transport.unpack(reply, reply["buffers"])
