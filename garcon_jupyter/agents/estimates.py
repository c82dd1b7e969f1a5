"""What a request costs, before it is run: passes of the model, tokens that go through it, bytes of numbers that come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.operations.edits import PointEdit
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.prompts import Prompts, read
from garcon_jupyter.operations.readings import places, sides

CONTROL_UNITS = 8
"""Random units that effects are held against."""

SCORED_LENGTH = 48
"""Tokens of a text that heads are scored on: twice the longest period."""

INTEGRATED = 5
"""Runs between two texts, of integrated gradients."""


@dataclass(frozen=True)
class Estimate:
    """What a request takes.

    Attributes:
        passes: forward passes of a text; a backward pass counts as two.
        tokens: that go through the model, in all passes together.
        bytes: of the numbers that come out, at most.
    """

    passes: int = 0
    tokens: int = 0
    bytes: int = 0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.passes + other.passes, self.tokens + other.tokens, self.bytes + other.bytes
        )

    def told(self) -> dict[str, int]:
        """As plain data."""
        return {"passes": self.passes, "tokens": self.tokens, "bytes": self.bytes}


def estimate(at: Door, name: str, asked: Any, control: bool) -> Estimate:
    """What an operation takes.

    Args:
        control: whether it is also run as a control.

    Raises:
        GarconError: the request names what the model lacks, as when it is run.
    """
    own = ESTIMATES[name](at, asked)
    return own + CONTROLLED[name](at, asked, own) if control and name in CONTROLLED else own


def _nothing(at: Door, asked: Any) -> Estimate:
    return Estimate()


def _size(at: Door, prompts: Prompts) -> tuple[int, int]:
    """Texts, and positions of the longest."""
    rows, length = read(at, prompts).shape
    return int(rows), int(length)


def _numbers(at: Door, point: str, rows: int, length: int) -> int:
    """Numbers of all points of a pattern, in texts of so many positions."""
    shapes = [at.model.catalog.shape(address) for address in at.model.catalog.select(point)]
    sizes = {"b": rows, "p": length, "p_q": length, "p_k": length, "n": length}
    return sum(
        math.prod(size if isinstance(size, int) else sizes.get(size, 1) for size in shape)
        for shape in shapes
    )


def _forward(at: Door, asked: Any) -> Estimate:
    rows, length = _size(at, asked.prompts)
    passes, made = _passes_of_edits(asked.edits, rows), 0
    for one in asked.reads:
        numbers = _numbers(at, one.point, rows, length)
        made += numbers if one.reduce in ("none", "norm") else numbers // max(1, length)
        if one.reduce == "none":
            made -= _left_out(at, one, rows, length)
    vocabulary = at.model.catalog.sizes["V"]
    made += {"none": 0, "last": rows, "all": rows * length}[asked.logits] * vocabulary
    return Estimate(passes, passes * length, 4 * made)


def _left_out(at: Door, one: Any, rows: int, length: int) -> int:
    """Numbers of a read that positions and units leave out."""
    gone = 0
    for address in at.model.catalog.select(one.point):
        whole = _numbers(at, address.name, rows, length)
        _, position, unit = sides(address)
        shape = at.model.catalog.shape(address)
        share = 1.0
        if one.positions is not None and position is not None:
            share *= len(places(address.name, "positions", one.positions, length) or ()) / length
        if one.units is not None and unit is not None and isinstance(size := shape[unit], int):
            share *= len(places(address.name, "units", one.units, size) or ()) / size
        gone += whole - math.ceil(whole * share)
    return gone


def _passes_of_edits(edits: Sequence[PointEdit], rows: int) -> int:
    """The run itself, and one of each text that is patched from."""
    return rows * (1 + sum(edit.prompts is not None for edit in edits))


def _attention(at: Door, asked: Any) -> Estimate:
    _, length = _size(at, asked.prompt)
    heads = at.model.catalog.sizes.get("H", 1) if asked.heads is None else len(asked.heads)
    return Estimate(1, length, 4 * len(asked.layers) * heads * length * length)


def _generate(at: Door, asked: Any) -> Estimate:
    rows, length = _size(at, asked.prompts)
    new = asked.max_new_tokens
    return Estimate(rows * (1 + new), rows * (length + new), 8 * rows * (length + new))


def _backward(at: Door, asked: Any) -> Estimate:
    _, length = _size(at, asked.prompt)
    passes = _passes_of_edits(asked.edits, 1) + 2
    made = 3 * sum(_numbers(at, point, 1, length) for point in asked.points)
    return Estimate(passes, passes * length, 4 * made)


def _lens(at: Door, asked: Any) -> Estimate:
    _, length = _size(at, asked.prompt)
    return Estimate(1, length, 24 * at.model.catalog.n_layers * length * asked.choices)


def _direct(at: Door, asked: Any) -> Estimate:
    _, length = _size(at, asked.prompt)
    sizes, layers = at.model.catalog.sizes, at.model.catalog.n_layers
    parts = {
        "neuron": layers * sizes.get("M", 1),
        "head": layers * sizes.get("H", 1),
        "position": layers * length,
    }
    return Estimate(1, length, 16 * parts.get(asked.by, 3 * layers))


def _effects(at: Door, asked: Any) -> Estimate:
    _, length = _size(at, asked.prompt)
    passes = 2 + 2 * 2 + asked.strongest
    return Estimate(passes, passes * length, 8 * 5 * asked.strongest * length)


def _head_scores(at: Door, asked: Any) -> Estimate:
    heads = at.model.catalog.n_layers * at.model.catalog.sizes.get("H", 1)
    passes = 2 * asked.rows
    return Estimate(passes, passes * SCORED_LENGTH, 4 * 6 * heads + 8 * passes * SCORED_LENGTH)


def _cells(at: Door, points: Sequence[str], asked: Any, length: int) -> int:
    """Cells of a sweep: the places of all its axes."""
    count = 0
    sizes = at.model.catalog.sizes
    for pattern in points:
        found = at.model.catalog.select(pattern)
        units = getattr(asked, "units", None)
        unit = len(units) if units else (at.model.catalog.shape(found[0])[-1] if found else 1)
        of = {
            "layer": len(found),
            "position": length,
            "head": sizes.get("H", 1),
            "kv_head": sizes.get("K", sizes.get("H", 1)),
            "unit": unit if isinstance(unit, int) else 1,
        }
        count += math.prod(of[axis] for axis in asked.by)
    return count


def _patch(at: Door, asked: Any) -> Estimate:
    _, length = _size(at, asked.clean)
    passes = 2 + _cells(at, asked.points, asked, length)
    return Estimate(passes, passes * length, 8 * passes)


def _attribute(at: Door, asked: Any) -> Estimate:
    _, length = _size(at, asked.clean)
    runs = {"mean": 2, "integrated": INTEGRATED}.get(asked.method, 1)
    passes = 2 + 3 * runs + asked.check
    return Estimate(passes, passes * length, 8 * _cells(at, [asked.points], asked, length))


def _parameter(at: Door, asked: Any) -> Estimate:
    shape = at.model.catalog.shape(at.model.catalog.parameter(asked.name))
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    for axis, chosen in enumerate((asked.rows, asked.columns)):
        if chosen is not None and axis < len(sizes):
            sizes[axis] = len(chosen)
    return Estimate(bytes=4 * math.prod(sizes))


ESTIMATES: dict[str, Callable[[Door, Any], Estimate]] = {
    **dict.fromkeys(
        ("describe", "points", "status", "tokenize", "detokenize", "chat", "jobs", "steer"),
        _nothing,
    ),
    **dict.fromkeys(("atlases", "unit", "search", "explanations"), _nothing),
    "parameter": _parameter,
    "forward": _forward,
    "attention": _attention,
    "generate": _generate,
    "backward": _backward,
    "lens": _lens,
    "direct_logit_attribution": _direct,
    "effects": _effects,
    "head_scores": _head_scores,
    "patch": _patch,
    "attribute": _attribute,
}
"""What each operation takes; a test holds it against the table of operations."""


def _random_units(at: Door, asked: Any, own: Estimate) -> Estimate:
    _, length = _size(at, asked.prompt)
    return Estimate(CONTROL_UNITS + 1, (CONTROL_UNITS + 1) * length)


def _again(at: Door, asked: Any, own: Estimate) -> Estimate:
    return own


CONTROLLED: dict[str, Callable[[Door, Any, Estimate], Estimate]] = {
    "effects": _random_units,
    "patch": _again,
    "attribute": _again,
}
"""What a control takes beside, of the operations that have one."""
