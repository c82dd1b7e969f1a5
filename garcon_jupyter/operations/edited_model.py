"""A model as experiments see it while edits hold: its every pass over the prompt has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from garcon_jupyter.operations.edits import Editing, PointEdit
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.passes import new_name

if TYPE_CHECKING:
    from garcon_jupyter.client.probes import Probe
    from garcon_jupyter.client.tokens import Tokens
    from garcon_jupyter.model import RemoteModel


class EditedModel:
    """A model with edits that stand before the probes of each pass, so that what reads the same point sees what they made of it.

    Passes over texts of another length, by which an experiment asks for weights, are left as they are.
    """

    def __init__(self, model: RemoteModel, edits: Sequence[Probe], tokens: Tokens) -> None:
        self._model, self._edits, self._length = model, edits, tokens.shape[1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, tokens: Any, probes: Sequence[Probe] = (), **options: Any) -> Any:
        """As :meth:`garcon_jupyter.RemoteModel.forward`."""
        return self._model.forward(tokens, probes=self._with(tokens, probes), **options)

    def backward(self, tokens: Any, loss: Any, probes: Sequence[Probe] = (), **options: Any) -> Any:
        """As :meth:`garcon_jupyter.RemoteModel.backward`."""
        return self._model.backward(tokens, loss, probes=self._with(tokens, probes), **options)

    def _with(self, tokens: Any, probes: Sequence[Probe]) -> list[Probe]:
        length = tokens.shape[1] if hasattr(tokens, "shape") else len(tokens[0])
        return [*(self._edits if length == self._length else ()), *probes]


@contextmanager
def edited(at: Door, edits: Sequence[PointEdit], tokens: Tokens) -> Iterator[RemoteModel]:
    """The model, with edits in its every pass over a prompt; the model itself where there are none.

    Raises:
        UnknownPoint, PointUnavailable, BadRequest: as :class:`garcon_jupyter.operations.edits.Editing`.
    """
    if not edits:
        yield at.model
        return
    editing = Editing(at, edits, tokens, new_name())
    try:
        yield cast("RemoteModel", EditedModel(at.model, editing.probes(), tokens))
    finally:
        editing.clear()
