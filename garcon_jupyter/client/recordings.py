"""What probes saved, seen from the client.

Recordings are a snapshot: taken without fetching anything, unchanged by later requests. An attribute is
fetched when it is touched, or many in one go by ``rmodel.fetch``; a *handle* can be cut and reduced on the
server first.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from garcon_jupyter.client import display_hooks
from garcon_jupyter.errors import BadRequest, NoRecording
from garcon_jupyter.points import Catalog, is_pattern
from garcon_jupyter.wire.requests import AttributeInfo, RecordingRef, SnapshotIndex

if TYPE_CHECKING:
    from torch import Tensor

Key = str | tuple[str, str]

_REDUCTIONS = (
    "abs",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "float",
    "max",
    "mean",
    "min",
    "norm",
    "reshape",
    "softmax",
    "squeeze",
    "std",
    "strongest",
    "sum",
    "topk",
    "transpose",
    "var",
)


class Keeper(Protocol):
    """Whose recordings they are: the client of a session, as much of it as they need.

    Attributes:
        catalog: the points of its model.
    """

    catalog: Catalog
    _released: list[
        int
    ]  # the snapshots that nobody holds any more, for the next request to tell of

    def fetch(self, *handles: Handle, dtype: Any = None, out: Any = None) -> Any:
        """The values of handles, in one go."""


class Handle:
    """A value on the server: its type, shape and bytes are known, its content is not fetched.

    Indexing and simple reductions return new handles and run on the server: ``h[:, -10:].mean(0).fetch()``.

    Attributes:
        info: kind, shape, dtype, device and bytes of the saved value, before any step.

    Examples:
        With ``fetch=False`` the attributes of recordings are handles.

        >>> def save(save_ctx, tensor):
        ...     save_ctx.tensor = tensor

        >>> neurons = rmodel.probe_points["layers.4.mlp.post_activation"]
        >>> tokens = rmodel.encode("The capital of France is")
        >>> rmodel.forward(tokens, probes=[neurons.probe(save)], logits="none")
        >>> handle = rmodel.recordings(fetch=False)[neurons.name].tensor
        >>> handle.shape, handle.dtype, handle.nbytes
        ((1, 5, 1536), 'float32', 30720)

        Each index and each reduction is another handle; what travels in the end is three numbers of a token.

        >>> strongest = handle[0, -1].topk(3)
        >>> strongest
        <layers.4.mlp.post_activation.tensor: Tensor [1, 5, 1536] float32 (cut on the server)>
        >>> values, units = strongest.fetch()
        >>> bool((values == handle.fetch()[0, -1].topk(3).values).all())
        True
        >>> for row in handle: ...
        Traceback (most recent call last):
        garcon_jupyter.errors.BadRequest: ...
    """

    def __init__(
        self,
        model: Keeper,
        ref: RecordingRef,
        attribute: str,
        info: AttributeInfo,
        owner: Any,
        steps: Any = (),
    ) -> None:
        self._model, self._ref, self._attribute, self._steps = model, ref, attribute, tuple(steps)
        self._owner = owner  # keeps the snapshot alive on the server
        self.info = info

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the saved tensor; None for other values."""
        return self.info.shape

    @property
    def dtype(self) -> str | None:
        """dtype of the saved tensor, by name."""
        return self.info.dtype

    @property
    def nbytes(self) -> int | None:
        """Bytes of the saved tensor."""
        return self.info.nbytes

    def __getitem__(self, index: Any) -> Handle:
        return self._with(("item", index))

    def __iter__(self) -> Any:
        raise BadRequest(
            f"{self!r} is on the server, and cannot be gone through here.",
            "Fetch it first: for row in handle.fetch().",
        )

    def __getattr__(self, name: str) -> Any:
        if name in _REDUCTIONS:
            return lambda *args, **kwargs: self._with(("call", name, args, kwargs))
        raise AttributeError(
            f"A handle has no {name!r}. It can be indexed, and reduced by {', '.join(_REDUCTIONS)}; "
            "fetch() it for everything else."
        )

    def _with(self, step: tuple[Any, ...]) -> Handle:
        steps = (*self._steps, step)
        return Handle(self._model, self._ref, self._attribute, self.info, self._owner, steps)

    def fetch(self, dtype: Any = None, out: Any = None) -> Any:
        """The value. A floating dtype to travel in may be chosen, and a tensor to put it into."""
        return self._model.fetch(self, dtype=dtype, out=out)

    def __repr__(self) -> str:
        info = self.info
        what = (
            f"{info.kind} {list(info.shape)} {info.dtype}" if info.shape is not None else info.kind
        )
        cut = " (cut on the server)" if self._steps else ""
        return f"<{self._ref.point}.{self._attribute}: {what}{cut}>"

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self)


class Recording:
    """What was saved at one point: attributes as they were assigned to ``save_ctx``.

    Touching an attribute fetches it (once); :meth:`handle` gives it without fetching.
    """

    def __init__(
        self,
        model: Keeper,
        ref: RecordingRef,
        attributes: dict[str, AttributeInfo],
        lazy: bool,
        owner: Any,
        adapters: tuple[str, ...] = (),
        certificate: str = "",
    ) -> None:
        self._model, self._ref, self._attributes, self._lazy = model, ref, attributes, lazy
        self._adapters = adapters
        self._owner = owner  # keeps the snapshot alive on the server
        self._certificate = certificate
        self._fetched: dict[str, Any] = {}

    def handle(self, attribute: str) -> Handle:
        """An attribute that stays on the server.

        Raises:
            NoRecording: nothing of this name was saved.
        """
        if attribute not in self._attributes:
            raise NoRecording(
                f"{self._ref.point} has no {attribute!r}.",
                f"Saved there: {', '.join(self._attributes) or 'nothing'}.",
            )
        info = self._attributes[attribute]
        return Handle(self._model, self._ref, attribute, info, self._owner)

    @property
    def certificate(self) -> str:
        """Id of the model's certificate when the probe last ran; "" where none was made (``rmodel.certify()``)."""
        return self._certificate

    def __getattribute__(self, name: str) -> Any:
        # What was saved comes before what this class calls so: somebody will save `keys`.
        if not name.startswith("_") and name in self._attributes:
            return self._saved(name)
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        saved = ", ".join(self._attributes) or "nothing"
        raise AttributeError(f"{self._ref.point} has no {name!r}. Saved there: {saved}.")

    def __getitem__(self, name: str) -> Any:
        if isinstance(name, str) and name in self._attributes:
            return self._saved(name)
        raise NoRecording(
            f"{self._ref.point} has no {name!r}.",
            f"Saved there: {', '.join(self._attributes) or 'nothing'}; recording.name gives it.",
        )

    def _saved(self, name: str) -> Any:
        if name not in self._fetched:
            handle = Recording.handle(self, name)
            if self._lazy:
                return handle
            self._fetched[name] = handle.fetch()
        return self._fetched[name]

    def __dir__(self) -> list[str]:
        return [*self._attributes, "handle"]

    @property
    def adapters(self) -> tuple[str, ...]:
        """Adapters that were on while this was saved, the last one last, "" for the base model; none where it was
        the base model alone. Of values that were brought back after a lost rank, the origin of each says it."""
        return self._adapters

    def _on(self) -> str:
        return ", then ".join(name or "none" for name in self._adapters)

    def keys(self) -> list[str]:
        """Names of what was saved."""
        return list(self._attributes)

    def __repr__(self) -> str:
        rows = []
        for name, info in self._attributes.items():
            what = (
                f"{info.kind} {list(info.shape)} {info.dtype}" if info.shape is not None else None
            )
            origin = f" (of {info.origin})" if info.origin else ""
            rows.append(f"{name}: {what or info.preview}{origin}")
        on = f" with adapter {self._on()}" if self._adapters else ""
        certified = f", certificate {self._certificate}" if self._certificate else ""
        return f"<recording of {self._ref.point}{on}{certified}: {'; '.join(rows)}>"

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self)


class _SnapshotHold:
    """Keeps a snapshot on the server as long as anybody here holds it: no cycle goes through it, so that gigabytes
    there need not wait for the collector here."""


class Recordings(Mapping[Key, Recording]):
    """A snapshot of a session's recordings by point name, or (point, name) for named probes.

    A pattern of points selects a part of it: ``recordings["layers.*.attn.pattern"]`` has the recordings of
    these points, ``recordings["layers.*.attn.pattern", "name"]`` those of the probes of a name.
    """

    def __init__(self, model: Keeper, index: SnapshotIndex, lazy: bool) -> None:
        self._model, self._snapshot = model, _SnapshotHold()
        self._entries: dict[Key, Recording] = {}
        self._silent = {(p if n is None else (p, n)): why for (p, n), why in index.silent.items()}
        for (point, name), attributes in index.contexts.items():
            ref = RecordingRef(index.snapshot, point, name)
            key: Key = point if name is None else (point, name)
            ref_of = (point, name)
            said = index.adapters.get(ref_of, ()), index.certificates.get(ref_of, "")
            self._entries[key] = Recording(model, ref, attributes, lazy, self._snapshot, *said)
        weakref.finalize(self._snapshot, model._released.append, index.snapshot).atexit = False

    def __getitem__(self, key: Key) -> Any:
        if key in self._entries:
            return self._entries[key]
        point, name = _parted(key)
        addresses = self._model.catalog.select(point)  # says so where the name itself is wrong
        if is_pattern(point):
            keys: list[Key] = [a.name if name is None else (a.name, name) for a in addresses]
            found = {each: self._entries[each] for each in keys if each in self._entries}
            if found:
                return self._part(found)
        known = ", ".join(str(k) for k in list(self._entries)[:8]) or "nothing"
        why = self._silent.get(key, "")
        raise NoRecording(f"Nothing is recorded at {key}. {why}".rstrip(), f"Recorded: {known}.")

    def _part(self, entries: dict[Key, Recording]) -> Recordings:
        """Some of the recordings of the same snapshot."""
        part = copy.copy(self)
        part._entries = entries
        return part

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, key: Any, default: Any = None) -> Any:
        """As of a dictionary: `default` where nothing is recorded."""
        return self._entries.get(key, default)

    def stack(self, pattern: str, attribute: str = "tensor", name: str | None = None) -> Tensor:
        """What was saved at all points of a pattern as one tensor, fetched in one go.

        Args:
            pattern: of points, such as ``layers.*.attn.pattern``.
            attribute: under which name it was saved there: tensors of one shape, or numbers.
            name: of the probes that saved it, where they have one.

        Returns:
            [point, …]: its first axis is the points in the order of the forward pass, so that of
            ``layers.*`` it is the layers.

        Raises:
            NoRecording: at one of the points nothing is recorded, or nothing under that name. So the place in the
                stack is always that in the pattern.
            BadRequest: what was saved is of several shapes, or no numbers.
        """
        addresses = [address.name for address in self._model.catalog.select(pattern)]
        keys: list[Key] = [point if name is None else (point, name) for point in addresses]
        missing = [key for key in keys if key not in self._entries]
        if missing:
            few = ", ".join(map(str, missing[:4])) + (", …" if len(missing) > 4 else "")
            raise NoRecording(
                f"Of the {len(keys)} points of {pattern} nothing is recorded at {len(missing)}: {few}.",
                "Say those that have a recording, such as layers.{0,2}.mlp.out or layers.0-3.mlp.out.",
            )
        handles = [Recording.handle(self._entries[key], attribute) for key in keys]
        values = self._model.fetch(*handles)
        return _stacked(keys, attribute, [values] if len(handles) == 1 else values)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def _ipython_key_completions_(self) -> list[Key]:
        return list(self._entries)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {entry!r}" for entry in self._entries.values())
        count = "1 recording" if len(self) == 1 else f"{len(self)} recordings"
        return f"<{count}>\n{rows}".rstrip()

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self)


def _parted(key: Any) -> tuple[str, str | None]:
    """A key as (point or pattern, name of the probe or None).

    Raises:
        BadRequest: it is no key.
    """
    match key:
        case str():
            return key, None
        case (str() as point, str() | None as name):
            return point, name
    raise BadRequest(
        f"{key!r} is no key of recordings.", "Give a point, or (point, name of the probe)."
    )


def _stacked(keys: list[Key], attribute: str, values: list[Any]) -> Tensor:
    """Values of one shape as one tensor, [key, …]."""
    import torch

    tensors = []
    for key, value in zip(keys, values, strict=True):
        try:
            tensors.append(torch.as_tensor(value))
        except (TypeError, ValueError, RuntimeError):
            raise BadRequest(
                f"{attribute!r} at {key} is a {type(value).__name__}, which cannot be stacked.",
                "Stack tensors or numbers; recordings()[pattern] has everything else.",
            ) from None
        if tensors[-1].shape != tensors[0].shape:
            raise BadRequest(
                f"{attribute!r} is {list(tensors[-1].shape)} at {key} and {list(tensors[0].shape)} at {keys[0]}.",
                "Stack points of one shape; recordings()[pattern] has them one by one.",
            )
    return torch.stack(tensors)
