"""A fleet in a notebook: several checkpoints of one architecture, to whom the same is done."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from garcon_jupyter.client.recordings import Recordings
from garcon_jupyter.client.tokens import as_tokens
from garcon_jupyter.errors import BadRequest, GarconError, UnknownName
from garcon_jupyter.fleets import picture
from garcon_jupyter.fleets.asking import AskingAll, is_text, some
from garcon_jupyter.fleets.in_turn import SharedServer
from garcon_jupyter.model import RemoteModel
from garcon_jupyter.points import is_pattern
from garcon_jupyter.servers import fleet_files

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.widgets import MembersWidget


class Fleet(AskingAll):
    """Checkpoints of one architecture, each with a session of its own; :func:`garcon_jupyter.fleet` makes one.

    Each has a server, and what is asked of all is asked at once, of each on a thread. Or the fleet is held *in turn*: one
    server has the weights of one member at a time, and is asked for one after the other. Answers come by label in the order
    of the fleet. What fails at one member leaves the others' answers: its exception stands in its place, or is raised when
    all have ended.

    Attributes:
        name: of the fleet; `garcon list` and `garcon stop` know it.
        labels: of the members, in order.
        errors: of the members that did not come up, by label.
    """

    def __repr__(self) -> str:
        if isinstance(self._models, SharedServer):
            rows = [f"  {label}: {path}" for label, path in self._models.paths.items()]
            held = f", in turn on the server {self._models.server.name}"
        else:
            held, rows = "", [f"  {label}: {self._told(label)}" for label in self.labels]
        return f"<fleet {self.name} of {len(self)}{held}>\n" + "\n".join(rows)

    def _told(self, label: str) -> str:
        error = self.errors.get(label)
        return f"{type(error).__name__}: {error}" if error else repr(self._models[label])

    @property
    def in_turn(self) -> bool:
        """Whether one server has the weights of one member at a time."""
        return isinstance(self._models, SharedServer)

    @property
    def loaded(self) -> tuple[str, ...]:
        """The labels of the members whose weights are in memory, as the server of a fleet in turn says."""
        if not isinstance(self._models, SharedServer):
            return tuple(self._models)
        found = self._models.loaded()
        return () if found is None else (found,)

    # -- what was recorded -----------------------------------------------------------------------

    def recordings(
        self, fetch: bool = True, on_error: str = "keep"
    ) -> dict[str, Recordings | BaseException]:
        """A snapshot of each member's recordings, by label; as :meth:`RemoteModel.recordings`."""
        return self.map(lambda model: model.recordings(fetch), on_error)

    def stack(self, point: str, attribute: str = "tensor", name: str | None = None) -> Tensor:
        """What was saved at a point by all members, as one tensor.

        Args:
            point: its name; or a pattern, such as ``layers.*.mlp.out``.
            attribute: under which name it was saved there: tensors of one shape, or numbers.
            name: of the probes that saved it, where they have one.

        Returns:
            [member, …] for a point, [member, point, …] for a pattern; members in the order of the fleet.

        Raises:
            BadRequest: a member has no value, since it does not run; or values are of several shapes.
            NoRecording: a member recorded nothing there.
        """
        import torch

        if self.errors:
            raise BadRequest(
                f"{', '.join(self.errors)} did not come up, so the stack would lack them.",
                "fleet.errors says why; recordings() has what the others saved.",
            )

        def saved(model: RemoteModel) -> Tensor:
            stacked = model.recordings().stack(point, attribute, name)
            return stacked if is_pattern(point) else stacked[0]

        values = self.map(saved, on_error="raise")
        shapes = {label: list(value.shape) for label, value in values.items()}  # type: ignore[union-attr]
        if len({tuple(shape) for shape in shapes.values()}) > 1:
            raise BadRequest(
                f"{attribute!r} at {point} is of several shapes: {shapes}.",
                "Stack what has one shape; recordings() has them one by one.",
            )
        return torch.stack(list(values.values()))  # type: ignore[arg-type]

    def show(
        self,
        what: str | Mapping[str, Any],
        text: Any = None,
        *,
        reference: str | None = None,
        units: int | None = picture.UNITS,
        rows: str | None = None,
        columns: str | None = None,
        title: str = "",
    ) -> MembersWidget:
        """A picture with a column for each member, one scale of colour, and the selected value over all members as a line.

        The line stands over steps where all labels name one ("step512"), on a logarithmic axis. A member that failed says so
        in its column.

        Args:
            what: name of a point, of which `text` is shown; attention has a sheet for each head, and of a point with units of
                heads each head's norm is shown. Or numbers of your own by label, [row, column] or results with two axes, as
                :meth:`map` returns them, errors included.
            text: one text or its tokens.
            reference: a label, whose values are taken away from all.
            units: how many units are shown at most: those with the strongest values in any member. None for all.
            rows, columns: what the axes of numbers are.
            title: what is shown.

        Raises:
            UnknownPoint: no such point.
            UnknownName: a label that there is not.
            BadRequest: it is nothing that can be drawn.
            Interrupted: as of :meth:`map`.
        """
        named = [*([] if reference is None else [reference])]
        named += [] if isinstance(what, str) else [*what]
        for label in named:
            if label not in self.labels:
                raise UnknownName.among(f"member of {self.name}", label, self.labels)
        if not isinstance(what, str):
            ordered = {label: what[label] for label in self.labels if label in what}
            return picture.of_numbers(some(ordered), rows, columns, title, reference)
        if text is None:
            raise BadRequest(f"{what} is shown of a text, and there is none.", "Give text=.")
        first = self._first()
        point = first.catalog.point(what)
        tokens = self.encode(text) if is_text(text) else as_tokens(text)
        found = self._each(lambda _, model: picture.of_point(model, point, tokens), "keep")
        words = [str(each) for each in tokens.tolist()[0]]
        with contextlib.suppress(GarconError):  # a model without a tokenizer
            words = first.token_strings(tokens)[0]
        return picture.drawn(some(found), point, words, title or what, reference, units)

    # -- the end ---------------------------------------------------------------------------------

    def stop(self, force: bool = False) -> None:
        """End the servers of all members; with `force` also while others use them.

        Raises:
            UnknownServer: none of them runs.
            BadRequest: others use one of them; the others have ended.
        """
        self.close()
        for _ in fleet_files.ended(self.name, force):
            pass

    def close(self) -> None:
        """Hang up; the servers, and the sessions on them, stay."""
        if isinstance(self._models, SharedServer):
            self._models.close()
            return
        for model in self._models.values():
            model.close()
