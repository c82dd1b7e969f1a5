"""A save context: the namespace that a probe saves into, and what the probe is told there.

What is assigned to it is kept as it is at that moment: a copy with memory of its own (``copies``), so that a later
change of the value in place, by this probe or by the next, does not reach what was saved.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from garcon_backend.libraries.torch_internals import uses_of_storage
from garcon_backend.save_contexts.backups import Lost
from garcon_backend.save_contexts.copies import apart, copied
from garcon_backend.save_contexts.merging import Sharded
from garcon_backend.save_contexts.quota import COUNTED_AT_ONCE
from garcon_jupyter.errors import NoRecording, WrongValue

LENT = ("here", "params", "source", "shard")


class SaveContext:
    """The namespace a probe saves into. What is *lent* to it is there only while a probe runs.

    Attributes:
        here: where the probe runs: point, layer, tokens, mask, positions, step, token_index (of
            experts), shard (of sharded probes), generator (seeded by the request).
        params: the parameters that the probe asked for, by name.
        source: the earlier recording that the probe asked for; None without one.
        shard: which slice this rank holds; None for a probe that sees the whole.
    """

    # Slots, so that the dictionary of a context is exactly what was saved.
    __slots__ = ("__dict__", "_admit", "_given", "_of", "_parts", "_taken", *LENT)

    here: SimpleNamespace
    params: dict[str, Tensor]
    source: SourceRecording | None
    shard: SimpleNamespace | None
    _given: Tensor | None
    _of: Sharded | None
    _parts: dict[str, Sharded]
    _taken: str | None
    _admit: Callable[[int], None]

    def __init__(self, admit: Callable[[int], None] = lambda count: None) -> None:
        object.__setattr__(self, "_parts", {})
        object.__setattr__(self, "_admit", admit)
        _lend(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in SaveContext.__slots__:
            raise AttributeError(
                f"save_ctx.{name} is what Garçon tells the probe; save under another name."
            )
        if (count := _bytes_at_once(value)) >= COUNTED_AT_ONCE:
            self._admit(count)
        if value is self._given and value is not None:  # once: what is saved has its own memory
            _set(self, _given=None, _taken=name)
            SaveContext._keep(self, name, value.detach())
        else:
            SaveContext._keep(self, name, copied(value))

    def _keep(self, name: str, value: Any) -> None:
        """Save a value that has memory of its own, without a copy: recorders use this for their states."""
        object.__setattr__(self, name, value)
        self._parts.pop(name, None)
        if self._of is not None:
            self._parts[name] = self._of

    def __repr__(self) -> str:
        return f"<save context: {', '.join(vars(self)) or 'empty'}>"

    def __reduce__(self) -> Any:
        raise TypeError("a save context holds others' values; save its attributes")


class Bereft(SaveContext):
    """One in which something was lost with its rank: whoever asks for that is told, and does not begin anew."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        return there(super().__getattribute__(name), f"save_ctx.{name}")


def there(value: Any, what: str) -> Any:
    """A saved value that somebody asks for.

    Raises:
        NoRecording: it was lost; says with which rank, and why.
    """
    if isinstance(value, Lost):
        raise NoRecording(f"{what} was {value}.", "Run the request again, or clear the recording.")
    return value


def _bytes_at_once(value: Any) -> int:
    """Bytes of a tensor or an array, where they are quickly told."""
    if isinstance(value, Tensor):
        return value.nbytes if value.layout is torch.strided else 0
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _set(context: SaveContext, **slots: Any) -> None:
    for name, value in slots.items():
        object.__setattr__(context, name, value)


def _lend(context: SaveContext, of: Sharded | None = None, **things: Any) -> None:
    _set(context, _of=of, _given=None, **(_NOTHING | things))


_NOTHING = dict.fromkeys(LENT)


class LentToProbe:
    """What a probe is told while it runs, and no longer: a context must not keep weights alive.

    Args:
        of: what the values that are saved meanwhile are a part of; None where they are whole.
        given: the value, where its memory may become what is saved of it, without a copy: nobody else
            has it, and the probe must not change it.
    """

    __slots__ = ("_context", "_given", "_of", "_things")

    def __init__(
        self, context: SaveContext, of: Sharded | None, given: Tensor | None, **things: Any
    ) -> None:
        self._context, self._of, self._given, self._things = context, of, given, things

    def __enter__(self) -> None:
        _lend(self._context, self._of, **self._things)
        _set(self._context, _given=self._given, _taken=None)

    def __exit__(self, *raised: object) -> None:
        _lend(self._context)


class SourceRecording:
    """An earlier recording as a probe is given it. Every touch is a fresh copy: the copy may become
    the value of the point, and be changed in place there."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__["_values"] = values

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            raise AttributeError(
                f"The source has no {name!r}; saved there: {', '.join(self._values)}."
            )
        return copied(there(self._values[name], f"source.{name}"))

    def __dir__(self) -> list[str]:
        return list(self._values)


def uses(tensor: Tensor) -> int:
    """How often a tensor or its memory is referred to. It grows when somebody keeps the tensor or a
    view of it, and tells so without a walk through all that was saved."""
    return sys.getrefcount(tensor) + uses_of_storage(tensor)


def took(context: SaveContext) -> bool:
    """Whether the probe that ran last saved the value that it was given, without a copy."""
    return context._taken is not None


def release_aliases(context: SaveContext, *values: Tensor, edited: bool = False) -> None:
    """Copy what a probe put into something saved behind our back: memory of the point's values; and what was
    saved without a copy, as somebody else has it now.

    Args:
        edited: whether the probe changed the value in place: before it saved it, or after, which nobody knows.

    Raises:
        WrongValue: it was edited, and somewhere in what was saved is its memory.
    """
    name = context._taken
    if name is not None and name in vars(context):
        setattr(context, name, vars(context)[name])
    for name, kept in vars(context).items():
        if isinstance(kept, Tensor):
            continue
        own, found = apart(kept, *values)
        object.__setattr__(context, name, own)
        if found and edited:
            raise WrongValue(
                f"What save_ctx.{name} was given is the tensor itself, which the probe changes in place: whether "
                "it is meant as it was before or after, nobody knows.",
                "Save a copy: tensor.clone().",
            )
