"""From a point to a picture: which saved tensor, which axes, whose tokens.

The pictures themselves (:mod:`garcon_jupyter.widgets`) take plain arrays; what a point's axes mean is
read from the table of probe points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter import widgets
from garcon_jupyter.client.look import Look
from garcon_jupyter.client.probes import ProbePoint
from garcon_jupyter.client.recordings import Handle, Key, Recording, Recordings
from garcon_jupyter.display.attention import attention_picture, recorded_attention
from garcon_jupyter.display.frames import RecordedSource, may_stay
from garcon_jupyter.errors import BadRequest, GarconError, NoRecording
from garcon_jupyter.experiments.attention import PATTERN
from garcon_jupyter.experiments.clean_passes import contexts, keep
from garcon_jupyter.points import Address, Catalog, fill
from garcon_jupyter.widgets import AttentionWidget, View

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

Shown = Key | ProbePoint | Recording | Handle | Any
"""What a picture can be made of: a point, what was recorded at one, or an array of your own."""

EVERY_PATTERN = "layers.*.attn.pattern"
"""The one pattern of points that is one picture: the attention of all layers."""


def show(
    rmodel: Client,
    what: Shown,
    text: Any = None,
    attribute: str | None = None,
    rows: widgets.view.Axis | None = None,
    columns: widgets.view.Axis | None = None,
    title: str = "",
) -> View | AttentionWidget:
    """A picture of a point: what was recorded there, or, with `text`, of a clean pass over it.

    Args:
        what: the point, by name; (name, name of the probe) of a named probe's recording; or a point, a
            recording, or a handle itself. "layers.*.attn.pattern" is all layers at a glance. Or an array of
            your own, whose axes `rows` and `columns` name.
        text: tokens or text to run without any other probe; None to show the recording.
        attribute: which saved tensor; by default the first of the point's shape, else the first.
        rows, columns, title: of an array; see :func:`garcon_jupyter.widgets.show`.

    Raises:
        UnknownPoint: no such point.
        NoRecording: nothing is recorded there, or nothing that can be drawn.
        BadRequest: it is nothing that can be drawn, or the options do not go with it.
    """
    if _is_array(what):
        if text is not None or attribute is not None:
            raise BadRequest(
                "An array is drawn as it is: text and attribute are for points.",
                'Say what its axes are: show(array, rows="layer", columns="head").',
            )
        return widgets.show(what, title=title, rows=rows, columns=columns)
    if rows is not None or columns is not None or title:
        raise BadRequest(
            "rows, columns and title are of an array; what a point's axes mean is known.",
            "Leave them out, or give an array.",
        )
    if isinstance(what, Handle):
        return _of_handle(rmodel, what)
    if isinstance(what, Recording):
        return _of_recording(rmodel, what, attribute)
    point = what.name if isinstance(what, ProbePoint) else what
    if not isinstance(point, (str, tuple)):
        raise BadRequest(
            f"{what!r:.60} cannot be shown.",
            "Give the name of a point, a recording, a handle, or an array of numbers.",
        )
    if point == EVERY_PATTERN and rmodel.catalog.n_layers > 1:
        return _every_layer(rmodel, text, attribute)
    name = _one_point(rmodel.catalog, point)
    if text is not None:
        return _clean(rmodel, name, text)
    recordings = rmodel.recordings(fetch=False)
    return _of_recording(rmodel, recordings[_recorded(recordings, point, name)], attribute)


def _is_array(what: Any) -> bool:
    """Whether something is an array itself: a tensor, of numpy, or lists of numbers."""
    if isinstance(what, (Handle, Recording, ProbePoint, str)):
        return False
    return hasattr(what, "shape") or isinstance(what, list)


def show_values(rmodel: Client, point: str, value: Any, tokens: Any) -> View:
    """A picture of values of a point that are here already.

    Args:
        point: name of the point: what the axes mean.
        value: of the point's shape, or without its batch axis; of another, its last axes are drawn.
        tokens: what the pass read: Tokens, ids or a text; None for numbered positions.
    """
    return _picture(rmodel, point, value, tokens, point)


def show_look(look: Look, point: str) -> View:
    """A picture of a point of a context that is looked at."""
    return show_values(look._model, point, look[point], look.tokens)


def _of_recording(rmodel: Client, recording: Recording, attribute: str | None) -> View:
    """A picture of one of the tensors that were saved at a point."""
    chosen = attribute or _drawable(rmodel.catalog, recording._ref.point, recording)
    return _of_handle(rmodel, Recording.handle(recording, chosen))


def _of_handle(rmodel: Client, handle: Handle) -> View:
    """A picture of a value on the server; of one that is cut there, after it was."""
    ref, attribute = handle._ref, handle._attribute
    title = ref.point if attribute == "tensor" else f"{ref.point} · {attribute}"
    tokens = rmodel.tokens_at.get((ref.point, ref.name))
    if handle._steps:
        return _picture(rmodel, ref.point, handle.fetch(), tokens, f"{title}, cut")
    return _whole(rmodel, handle, tokens, title)


def _every_layer(rmodel: Client, text: Any, attribute: str | None) -> AttentionWidget:
    """The attention of all layers at a glance: of a text, or of what was recorded."""
    if text is not None:
        return attention_picture(rmodel, text)
    recordings = rmodel.recordings(fetch=False)
    first = fill(PATTERN, 0)
    chosen = attribute or _drawable(rmodel.catalog, first, recordings[first])
    return recorded_attention(rmodel, recordings, chosen)


def _clean(rmodel: Client, point: str, text: Any) -> View:
    """A picture of a clean pass over a text."""
    tokens = rmodel._tokens(text)
    with contexts(rmodel, "show") as name:
        probes = [rmodel.probe_points[point].probe(keep, name=name, read_only=True)]
        rmodel.forward(tokens, probes=probes, logits="none")
        recording = rmodel.recordings(fetch=False)[point, name]
        return _whole(rmodel, Recording.handle(recording, "tensor"), tokens, point)


def _whole(rmodel: Client, handle: Handle, tokens: Any, title: str) -> View:
    """A picture of a value on the server: fetched, or, if it is large, looked at where it is."""
    point = handle._ref.point
    dims = _axes(rmodel.catalog, rmodel.catalog.point(point), handle.shape or ())
    if dims is None or not may_stay(handle):
        return _picture(rmodel, point, handle.fetch(), tokens, title)
    labels = _labels(rmodel, tokens, dims, handle)
    unit = widgets.view.UNIT_NAMES.get(dims[2], "unit")
    return widgets.FetchingView(RecordedSource(rmodel, handle), labels, title, unit)


def _picture(rmodel: Client, point: str, value: Any, tokens: Any, title: str) -> View:
    catalog = rmodel.catalog
    dims = _axes(catalog, catalog.point(point), value.shape)
    return widgets.show(value, dims, tokens=_labels(rmodel, tokens, dims, value), title=title)


def _one_point(catalog: Catalog, point: Key) -> str:
    name = point if isinstance(point, str) else point[0]
    addresses = catalog.select(name)
    if len(addresses) > 1:
        raise BadRequest(
            f"{name} selects {len(addresses)} points, and a picture shows one.",
            f"The first of them is {addresses[0].name}.",
        )
    return addresses[0].name


def _recorded(recordings: Recordings, point: Key, name: str) -> Key:
    """The key of the recording to show: that of a named probe where it is the only one."""
    if point in recordings or not isinstance(point, str):
        return point
    named: list[Key] = [key for key in recordings if key[0] == name]
    if len(named) > 1:
        raise BadRequest(
            f"Several named probes have recorded at {name}.",
            f"Say which: {', '.join(map(str, named))}.",
        )
    return named[0] if named else point


def _drawable(catalog: Catalog, point: str, recording: Recording) -> str:
    """The attribute to draw: a tensor of the point's shape, else any tensor."""
    # By way of the class: what was saved may be called `keys` or `handle`.
    names = Recording.keys(recording)
    shapes = {name: Recording.handle(recording, name).shape or () for name in names}
    tensors = [name for name, shape in shapes.items() if shape]
    if not tensors:
        raise NoRecording(
            f"Nothing that was saved at {point} can be drawn: {recording!r}.",
            "save_ctx.tensor = tensor saves the value.",
        )
    address = catalog.point(point)
    fitting = [name for name in tensors if _axes(catalog, address, shapes[name])]
    return (fitting or tensors)[0]


def _axes(catalog: Catalog, address: Address, shape: Sequence[int]) -> tuple[str, ...] | None:
    """The letters of a value's axes, or None where it has not the point's shape."""
    dims = address.spec.dims if address.spec else ()
    for letters in (dims, dims[1:] if dims[:1] == ("b",) else ()):
        sizes = [catalog.size(letter) for letter in letters]
        if letters and len(sizes) == len(shape) and all(map(_fits, sizes, shape)):
            return letters
    return None


def _fits(size: int | None, length: int) -> bool:
    return size in (None, length)


def _labels(
    rmodel: Client, tokens: Any, dims: tuple[str, ...] | None, value: Any
) -> list[list[str]] | None:
    """A text for each position, b lists of p; None where the positions are others."""
    if tokens is None or dims is None or "n" in dims:
        return None
    rows = value.shape[0] if dims[0] == "b" else 1
    length = value.shape[dims.index("p_k" if "p_k" in dims else "p")]
    tokens = rmodel._tokens(tokens)
    if tokens.shape != (rows, length):
        return None
    try:
        return rmodel.token_strings(tokens)
    except GarconError:  # a model without a tokenizer
        return None
