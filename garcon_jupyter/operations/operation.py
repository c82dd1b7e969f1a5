"""What an operation is, and what declares one.

@operation(cost="one forward pass", raises=(BadTokens, UnknownPoint))
def forward(at: Door, asked: ForwardRequest) -> ForwardAnswer:
\"\"\"Run the model on texts, and answer with activations and likely next tokens.\"\"\"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_type_hints

from garcon_jupyter.errors import GarconError
from garcon_jupyter.operations.limits import RequestLimits
from garcon_jupyter.operations.plain_data import Plain, PlainAnswer

if TYPE_CHECKING:
    from garcon_jupyter.atlas import Atlas
    from garcon_jupyter.model import RemoteModel

Asked = TypeVar("Asked", bound=Plain)
Answered = TypeVar("Answered", bound=PlainAnswer)

Permission = Literal["read", "edit", "steer"]
"""What an operation does to what others have: "read" nothing; "edit" nothing either, but what it says is of a model that it changed
while it ran; "steer" pauses or ends what somebody began."""


def _nobody(told: dict[str, Any]) -> None:
    """Hears nothing."""


@dataclass(frozen=True)
class Door:
    """What an operation works with.

    Attributes:
        limits: how much it may do.
        atlases: directories of units that the owner registered, by name, in the order in which they are searched.
        tell: is told of progress, in plain data, while a request goes on.
    """

    connected: RemoteModel | None = None
    limits: RequestLimits = field(default_factory=RequestLimits)
    atlases: Mapping[str, Atlas] = field(default_factory=dict)
    tell: Callable[[dict[str, Any]], None] = _nobody

    @property
    def model(self) -> RemoteModel:
        """The model.

        Raises:
            ServerGone: this door serves stored records alone.
        """
        from garcon_jupyter.errors import ServerGone

        if self.connected is None:
            raise ServerGone(
                "There is no model behind this door, only stored records.",
                "Start it with the name of a server: garcon serve NAME.",
            )
        return self.connected


@dataclass(frozen=True)
class Operation(Generic[Asked, Answered]):
    """Something that can be asked of a served model.

    Attributes:
        name: the last part of its URL, the name of its tool, the word of the terminal.
        request, answer: what goes in and out.
        work: the function.
        what: what it does, a sentence.
        more: what else there is to know of it, "" where that is all.
        cost: what it takes, in words.
        permission: what it may change.
        raises: errors that it answers with, beside those that every operation has.
        quick: whether it is answered while the model is busy.
        streams: what it tells while it goes on, in words; "" where nothing.
    """

    name: str
    request: type[Asked]
    answer: type[Answered]
    work: Callable[[Door, Asked], Answered]
    what: str
    more: str
    cost: str
    permission: Permission = "read"
    raises: tuple[type[GarconError], ...] = ()
    quick: bool = False
    streams: str = ""

    def __call__(self, at: Door, asked: Asked | Mapping[str, Any]) -> Answered:
        """Do it.

        Raises:
            pydantic.ValidationError: the request is none.
            GarconError: as declared.
        """
        given = asked if isinstance(asked, self.request) else self.request.model_validate(asked)
        return self.work(at, given)


def operation(
    cost: str,
    raises: tuple[type[GarconError], ...] = (),
    permission: Permission = "read",
    quick: bool = False,
    streams: str = "",
) -> Callable[[Callable[[Door, Asked], Answered]], Operation[Asked, Answered]]:
    """Declare a function as an operation; request and answer are read from its annotations, the words from its docstring."""

    def declare(work: Callable[[Door, Asked], Answered]) -> Operation[Asked, Answered]:
        kinds = get_type_hints(work, {**vars(inspect.getmodule(work)), "Door": Door})
        what, _, more = (inspect.getdoc(work) or "").partition("\n\n")
        return Operation(
            work.__name__,
            kinds["asked"],
            kinds["return"],
            work,
            " ".join(what.split()),
            more,
            cost,
            permission,
            raises,
            quick,
            streams,
        )

    return declare
