"""Path patching: what a sender tells a receiver directly.

Patching a head changes all that comes after it, by whatever way. Path patching (Wang et al. 2022; Goldowsky-Dill et al. 2023) lets
one way through: the sender is given its other value, all attention and MLPs between are held at what they add in the run, so that
the change reaches the receiver by the residual stream alone; and of the receiver just what it then reads is put into the run.

    experiments.path_patch(rmodel, clean, corrupted, "layers.*.attn.z", {"layers.23.attn.v": [1]}, by=("layer", "head"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest, PointUnavailable
from garcon_jupyter.experiments.activation_patching.grid import (
    ALL,
    CellLayout,
    Grid,
    GridCell,
)
from garcon_jupyter.experiments.activation_patching.measures import Measure
from garcon_jupyter.experiments.activation_patching.pairs import Pairs
from garcon_jupyter.experiments.activation_patching.requests import (
    ITS_TEXT,
    ROW_BEFORE,
    SOURCES,
    Patch,
)
from garcon_jupyter.experiments.activation_patching.results import (
    TOKENS,
    check_options,
    swept,
)
from garcon_jupyter.experiments.point_shapes import PointShape
from garcon_jupyter.points import Address

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.result import ExperimentResult

LOGITS = "logits"


def path_patch(
    rmodel: Client,
    clean: Any,
    corrupted: Any,
    senders: str | Sequence[str],
    receivers: str | Sequence[str] | Mapping[str, Sequence[int] | None] = LOGITS,
    by: str | Sequence[str] = ("layer", "head"),
    answers: Any = None,
    metric: Callable[[Any], Any] | None = None,
    *,
    denoise: bool = True,
    units: Sequence[int] | None = None,
    tokens: int = TOKENS,
    progress: bool = True,
) -> ExperimentResult:
    """Patch the direct paths from every sender to receivers.

    Each cell is two rows of a batch. In the first the sender has the value of the other run, and whatever adds to the residual
    stream between it and the receivers adds what it adds in the run that is patched. In the second nothing but the receivers is
    changed: they have the values that they have in the first. All receivers are patched at once.

    Args:
        clean, corrupted, answers, metric, units, tokens, progress: as for :func:`patch`.
        senders: points that a layer writes, such as "layers.*.attn.z" or "layers.*.mlp.post_activation".
        receivers: points that a layer reads: "layers.18.resid_pre", "layers.18.attn.q", "layers.20.mlp.in"; or the "logits",
            for what a sender says to the final norm directly. Of points with heads, by a mapping, which: ``{"layers.18.attn.q": [6]}``.
            Of keys and values that several heads share the numbers are those of the shared ones, as these are what reads.
        by: as for :func:`patch`; one of them is "layer".
        denoise: the corrupted run is patched with what the clean one sends; False is the other way.

    Returns:
        As :func:`patch`; NaN where a sender comes after all receivers.

    Raises:
        BadRequest, UnknownPoint, PointUnavailable, DoesNotFit: as :func:`patch`; also where `by` has no "layer", or there is no such
            head; or the model's layers do not add to one residual stream.

    Examples:
        What head 23.3 says to the logits directly, and not by way of later layers:

        >>> clean = "When John and Mary went to the shops, John gave the bag to"
        >>> corrupted = "When John and Mary went to the shops, Mary gave the bag to"
        >>> found = experiments.path_patch(
        ...     rmodel, clean, corrupted, "layers.23.attn.z", answers=(" Mary", " John")
        ... )
        >>> found.strongest(1)
        [({'layer': 23, 'head': 3}, 0.57...)]
    """
    pairs = Pairs.of(rmodel, clean, corrupted)
    check_options("patch", tokens)
    grid = Grid.of(rmodel, senders, by, max(pairs.lengths), units)
    if "layer" not in grid.by:
        raise BadRequest(
            f"by={by!r} has senders of several layers in a cell, which send to one another.",
            'Let "layer" be one of by.',
        )
    paths = Paths.of(rmodel, receivers)
    if not any(paths.rows(grid, cell) for cell in grid.cells(max(pairs.lengths))):
        raise BadRequest(
            f"No receiver of {', '.join(paths.told)} comes after a sender of {', '.join(grid.patterns)}.",
            "Give receivers of later layers.",
        )
    return swept(
        "path_patch",
        *(rmodel, pairs, grid, Measure.of(rmodel, pairs, answers, metric)),
        {"receivers": paths.told, "denoise": bool(denoise)},
        denoise=bool(denoise),
        rows=paths.rows,
        tokens=tokens,
        progress=progress,
    )


@dataclass(frozen=True)
class Paths:
    """The direct paths to some receivers.

    Attributes:
        receivers: each point, with the places that are patched.
        order: number of each point in the order of the forward pass.
        contributions: all that add to the residual stream, in that order.
        told: the receivers, as plain data.
    """

    receivers: tuple[tuple[str, tuple[tuple[int, ...], ...]], ...]
    order: Mapping[str, int]
    contributions: tuple[Address, ...]
    told: dict[str, list[int] | None]

    @classmethod
    def of(cls, rmodel: Client, receivers: Any) -> Paths:
        """The paths to receivers, as the caller says them.

        Raises:
            BadRequest: there is no such head.
            UnknownPoint, PointUnavailable: the model has no such point, or layers that add to no single stream.
        """
        catalog = rmodel.catalog
        streams = "layers.{i}.altup.streams_pre"
        if not catalog.mapped or streams not in catalog.refused:
            raise PointUnavailable(
                "Paths lead through one residual stream, to which layers add; this model has several, or is not mapped.",
                "experiments.patch works on any point.",
            )
        named = {receivers: None} if isinstance(receivers, str) else receivers
        if not isinstance(named, Mapping):
            named = dict.fromkeys(named)
        order = {name: number for number, name in enumerate(catalog.names())}
        places: dict[str, tuple[tuple[int, ...], ...]] = {}
        for pattern, heads in named.items():
            for address in [] if pattern == LOGITS else catalog.select(pattern):
                places[address.name] = _places(PointShape.of(rmodel, address), heads)
        adding = tuple(catalog.point(name) for name in order if name.endswith(".contribution"))
        told = {pattern: None if heads is None else list(heads) for pattern, heads in named.items()}
        if LOGITS in named and len(named) > 1:
            raise BadRequest(
                "What is sent to the logits is all that is sent.",
                "Give other receivers without them.",
            )
        return cls(tuple(places.items()), order, adding, told)

    def rows(self, grid: CellLayout, cell: GridCell) -> list[list[Patch]]:
        """The rows of a sender's cell; none where no receiver comes after it."""
        senders = [(grid.names[point], place) for point, place in cell.places]
        last = max(self.order[name] for name, _ in senders)
        reached = [(name, places) for name, places in self.receivers if self.order[name] > last]
        if self.receivers and not reached:
            return []
        until = max((self.order[name] for name, _ in reached), default=len(self.order))
        own = {_component(name) for name, _ in senders}
        held = [
            address.name
            for address in self.contributions
            if last < self.order[address.name] < until and _component(address.name) not in own
        ]
        sending: list[Patch] = [(name, SOURCES, place) for name, place in senders]
        sending += [(name, ITS_TEXT, (ALL, ALL, ALL)) for name in held]
        if not self.receivers:
            return [sending]
        return [sending, [(name, ROW_BEFORE, at) for name, places in reached for at in places]]


def _places(shape: PointShape, heads: Sequence[int] | None) -> tuple[tuple[int, ...], ...]:
    if heads is None:
        return ((ALL, ALL, ALL),)
    dim = shape.along("kv_head" if shape.shared else "head")
    size = shape.sizes[dim]
    if not heads or not all(
        isinstance(head, int) and 0 <= head < (size or head + 1) for head in heads
    ):
        raise BadRequest(
            f"{shape.point} has no heads {list(heads)}: it has {size}.", "Count from 0."
        )
    return tuple(tuple(head if at == dim else ALL for at in (1, 2, 3)) for head in heads)


def _component(name: str) -> str:
    """The part of a layer that a point is in: ``layers.4.attn.z`` is in ``layers.4.attn``."""
    return ".".join(name.split(".")[:3])
