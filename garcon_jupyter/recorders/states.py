"""States: what recorders have gathered, in memory and on disk.

A state is a dataclass of tensors whose first dimension is the unit. States of neighbouring units are put beside each
other; each can be written into a safetensors file, whose header says which class it is of.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from garcon_jupyter.errors import BadRequest

_SAID_OF_UNITS = ("of", "labels")


@dataclass(repr=False)
class State:
    """What a recorder has gathered: tensors whose first dimension is the unit, and plain numbers.

    Attributes:
        start: number of the first unit.
        tokens_seen: how many tokens went into it.
        of: name of the function whose values were recorded; None for those of the point itself.
        labels: what its units are called, where that was said; else ().
    """

    SHARED: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors that are the same for all units."""

    start: int = 0
    tokens_seen: int = 0
    of: str | None = field(default=None, kw_only=True)
    labels: tuple[str, ...] = field(default=(), kw_only=True)

    @classmethod
    def tensor_names(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(f.name for f in dataclasses.fields(cls) if "Tensor" in str(f.type))

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        found = {name: getattr(self, name) for name in self.tensor_names()}
        return {name: value for name, value in found.items() if value is not None}

    def numbers(self) -> dict[str, Any]:
        """Everything else, by name."""
        names = set(self.tensor_names())
        found = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in names
        }
        return {name: value for name, value in found.items() if value or name not in _SAID_OF_UNITS}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in self.tensors().items())
        return f"<{type(self).__name__} of {self.tokens_seen:,} tokens: {shapes}>"


S = TypeVar("S", bound=State)


def beside(states: Sequence[S]) -> S:
    """One state of several that hold neighbouring units."""
    if len(states) == 1:
        return states[0]
    changes: dict[str, Any] = {
        name: torch.cat([state.tensors()[name] for state in states])
        for name in states[0].tensors()
        if name not in states[0].SHARED
    }
    changes["tokens_seen"] = max(state.tokens_seen for state in states)
    return dataclasses.replace(states[0], **changes)


# -- on disk --------------------------------------------------------------------------------------


def save(file: str | Path, state: State) -> None:
    """Write a state as safetensors: its tensors, and in the header which class they are of."""
    from safetensors.torch import save_file

    said = {"class": type(state).__name__, "numbers": json.dumps(state.numbers())}
    tensors = {  # copies: two names may be of one tensor, which a file of this kind cannot say
        name: t.clone(memory_format=torch.contiguous_format) for name, t in state.tensors().items()
    }
    save_file(tensors, str(file), metadata={"garcon_state": json.dumps(said)})


def load(file: str | Path) -> Any:
    """A state from disk.

    Raises:
        BadRequest: the file holds none.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "pt") as opened:
            said = json.loads((opened.metadata() or {})["garcon_state"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        kind = {kind.__name__: kind for kind in _all_states(State)}[said["class"]]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise BadRequest(
            f"{file} holds no state of a recorder: {type(error).__name__}: {error}.",
            "recorders.save(file, state) writes one.",
        ) from error
    numbers = json.loads(said["numbers"])
    numbers["labels"] = tuple(numbers.get("labels", ()))
    return kind(**numbers, **tensors)


def _all_states(kind: type[State]) -> Iterator[type[State]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_states(below)
