"""What all recorders have in common.

A recorder is a streaming reduction: two functions. ``update(state, seen)`` takes in the values of one batch,
``merge(states)`` makes one state of several. Nothing else is asked of it, and everything follows: batches
may be of any size, replicas and tensor shards keep a state each, and two runs add up.

The state is what one reads afterwards, as ``recordings()[point].topk``. It is a dataclass of tensors whose first
dimension is the *unit*: the dimensions of the point after batch and position, laid flat.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe, BadRequest

_CACHED = 128
"""Tokens of all units of a layer that a processor's cache holds, with what is computed of them."""

OFFSET_BITS = 32
"""A *place* is one integer: ``document << 32 | offset of the token in its document``."""


@dataclass(frozen=True)
class Seen:
    """What a recorder is shown of one batch, without its padding.

    Attributes:
        values: [n, units], off the graph; memory of the model, to be left as it is.
        places: int64 [n], document and offset of each token as one integer.
        tokens: int64 [n], the token ids.
        rows: int64 [n], the row of the batch that each token stands in; windows do not cross rows.
        start: number of the first unit, where this is one shard of the point's units.
    """

    values: Tensor
    places: Tensor
    tokens: Tensor
    rows: Tensor
    start: int = 0

    @property
    def documents(self) -> Tensor:
        """Number of each token's document, int64 [n]."""
        return self.places >> OFFSET_BITS

    @property
    def offsets(self) -> Tensor:
        """Place of each token in its document, int64 [n]."""
        return offsets_of(self.places)

    def pieces(self) -> tuple[Tensor, ...]:
        """The values of so many tokens at a time that a processor computes in its cache, which is several times
        as fast as over all of them. An accelerator has them all at once."""
        return pieces(self.values)


def pieces(values: Tensor) -> tuple[Tensor, ...]:
    """Values [n, units] as :meth:`Seen.pieces` cuts them."""
    return values.split(_CACHED if values.device.type == "cpu" else max(1, len(values)))


def places_of(documents: Tensor, offsets: Tensor) -> Tensor:
    """Documents and offsets as one integer each, which sorts by document, then by offset."""
    return (documents.long() << OFFSET_BITS) | offsets.long()


def offsets_of(places: Tensor) -> Tensor:
    """The offsets of places."""
    return places & ((1 << OFFSET_BITS) - 1)


# -- what a probe sees, as observations -----------------------------------------------------------


def seen(value: Tensor, here: Any) -> Seen:
    """The values of a point as observations of its units.

    Args:
        value: [b, p, …] or, of an expert, [n, …].
        here: where the probe runs, as in ``save_ctx.here``.

    Raises:
        BadProbe: the point has no value for each token.
    """
    table = _tokens(here)
    if here.token_index is not None:
        index = here.token_index.to(value.device)[: len(value)]
        if table["mask"] is not None:
            real = table["mask"].flatten().to(value.device)[index]
            value, index = value[real], index[real]
        return _chosen(value.flatten(1), table, index, None, _first_unit(value, here, 1))
    b, p = table["tokens"].shape
    if value.dim() < 3 or value.shape[:2] != (b, p):
        raise BadProbe(
            f"{here.point} is {list(value.shape)}, not one value for each token and unit.",
            "Record points of shape [b, p, …]; a probe of your own can reduce others.",
        )
    mask = table.pop("mask")
    index = None if mask is None else mask.flatten().nonzero().flatten()
    flat = value.detach().flatten(2).flatten(0, 1)
    return _chosen(
        flat if index is None else flat[index], table, index, (b, p), _first_unit(value, here, 2)
    )


def _tokens(here: Any) -> dict[str, Any]:
    """Of each token of the rows that this rank sees: id, mask, document and offset, [b, p]."""
    rows = getattr(here, "rows", None) or slice(None)
    tokens = here.tokens[rows]
    width = tokens.shape[1]

    def mine(table: Tensor | None) -> Tensor | None:
        return None if table is None else torch.as_tensor(table)[rows][:, -width:].to(tokens.device)

    documents, offsets = mine(here.document), mine(getattr(here, "offset", None))
    if documents is None:  # outside of a run: a row is a document
        first = rows.start or 0
        documents = torch.arange(first, first + len(tokens), device=tokens.device)
        documents = documents[:, None].expand(tokens.shape)
    if offsets is None:
        offsets = mine(here.positions)
        assert offsets is not None
        offsets = offsets.expand(tokens.shape)
    return {
        "tokens": tokens,
        "mask": mine(here.mask),
        "documents": documents,
        "offsets": offsets,
    }


def _chosen(
    values: Tensor, table: dict[str, Any], index: Tensor | None, shape: Any, start: int
) -> Seen:
    tokens = table["tokens"]
    b, p = tokens.shape
    rows = torch.arange(b, device=tokens.device)[:, None].expand(b, p)
    places = places_of(table["documents"], table["offsets"])

    def of_tokens(column: Tensor) -> Tensor:
        column = column.reshape(-1).to(values.device)
        return column if index is None else column[index]

    return Seen(values, of_tokens(places), of_tokens(tokens), of_tokens(rows), start)


def _first_unit(value: Tensor, here: Any, leading: int) -> int:
    """Number of the first unit of this shard: shards are cut along the first dimension of the units."""
    shard = getattr(here, "shard", None)
    if shard is None or shard.dim is None:
        return 0
    behind = value.shape[shard.dim :][1:]
    size = 1
    for length in behind:
        size *= length
    return int(shard.start) * size


# -- states ---------------------------------------------------------------------------------------


@dataclass(repr=False)
class State:
    """What a recorder has gathered: tensors whose first dimension is the unit, and plain numbers.

    Attributes:
        start: number of the first unit.
        tokens_seen: how many tokens went into it.
    """

    SHARED: ClassVar[tuple[str, ...]] = ()
    """Names of the tensors that are the same for all units."""

    start: int = 0
    tokens_seen: int = 0

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
        return {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in names
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in self.tensors().items())
        return f"<{type(self).__name__} of {self.tokens_seen:,} tokens: {shapes}>"


S = TypeVar("S", bound=State)


class Recorder(Generic[S]):
    """A streaming reduction as a probe: ``point.probe(TopK(10))``.

    It never edits, runs on the shard that owns its units unless it needs them all, and leaves its state in
    the save context under its name.

    Attributes:
        name: under which the state is saved.
        sharded: whether it can work on a shard of the units.
        state: the class of its state.
    """

    name = "recorder"
    sharded = True
    state: type[Any] = object

    def update(self, state: S | None, seen: Seen) -> S:
        """The state after one more batch; `state` may be changed in place, and is None at first."""
        raise NotImplementedError

    def add(self, one: S, other: S) -> S:
        """One state of two that saw different tokens, and the same units."""
        raise NotImplementedError

    def merge(self, states: Sequence[S]) -> S:
        """One state of several: of other batches, replicas or runs, or of other units.

        The order does not matter.

        Raises:
            BadRequest: there are none.
        """
        if not states:
            raise BadRequest("There are no states to merge.", "Give at least one.")
        units: dict[int, S] = {}
        for state in states:
            known = units.get(state.start)
            units[state.start] = copy.deepcopy(state) if known is None else self.add(known, state)
        return beside([units[start] for start in sorted(units)])

    def __call__(self, save_ctx: Any, tensor: Tensor) -> None:
        """As a probe."""
        self.take(save_ctx, seen(tensor, save_ctx.here))

    def take(self, save_ctx: Any, observed: Seen) -> None:
        """Bring the state in a save context up to date."""
        state = vars(save_ctx).get(self.name)
        setattr(save_ctx, self.name, self.update(state, observed))

    def check(self, dims: Sequence[str], point: str) -> None:
        """Refuse a point that has no value for each token.

        Raises:
            BadProbe: names its shape.
        """
        if dims[:1] == ("n",) or (dims[:2] == ("b", "p") and len(dims) > 2):
            return
        raise BadProbe(
            f"{point} is [{', '.join(dims)}], not one value for each token and unit.",
            f"{type(self).__name__} records points of shape [b, p, …].",
        )

    def options(self) -> dict[str, Any]:
        """The settings, by name."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in self.options().items())})"
        )


class Together(Recorder[Any]):
    """Several recorders as one probe; each leaves its state under its own name.

    Raises:
        BadProbe: two have the same name, or one that cannot share.
    """

    name = "together"

    def __init__(self, recorders: Sequence[Recorder[Any]]) -> None:
        self.recorders = tuple(recorders)
        names = [recorder.name for recorder in self.recorders]
        if len(set(names)) < len(names):
            raise BadProbe(f"Two recorders have one name: {', '.join(names)}.", "Give name=….")
        if any(type(r).__call__ is not Recorder.__call__ or r.state is object for r in recorders):
            raise BadProbe("One of these is a probe of its own.", "Give each a probe.")
        self.sharded = all(recorder.sharded for recorder in recorders)

    def take(self, save_ctx: Any, observed: Seen) -> None:
        for recorder in self.recorders:
            recorder.take(save_ctx, observed)

    def merge(self, states: Sequence[Any]) -> Any:
        kind = type(states[0])
        return next(r for r in self.recorders if r.state is kind).merge(states)

    def check(self, dims: Sequence[str], point: str) -> None:
        for recorder in self.recorders:
            recorder.check(dims, point)


class Own(Recorder[Any]):
    """A recorder of your own, by two functions.

    Args:
        update: ``update(state, seen) -> state``; `state` is None at first. See :class:`Seen`.
        merge: ``merge(states) -> state``, for replicas, shards and runs.
        name: under which the state is saved.
        sharded: whether `update` may be shown a shard of the units only.
    """

    def __init__(
        self,
        update: Callable[[Any, Seen], Any],
        merge: Callable[[Sequence[Any]], Any],
        name: str = "own",
        sharded: bool = False,
    ) -> None:
        self._update, self._merge = update, merge
        self.name, self.sharded = name, sharded

    def update(self, state: Any, seen: Seen) -> Any:
        return self._update(state, seen)

    def merge(self, states: Sequence[Any]) -> Any:
        return self._merge(states)


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
    return kind(**json.loads(said["numbers"]), **tensors)


def _all_states(kind: type[State]) -> Iterator[type[State]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_states(below)


def alone(tokens: Any, mask: Any = None, point: str = "values") -> SimpleNamespace:
    """A ``here`` for recorders that are used without a server: each row is a document."""
    ids = torch.as_tensor(tokens)
    positions = (torch.ones_like(ids) if mask is None else mask.long()).cumsum(1) - 1
    return SimpleNamespace(
        point=point,
        tokens=ids,
        mask=mask,
        positions=positions.clamp(min=0),
        document=None,
        offset=None,
        token_index=None,
        rows=slice(None),
        shard=None,
    )
