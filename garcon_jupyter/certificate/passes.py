"""The passes of a certificate: what is asked of a served model, by ordinary requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from garcon_jupyter.certificate.probes import Keep, Nudge, PutBack, TextLosses, alike, keep_gradient
from garcon_jupyter.certificate.values import ParameterReader, PointValues, as_double
from garcon_jupyter.client.probes import Probe
from garcon_jupyter.client.recordings import Recording
from garcon_jupyter.errors import GarconError, Interrupted
from garcon_jupyter.experiments.clean_passes import contexts

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Found = TypeVar("Found")

COLUMNS = 512
"""Tokens of the vocabulary whose logits are read."""

Gradients = Mapping[str, Recording]
"""Recordings of gradients, by point."""

SIZE = {"float64": 5e-4, "float32": 5e-4, "float16": 0.03, "bfloat16": 0.1}
"""How far a value is moved for a finite difference, relative to itself, by dtype."""


@dataclass
class Nudged:
    """What became of the values that were moved.

    Attributes:
        values: of all points that were read.
        rows: by point, the row of `values` in which it is moved.
        expected: by point, how much the gradient says that the loss changes; None where there is no gradient.
        found: by point, how much it changed.
    """

    values: PointValues
    rows: dict[str, int]
    expected: dict[str, float | None]
    found: dict[str, float]


class CertificatePasses:
    """What is asked of a model, and what went wrong meanwhile.

    Attributes:
        ids: of the text that is read, int64 [1, p].
        failed: points that could not be probed, and why.
        silent: points that no pass came to, and why.
        parameters: reads the model's.
    """

    def __init__(self, rmodel: Client, ids: Tensor, seed: int = 0) -> None:
        import torch

        self.rmodel, self.ids, self.catalog = rmodel, ids, rmodel.catalog
        self.failed: dict[str, GarconError] = {}
        self.silent: dict[str, str] = {}
        self.parameters = ParameterReader(rmodel.get_parameter, rmodel.catalog, seed)
        vocabulary = rmodel.catalog.sizes.get("V", 0)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(max(1, vocabulary), generator=generator)[:COLUMNS].sort().values
        self._columns = chosen if vocabulary else None
        self.seed = seed

    # -- one text, read ----------------------------------------------------------------------

    def logits(self) -> Tensor:
        """Of a pass without probes, [1, p, V]."""
        found: Tensor = self.rmodel.forward(self.ids, probes=[])
        return found

    def read(self, names: Sequence[str], put_back: bool = False) -> tuple[PointValues, Tensor]:
        """The values of points in one forward, and its logits; without those that cannot be probed.

        Args:
            put_back: put an equal tensor in the place of each.
        """
        keep: Callable[..., Any] = (PutBack if put_back else Keep)(1, self._columns)
        logits: list[Tensor] = []

        def run(some: Sequence[str]) -> PointValues:
            with contexts(self.rmodel, "certify") as label:
                probes = self._probes(some, keep, label, read_only=not put_back)
                logits.append(self.rmodel.forward(self.ids, probes=probes))
                return self._fetched(some, label)

        found = self._in_parts(names, run)
        return self._together(found), logits[-1] if logits else self.logits()

    def turned_alike(self, queries: Sequence[str], rotated: Sequence[str]) -> dict[str, Tensor]:
        """`rotated` where all tokens are given the same query, and the same key."""
        with contexts(self.rmodel, "certify") as label:
            probes = self._probes(queries, alike, label)
            probes += self._probes(rotated, Keep(1), label, read_only=True)
            self.rmodel.forward(self.ids, probes=probes, logits="none")
            return dict(self._fetched([*rotated], label).points)

    # -- gradients and edits -----------------------------------------------------------------

    def nudged(
        self, moved: Sequence[str], read: Sequence[str], size: float, beside: Sequence[str] = ()
    ) -> list[Nudged]:
        """Move each of some points in rows of its own, and read these and others; in parts where some cannot be moved.

        Args:
            moved: points, each of which is moved to either side.
            read: points that are read besides.
            size: how far, relative to the value.
            beside: points whose gradients are looked at in the same backward.
        """
        with contexts(self.rmodel, "certify gradients") as label:
            gradients = self._gradients([*dict.fromkeys((*moved, *beside))], label)

            def run(some: Sequence[str]) -> Nudged:
                return self._nudge(some, read, gradients, size)

            return self._in_parts(moved, run)

    def _gradients(self, names: Sequence[str], label: str) -> Gradients:
        """The recordings of the gradients at points, which stay on the server."""
        wanted = [name for name in names if self.differentiable(name)]

        def run(some: Sequence[str]) -> Sequence[str]:
            probes = self._probes(some, keep_gradient, label, grad=True, read_only=True)
            self.rmodel.backward(self.ids, TextLosses(self.seed, together=True), probes=probes)
            return some

        self._in_parts(wanted, run)
        recordings = self.rmodel.recordings(fetch=False)
        return {name: recordings[name, label] for name in wanted if (name, label) in recordings}

    def _nudge(
        self, moved: Sequence[str], read: Sequence[str], gradients: Gradients, size: float
    ) -> Nudged:
        """Rows of one batch, of which each point has two."""
        rows = {name: (row, row + len(moved)) for row, name in enumerate(moved, 1)}
        batch = self.ids.repeat(2 * len(moved) + 1, 1)
        texts = len(moved) + 1
        values, losses, expected = self._moved(batch, texts, rows, read, gradients, size)
        found = {name: float(losses[plus] - losses[minus]) for name, (plus, minus) in rows.items()}
        found |= {n: float(losses[rows[n][0]] - losses[0]) for n in moved if n not in gradients}
        return Nudged(values, {name: row for name, (row, _) in rows.items()}, expected, found)

    def nudged_alone(self, name: str, read: Sequence[str], size: float) -> Nudged | None:
        """The same of one point whose value is one for all rows, in two passes of one row; None where it fails."""
        with contexts(self.rmodel, "certify gradients") as label:
            gradients = self._gradients([name], label)

            def run(some: Sequence[str]) -> Nudged:
                plus, minus = (
                    self._moved(self.ids, 1, {name: rows}, read, gradients, size)
                    for rows in ((0, None), (None, 0))
                )
                expected = (plus[2][name] or 0.0) + (minus[2][name] or 0.0)
                found = float(plus[1][0] - minus[1][0])
                return Nudged(plus[0], {name: 0}, {name: expected}, {name: found})

            return next(iter(self._in_parts([name], run)), None)

    def _moved(
        self,
        batch: Tensor,
        texts: int,
        rows: Mapping[str, tuple[int | None, int | None]],
        read: Sequence[str],
        gradients: Gradients,
        size: float,
    ) -> tuple[PointValues, Tensor, dict[str, Any]]:
        """(values of the first `texts` rows, the loss of each row, how much it is expected to change by point)."""
        moved, besides = list(rows), [name for name in read if name not in rows]
        with contexts(self.rmodel, "certify edits") as label:
            nudge = Nudge(texts, self._columns, dict(rows), size)
            probes = [
                Probe(replace(probe.spec, source=gradients[probe.point]._ref))
                if probe.point in gradients
                else probe
                for probe in self._probes(moved, nudge, label)
            ]
            probes += self._probes(besides, Keep(texts, self._columns), label, read_only=True)
            losses = self.rmodel.forward(batch, probes=probes, logits=TextLosses(self.seed))
            values = self._fetched([*moved, *besides], label, batch[:texts])
            return values, losses.double().cpu(), self._fetched_attribute(moved, label, "expected")

    def differentiable(self, name: str) -> bool:
        """Whether a point has a gradient."""
        return bool(getattr(self.catalog.point(name).spec, "differentiable", True))

    # -- requests ----------------------------------------------------------------------------

    def _probes(self, names: Sequence[str], fn: Any, label: str, **options: Any) -> list[Probe]:
        """One probe for each point; the function is shipped once."""
        if not names:
            return []
        first = self.rmodel.probe_points[names[0]].probe(fn, name=label, **options)
        return [Probe(replace(first.spec, point=name)) for name in names]

    def _fetched(self, names: Sequence[str], label: str, ids: Tensor | None = None) -> PointValues:
        recordings = self.rmodel.recordings(fetch=False)
        there = [name for name in names if (name, label) in recordings]
        for name in set(names) - set(there):
            self.silent[name] = "the pass did not come to it"
        routed = [name for name in there if self.catalog.point(name).expert is not None]
        handles = [recordings[name, label].handle("tensor") for name in there]
        handles += [recordings[name, label].handle("tokens") for name in routed]
        fetched = self.rmodel.fetch(*handles) if handles else []
        fetched = [fetched] if len(handles) == 1 else fetched
        points = {name: as_double(value) for name, value in zip(there, fetched, strict=False)}
        tokens = dict(zip(routed, fetched[len(there) :], strict=True))
        ids = self.ids if ids is None else ids
        return PointValues(self.catalog, points, self.parameters, ids, tokens, self._columns)

    def _fetched_attribute(
        self, names: Sequence[str], label: str, attribute: str
    ) -> dict[str, Any]:
        """What was saved at points under a name; None where nothing was."""
        recordings = self.rmodel.recordings(fetch=False)
        there = [
            name
            for name in names
            if (name, label) in recordings and attribute in dir(recordings[name, label])
        ]
        values = (
            self.rmodel.fetch(*(recordings[n, label].handle(attribute) for n in there))
            if there
            else []
        )
        found = dict(zip(there, [values] if len(there) == 1 else values, strict=True))
        return {name: found.get(name) for name in names}

    def _together(self, parts: Sequence[PointValues]) -> PointValues:
        """The values of several passes as those of one."""
        whole = PointValues(self.catalog, {}, self.parameters, self.ids, {}, self._columns)
        for part in parts:
            whole = replace(
                whole,
                points={**whole.points, **part.points},
                tokens={**whole.tokens, **part.tokens},
            )
        return whole

    def _in_parts(self, names: Sequence[str], run: Callable[[Sequence[str]], Found]) -> list[Found]:
        """Run something on points at once; where that fails, on halves, until it is known which cannot be probed."""
        chosen = [name for name in names if name not in self.failed]
        if not chosen:
            return []
        try:
            return [run(chosen)]
        except (ConnectionError, MemoryError, Interrupted):
            raise
        except GarconError as error:
            if len(chosen) == 1:
                self.failed[chosen[0]] = error
                return []
        middle = len(chosen) // 2
        return [*self._in_parts(chosen[:middle], run), *self._in_parts(chosen[middle:], run)]
