"""What has effects: latents, heads and neurons, each a place of a point, and where what they write enters the residual stream.

The latents of a cross-layer transcoder are a writer for each layer that it reads: what they write enters the stream there and at every
later layer. A crosscoder's are one: what a pass can still change of them is what they write at the last of its points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.experiments.clean_passes import need
from garcon_jupyter.points import DictionaryPoints, fill
from garcon_jupyter.points.dictionary_points import CROSS_LAYER

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

HEADS, NEURONS = "heads", "neurons"

_STREAM = ("resid_pre", "resid_mid", "resid_post")
_ADDED = ("attn.contribution", "mlp.contribution", "mixer.contribution")
_OUTPUTS = ("attn.out", "mlp.out")
_INSIDE = {"attn.z": "attn.out", "mlp.post_activation": "mlp.out"}
"""Points from which a linear map leads to the output of their half."""


@dataclass(frozen=True)
class UnitWriter:
    """The latents of a dictionary, or the heads or neurons of a layer.

    Attributes:
        kind: "latents", "heads" or "neurons".
        point: of their activations, [b, p, unit, …].
        layer: None at a point of no layer.
        label: what stands before the number of one: the dictionary's name, that and its layer ("clt@3 "), or "head 3.".
        entry: the point whose value is theirs, and at which a gradient says what a change of it does: the dictionary's
            reconstruction, or the output of the half that they are in.
        stream: of which point of the stream, or of a half's output, that is; "" where it enters neither.
        weight: the parameter by which they write; "" for dictionaries, which have their own.
        dictionary: whose latents they are; "" for others.
        host: the point that the dictionary reads there; "" for others.
        error: the point of what a dictionary's latents do not say; "" for others.
        rebuilt: the reconstructions that a dictionary's latents are in: that of their own layer first, and of later ones that they write.
    """

    kind: str
    point: str
    layer: int | None
    label: str
    entry: str
    stream: str
    weight: str = ""
    dictionary: str = ""
    host: str = ""
    error: str = ""
    rebuilt: tuple[str, ...] = ()


def writers_of(rmodel: Client, of: str | Sequence[str]) -> list[UnitWriter]:
    """The writers that were named: dictionaries, "heads", "neurons".

    Raises:
        UnknownName: there is no dictionary of that name.
        PointUnavailable: the model has no heads, or no neurons, that are points.
        BadRequest: none was named, or one twice.
    """
    names = [of] if isinstance(of, str) else list(of)
    if not names or len(set(names)) != len(names):
        raise BadRequest(
            f"of={of!r} names {'nothing' if not names else 'something twice'}.",
            'Give names of dictionaries, "heads" or "neurons", each once.',
        )
    return [writer for name in names for writer in _named(rmodel, name)]


def _named(rmodel: Client, name: str) -> list[UnitWriter]:
    there = rmodel.catalog.dictionaries
    if name in there:
        return _of_dictionary(rmodel, there[name])
    if name == HEADS:
        return _of_layers(rmodel, HEADS, "attn.z", "attn.out", "attn.o_proj", "head")
    if name == NEURONS:
        last = "mlp.post_activation_normed"
        if f"layers.{{i}}.{last}" in rmodel.catalog.refused:
            last = "mlp.post_activation"
        return _of_layers(rmodel, NEURONS, last, "mlp.out", "mlp.down_proj", "neuron")
    raise UnknownName.among(
        "dictionary",
        name,
        [*there, HEADS, NEURONS],
        'Load one with rmodel.dictionaries.load(PATH), or give of="heads" or of="neurons".',
    )


def _of_layers(
    rmodel: Client, kind: str, point: str, out: str, weight: str, label: str
) -> list[UnitWriter]:
    template = f"layers.{{i}}.{point}"
    need(rmodel, f"A table of {kind}", template, f"layers.{{i}}.{out}")
    made = []
    for layer in rmodel.catalog.layers.get(template, ()):
        entry, parameter = (fill(f"layers.{{i}}.{part}", layer) for part in (out, weight))
        made.append(
            UnitWriter(
                kind, fill(template, layer), layer, f"{label} {layer}.", entry, entry, parameter
            )
        )
    return made


def _of_dictionary(rmodel: Client, points: DictionaryPoints) -> list[UnitWriter]:
    if points.kind != CROSS_LAYER:
        return [_of_latents(rmodel, points, points.ends[-1:], f"{points.name} ")]
    layers = [rmodel.catalog.point(host).layer for host in points.hosts]
    return [
        _of_latents(rmodel, points, points.ends[number:], f"{points.name}@{layer} ")
        for number, layer in enumerate(layers)
    ]


def _of_latents(
    rmodel: Client, points: DictionaryPoints, ends: Sequence[tuple[str, str]], label: str
) -> UnitWriter:
    """Those that are read at the first of some ends, and write into all of them."""
    host, writes = ends[0]
    address = rmodel.catalog.point(writes)
    where = writes.split(".", 2)[-1] if address.layer is not None else writes
    entry, stream = points.point("reconstruction", host), ""
    if where in (*_STREAM, *_ADDED, *_OUTPUTS):
        stream = writes
    elif where in _INSIDE:  # a gradient at the output of the half comes back through its projection
        entry = stream = f"layers.{address.layer}.{_INSIDE[where]}"
    return UnitWriter(
        "latents",
        points.point("latents", host),
        address.layer,
        label,
        entry,
        stream,
        dictionary=points.name,
        host=host,
        error=points.point("error", host),
        rebuilt=tuple(points.point("reconstruction", reads) for reads, _ in ends),
    )


def is_output(point: str) -> bool:
    """Whether a point is what a half puts out, before what the model does with it on the way to the stream."""
    return point.endswith(_OUTPUTS)
