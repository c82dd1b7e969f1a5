"""What the user composes: points, and probes on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter import imported
from garcon_jupyter.client import display_hooks, shipping
from garcon_jupyter.client.function_checks import check_call, hint_at_lost_edit
from garcon_jupyter.errors import BadProbe, BadRequest
from garcon_jupyter.points import Address, Catalog, PointSpec, is_pattern
from garcon_jupyter.wire.requests import Code, ProbeSpec, RecordingRef

if TYPE_CHECKING:
    from garcon_jupyter.client.recordings import Recording
    from garcon_jupyter.recorders import Recorder

MERGE_RULES = ("cat", "sum", "topk")

ProbeFunction = Callable[..., Any]
"""``fn(save_ctx, tensor) -> tensor | None``: None keeps the value, as in PyTorch's hooks."""


class Probe:
    """A function on a point, ready to be used in any number of requests.

    Its free variables are captured when it is made: changing them afterwards changes nothing.

    Attributes:
        spec: the probe as it travels: its point, its shipped function and its options.

    Examples:
        A point makes one of a function, which runs when a pass gets there.

        >>> def quieter(save_ctx, tensor):
        ...     save_ctx.norm = tensor.norm(dim=-1)  # kept: [b, p]
        ...     return tensor * factor  # what the model goes on with

        >>> factor = 0.5
        >>> probe = rmodel.probe_points["layers.4.mlp.out"].probe(quieter)
        >>> probe
        <probe quieter at layers.4.mlp.out; captures factor (... bytes)>
        >>> factor = 0.0  # too late to change this probe
        >>> tokens = rmodel.encode("The capital of France is")
        >>> changed = rmodel.forward(tokens, probes=[probe])
        >>> clean = rmodel.forward(tokens, probes=[])
        >>> bool((changed - clean).abs().max() > 0.1)
        True
        >>> rmodel.recordings()["layers.4.mlp.out"].norm.shape
        torch.Size([1, 5])
    """

    def __init__(self, spec: ProbeSpec) -> None:
        self.spec = spec

    @property
    def point(self) -> str:
        """Name of the point."""
        return self.spec.point

    @property
    def name(self) -> str | None:
        """Name of its own save context; None where it shares that of the point."""
        return self.spec.name

    def __repr__(self) -> str:
        spec = self.spec
        words = [word for word in ("grad", "sharded", "read_only") if getattr(spec, word)]
        if spec.name:
            words.append(f"name={spec.name!r}")
        captured = ", ".join(f"{name} ({size:,} bytes)" for name, size in spec.code.captured)
        return (
            f"<probe {spec.code.name} at {spec.point}"
            f"{' [' + ', '.join(words) + ']' if words else ''}"
            f"{'; captures ' + captured if captured else ''}>"
        )


class ProbePoint:
    """One point of the model, or several by a pattern.

    Attributes:
        name: its address, or the pattern.
        addresses: the points that it selects.
    """

    def __init__(self, catalog: Catalog, name: str) -> None:
        self._catalog = catalog
        self.name = name
        self.addresses: list[Address] = catalog.select(name)

    @property
    def shape(self) -> tuple[str | int, ...]:
        """Shape, with letters (b, p, n) where it depends on the tokens."""
        return self._catalog.shape(self.addresses[0])

    @property
    def what(self) -> str:
        """What the tensor is."""
        spec = self.addresses[0].spec
        return spec.what if spec else "a module's own tensor"

    @property
    def where(self) -> str:
        """Where in the model's modules it is and how it is computed there, in words."""
        return self._catalog.place(self.addresses[0])

    def probe(
        self,
        fn: ProbeFunction,
        grad: bool = False,
        sharded: bool = False,
        merge: str | ProbeFunction | None = None,
        read_only: bool = False,
        name: str | None = None,
        params: Sequence[str] = (),
        source: Recording | None = None,
    ) -> Probe:
        """A probe: `fn(save_ctx, tensor)` runs when the forward pass reaches the point.

        Args:
            fn: sees the whole tensor, of the point's shape; saves what it wants in `save_ctx`; returns a
                tensor to replace it, or None. A change in place edits it too. Or a recorder
                (:mod:`garcon_jupyter.recorders`), which never edits, runs on the shards where it can, and
                merges them by its own rule.
            grad: run in the backward pass instead, on the gradient at the point.
            sharded: run on every rank that holds a shard, on its shard; ``save_ctx.shard`` says which.
            merge: how what sharded probes saved becomes one: "cat" (along the sharded dimension), "sum",
                "topk", or a function of the list of parts.
            read_only: a promise not to change the tensor, which saves the ranks a word.
            name: a save context of its own, found at ``recordings()[point, name]``.
            params: parameters that the probe is given, whole, in ``save_ctx.params``.
            source: an earlier recording that the probe is given in ``save_ctx.source``, without a trip
                through the client.

        Raises:
            BadProbe: `fn` cannot be shipped, or the options make no sense.
            UnknownParameter: a name in `params`.
        """
        probes = self.probes(fn, grad, sharded, merge, read_only, name, params, source)
        if len(probes) != 1:
            raise BadProbe(
                f"{self.name!r} selects {len(probes)} points.",
                "Use .probes(fn), which makes one probe for each.",
            )
        return probes[0]

    def probes(
        self,
        fn: ProbeFunction,
        grad: bool = False,
        sharded: bool = False,
        merge: str | ProbeFunction | None = None,
        read_only: bool = False,
        name: str | None = None,
        params: Sequence[str] = (),
        source: Recording | None = None,
    ) -> list[Probe]:
        """As :meth:`probe`, one probe for each point that the pattern selects."""
        _check_options(grad=grad, sharded=sharded, read_only=read_only)
        if name is not None and not (isinstance(name, str) and name):
            raise BadProbe(f"name={name!r} is no name.", 'A name is a text, such as name="before".')
        if isinstance(fn, type):
            raise _is_a_class(fn)
        check_call(fn, "probe", "save_ctx", "tensor")
        if recorder := _as_recorder(fn):
            for address in self.addresses:
                if isinstance(address.spec, PointSpec):
                    recorder.check(address.spec.dims, address.name)
            sharded, read_only = recorder.sharded, True
            merge = recorder.merge if sharded else None
            given = (params,) if isinstance(params, str) else tuple(params)
            params = tuple(dict.fromkeys((*given, *recorder.params)))
        if isinstance(merge, str) and merge not in MERGE_RULES:
            raise BadProbe(
                f"There is no merge rule {merge!r}.", f"Use {', '.join(MERGE_RULES)} or a function."
            )
        if merge is not None and not sharded:
            raise BadProbe(
                "merge is for sharded probes.", "Give sharded=True too, or leave it out."
            )
        params = as_names(params, "params")
        for parameter in params:
            self._catalog.parameter(parameter)
        code = shipping.pack(fn)
        hint_at_lost_edit(fn)
        rule: str | Code | None = merge if isinstance(merge, str) or merge is None else None
        if callable(merge):
            check_call(merge, "merge", "parts")
            rule = shipping.pack(merge, "merge rule")
        ref = None if source is None else _recorded(source)
        return [
            Probe(
                ProbeSpec(
                    address.name, code, grad, sharded, rule, read_only, name, tuple(params), ref
                )
            )
            for address in self.addresses
        ]

    def __repr__(self) -> str:
        if is_pattern(self.name):
            return f"<{len(self.addresses)} probe points: {self.name}>"
        shape = ", ".join(map(str, self.shape))
        return f"<probe point {self.name} [{shape}]: {self.what}>"

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self)


def _check_options(**options: Any) -> None:
    for word, value in options.items():
        if not isinstance(value, bool):
            raise BadProbe(f"{word}={value!r} is neither True nor False.", f"Give {word}=True.")


def _is_a_class(kind: type) -> BadProbe:
    module = imported.whole("garcon_jupyter.recorders.base")
    what = "recorder" if module is not None and issubclass(kind, module.Recorder) else "class"
    if what == "recorder":
        return BadProbe(
            f"{kind.__name__} is the class of a recorder, and no recorder yet.",
            f"Make one: probe({kind.__name__}(…)).",
        )
    return BadProbe(
        f"{kind.__name__} is a class: to call it makes an object, and probes nothing.",
        "Give a function, or an object that can be called.",
    )


def _recorded(source: Any) -> RecordingRef:
    ref = getattr(source, "_ref", None)
    if not isinstance(ref, RecordingRef):
        raise BadProbe(
            f"source={source!r} is no recording.", "Give one: source=rmodel.recordings()[name]."
        )
    return ref


def as_names(names: Any, what: str) -> tuple[str, ...]:
    """One name or several, as a user gave them.

    Raises:
        BadRequest: they are none.
    """
    if isinstance(names, str):
        return (names,)
    if isinstance(names, (ProbePoint, Mapping)) or not isinstance(names, Iterable):
        raise BadRequest(
            f"{what}={names!r} is no list of names.", f'Give a list of texts: {what}=["…"].'
        )
    return tuple(names)


def _as_recorder(fn: Any) -> Recorder[Any] | None:
    """A probe that is a recorder; nothing is one before that module was imported."""
    module = imported.whole("garcon_jupyter.recorders.base")
    return fn if module is not None and isinstance(fn, module.Recorder) else None


class ProbePoints(Mapping[str, ProbePoint]):
    """All points of the model by name; patterns select several.

    ``points["layers.4.mlp.post_activation"]``, ``points["layers.*.attn.z"]``, and any module of the model
    as ``points["module:model.layers.4.mlp.output"]``.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._names = catalog.names()

    def __getitem__(self, name: str) -> ProbePoint:
        return ProbePoint(self._catalog, name)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self._catalog.select(name))
        except LookupError:
            return False

    def __iter__(self) -> Iterator[str]:
        yield from self._names
        yield from self._catalog.dictionary_names()

    def __len__(self) -> int:
        return len(self._names) + len(self._catalog.dictionary_names())

    def _ipython_key_completions_(self) -> list[str]:
        self._catalog.dictionaries.renew()
        return list(self)

    def __repr__(self) -> str:
        catalog = self._catalog
        if not catalog.mapped:
            return (
                f"<probe points of {len(catalog.paths)} modules, such as {catalog.a_module()!r}; "
                "%garcon points lists them>"
            )
        return (
            f"<{len(self)} probe points over {catalog.n_layers} layers; %garcon points lists them>"
        )

    def _repr_html_(self) -> str | None:
        return display_hooks.html(self)


def checked(probes: Iterable[Probe]) -> list[Probe]:
    """Probes that a user gave, as a list.

    Raises:
        BadProbe: they are none.
    """
    single = isinstance(probes, (Probe, ProbePoint, str, Mapping))
    if single or not isinstance(probes, Iterable):
        raise BadProbe(f"probes={probes!r} is no list.", _how_to_make_one(probes))
    chosen = list(probes)
    for probe in chosen:
        if not isinstance(probe, Probe):
            raise BadProbe(f"{probe!r} is no probe.", _how_to_make_one(probe))
    return chosen


def _how_to_make_one(given: Any) -> str:
    """What would be a probe in place of what was given."""
    if isinstance(given, Probe):
        return "Give a list of probes: probes=[probe]."
    if isinstance(given, (list, tuple)):
        return "Put all probes into one list: [*some, *others]."
    point = given.name if isinstance(given, ProbePoint) else given
    name = repr(point) if isinstance(point, str) else "name"
    function = getattr(given, "__name__", "function") if callable(given) else "function"
    return f"A point with a function makes one: probes=[rmodel.probe_points[{name}].probe({function})]."
