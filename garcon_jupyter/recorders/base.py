"""What all recorders have in common.

A recorder is a streaming reduction: two functions. ``update(state, seen)`` takes in the values of one batch,
``merge(states)`` makes one state of several. Nothing else is asked of it, and everything follows: batches
may be of any size, replicas and tensor shards keep a state each, and two runs add up.

The state is what one reads afterwards, as ``recordings()[point].topk``. It is a dataclass of tensors whose first
dimension is the *unit*: the dimensions of the point after batch and position, laid flat.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar, Generic, Self

import torch
from torch import Tensor

from garcon_jupyter.errors import BadProbe, BadRequest
from garcon_jupyter.recorders.observing import Seen, seen
from garcon_jupyter.recorders.states import S, State, beside

LEFT_OUT = ("first", "special")
"""Words for tokens that recorders can leave out."""


class Recorder(Generic[S]):
    """A streaming reduction as a probe: ``point.probe(TopK(10))``.

    It never edits, runs on the shard that owns its units unless it needs them all, and leaves its state in
    the save context under its name.

    Attributes:
        name: under which the state is saved.
        sharded: whether it can work on a shard of the units.
        state: the class of its state.
        params: names of the model's parameters that it is given.
        left_out: tokens that it does not observe; see :meth:`without`.
    """

    name = "recorder"
    left_out: tuple[str | int, ...] = ()
    sharded = True
    state: type[Any] = object
    params: tuple[str, ...] = ()
    SPARSE: ClassVar[bool] = False
    """Whether :meth:`update` reads values of which few are not 0 (:mod:`garcon_jupyter.recorders.sparse_values`). A subclass says it
    anew: what it makes of ``seen.values`` is its own."""
    of_a_function: ClassVar[Callable[..., Recorder[Any]]]
    """What :meth:`of` makes; :mod:`garcon_jupyter.recorders.transform`, which stands above, puts it here."""

    @property
    def reads_sparse(self) -> bool:
        """Whether it may be shown values of which only those that are not 0 are held."""
        return bool(vars(type(self)).get("SPARSE", False))

    def update(self, state: S | None, seen: Seen) -> S:
        """The state after one more batch; `state` may be changed in place, and is None at first."""
        raise NotImplementedError

    def add(self, one: S, other: S) -> S:
        """One state of two that saw different tokens, and the same units."""
        raise NotImplementedError

    def without(self, *which: str | int) -> Self:
        """The same, but for some tokens: ``TopK(10).without("first", "special")``.

        A model's attention rests on the first token, whose values are often a hundred times those of others, and
        special tokens are nobody's text. They still stand in the windows of examples.

        Args:
            which: "first" for the first token that the model reads in each row; "special" for the tokenizer's special
                tokens; or the ids of tokens.

        Raises:
            BadProbe: a word that means no tokens.
        """
        for word in which:
            if word not in LEFT_OUT and (isinstance(word, bool) or not isinstance(word, int)):
                raise BadProbe(f"{word!r} means no tokens.", 'Use "first", "special" or token ids.')
        other = copy.copy(self)
        other.left_out = tuple(dict.fromkeys((*self.left_out, *which)))
        return other

    def memory(self, units: int) -> int:
        """Bytes that the state of so many units takes; 0 where that depends on the data."""
        return 0

    def needs(self, point: str, units: Callable[[str], int], kept: Collection[str]) -> int:
        """Bytes that this will take at a point: a server refuses what has no room before anything runs.

        Args:
            units: of a point, on the rank that asks.
            kept: names of what is saved there already.
        """
        return 0 if self.name in kept else self.memory(units(point))

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

    def of(
        self,
        fn: Callable[..., Tensor] | Any,
        units: int | Sequence[str] | None = None,
        params: str | Sequence[str] = (),
    ) -> Recorder[Any]:
        """This recorder, of what a function makes of the tensor (:mod:`garcon_jupyter.recorders.transform`).

        Args:
            fn: ``fn(tensor)`` returns one value for each token and unit: [b, p, units]. It sees the whole tensor,
                and may not change it.
            units: how many units that are, or a list of what they are called.
            params: parameters of the model that it needs: then ``fn(tensor, params)`` is given them by name.

        Raises:
            BadProbe: it is no function, `units` is no number, or this recorder is a probe of its own.
        """
        return self.of_a_function(fn, units, params)

    def __call__(self, save_ctx: Any, tensor: Tensor) -> None:
        """As a probe."""
        self.take(save_ctx, seen(tensor, save_ctx.here))

    def take(self, save_ctx: Any, observed: Seen) -> None:
        """Bring the state in a save context up to date."""
        self.observe(save_ctx, observed)

    def observe(
        self,
        save_ctx: Any,
        observed: Seen,
        of: str | None = None,
        marked: Callable[[S], S] | None = None,
    ) -> None:
        """Bring the state in a save context up to date with what of a batch is not left out.

        Args:
            of: the name of the function whose values these are; None for the tensor's own.
            marked: marks the state as that of the function.
        """
        observed = observed.without(*self.left_out)
        if self.left_out and not len(observed.tokens):
            return  # the batch has nothing to observe
        state = self.update(self.kept(save_ctx, of), observed)
        self._leave(save_ctx, state if marked is None else marked(state), observed)

    def _leave(self, save_ctx: Any, state: Any, observed: Seen) -> None:
        # A state has memory of its own: no need to copy all of it after every batch.
        keep = getattr(type(save_ctx), "_keep", None)
        if keep is None or not isinstance(state, State) or _within(state, observed.values):
            setattr(save_ctx, self.name, state)
        else:
            keep(save_ctx, self.name, state)

    def kept(self, save_ctx: Any, of: str | None = None) -> Any:
        """The state so far, None at first.

        Args:
            of: the name of the function whose values it is of; None for the tensor's own.

        Raises:
            BadProbe: what is kept under this name is of something else.
        """
        state = getattr(save_ctx, self.name, None)
        if state is not None and (other := getattr(state, "of", of)) != of:
            raise BadProbe(
                f"{self.name!r} holds what was recorded of {other or 'the tensor itself'}.",
                f'Give one of them a name of its own: {type(self).__name__}(…, name="other").',
            )
        return state

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
        hidden = ("left_out",)
        return {n: v for n, v in vars(self).items() if not n.startswith("_") and n not in hidden}

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options().items())
        left_out = ", ".join(map(repr, self.left_out))
        return f"{type(self).__name__}({options})" + (f".without({left_out})" if left_out else "")


def check_counts(**settings: Any) -> None:
    """Refuse settings of a recorder that are no whole numbers.

    Raises:
        BadProbe: names the first.
    """
    for name, value in settings.items():
        if not hasattr(value, "__index__") or isinstance(value, bool):
            raise BadProbe(f"{name}={value!r} is no whole number.", f"Give one, such as {name}=10.")


def _within(state: State, values: Tensor) -> bool:
    """Whether some tensor of a state is a view of these values."""
    if values.layout is not torch.strided:
        return False
    memory = values.untyped_storage().data_ptr()
    return any(t.untyped_storage().data_ptr() == memory for t in state.tensors().values())


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

    @property
    def reads_sparse(self) -> bool:
        """Whether all of them do."""
        return all(recorder.reads_sparse for recorder in self.recorders)

    def take(self, save_ctx: Any, observed: Seen) -> None:
        """Each of them takes in the batch, under its own name."""
        observed = observed.without(*self.left_out)
        for recorder in self.recorders:
            recorder.take(save_ctx, observed)

    def memory(self, units: int) -> int:
        """The sum over all of them."""
        return sum(recorder.memory(units) for recorder in self.recorders)

    def needs(self, point: str, units: Callable[[str], int], kept: Collection[str]) -> int:
        """The sum over those that are not there yet."""
        return sum(recorder.needs(point, units, kept) for recorder in self.recorders)

    def merge(self, states: Sequence[Any]) -> Any:
        """Each merges its own."""
        kind = type(states[0])
        return next(r for r in self.recorders if r.state is kind).merge(states)

    def check(self, dims: Sequence[str], point: str) -> None:
        """Each must be able to record the point."""
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
        """What the function given makes of the state and a batch."""
        return self._update(state, seen)

    def merge(self, states: Sequence[Any]) -> Any:
        """What the function given makes of several states."""
        return self._merge(states)
