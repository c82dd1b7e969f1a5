"""How well a dictionary fits the values of a point: the share of their variance that its reconstruction does not explain.

A dictionary that is read at the wrong point, or for another model, explains next to nothing, or less than nothing; at the right one,
most. The first token of a text has values a hundred times those of others in most models (Sun et al. 2024), which many dictionaries
never saw in training, so each number stands beside the same without it.

A dictionary of several points fits at all of them or at none: squares and variances of its points are added up, and each point's own share
stands beside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.points import DictionaryPoints

TEXTS_AT_ONCE = 8

PARTS = ("all", "later")
"""Of which tokens sums are kept: of all, and of those that are not the first of their text."""


@dataclass(frozen=True)
class Fit:
    """How well a dictionary fits at one place.

    Attributes:
        reads, writes: the points; of several, all of them as one pattern.
        unexplained: Σ |y − ŷ|² / Σ |y − mean|² over all tokens; 0 is a perfect reconstruction, 1 that of a constant. Of several points both
            sums are over all of them.
        without_first: the same without the first token of each text.
        tokens: how many there were.
        each: where there are several points, the fit at each, in the order of a pass.
    """

    reads: str
    writes: str
    unexplained: float
    without_first: float
    tokens: int
    each: tuple[Fit, ...] = ()

    @property
    def at(self) -> str:
        """The points in words."""
        return self.reads if self.reads == self.writes else f"{self.reads} → {self.writes}"


class Fits(Sequence[Fit]):
    """Fits at several places, the best (without first tokens) first."""

    def __init__(self, fits: Sequence[Fit]) -> None:
        self._fits = sorted(fits, key=lambda fit: fit.without_first)

    def __getitem__(self, index: Any) -> Any:
        return self._fits[index]

    def __len__(self) -> int:
        return len(self._fits)

    def __iter__(self) -> Iterator[Fit]:
        return iter(self._fits)

    def __repr__(self) -> str:
        rows = [("AT", "UNEXPLAINED", "WITHOUT FIRST TOKENS")]
        for number, fit in enumerate(self):
            rows.append((fit.at, f"{fit.unexplained:.3f}", f"{fit.without_first:.3f}"))
            for one in fit.each if number == 0 else ():
                rows.append((f"  {one.at}", f"{one.unexplained:.3f}", f"{one.without_first:.3f}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


Ends = tuple[tuple[str, str], ...]
"""A place: each point that is read, with the one that is written for it."""


def fit_at(rmodel: Any, path: str, texts: Any, places: Sequence[Ends]) -> Fits:
    """The fit of a dictionary at some places; it is loaded at each, and let go of again.

    Args:
        rmodel: the model.
        path: of its files, on the server's hosts.
        texts: a list of texts, or tokens as for :meth:`forward`.
        places: where it is put.
    """
    batches = [*_batches(rmodel, texts)]
    found = []
    for number, ends in enumerate(places):
        sides = [point for side in zip(*ends, strict=True) for point in side]
        sae = rmodel.dictionaries.load(path, f"fit-{number}", sides, show=False)
        try:
            found.append(_fit(rmodel, sae.points, batches))
        finally:
            sae.unload()
    return Fits(found)


def _fit(rmodel: Any, there: DictionaryPoints, batches: Sequence[Any]) -> Fit:
    """The fit of a dictionary that is loaded."""
    sums = [_sums(rmodel, there, tokens) for tokens in batches]
    tokens_read = sum(int(batch[0]["all"]["tokens"]) for batch in sums)
    by_point = [[batch[n] for batch in sums] for n in range(len(there.ends))]

    def fit(ends: tuple[str, str], points: Sequence[Any], each: tuple[Fit, ...] = ()) -> Fit:
        every, later = (
            _unexplained([[batch[part] for batch in point] for point in points]) for part in PARTS
        )
        return Fit(ends[0], ends[1], every, later, tokens_read, each)

    each = [fit(end, [point]) for end, point in zip(there.ends, by_point, strict=True)]
    return each[0] if len(each) == 1 else fit(there.sides, by_point, tuple(each))


def places_like(rmodel: Any, own: Ends) -> list[Ends]:
    """Where a dictionary may belong instead: points of the same layer with as many units.

    Of a transcoder the point that it reads varies, and what it writes stays. Of several points each stays in its layer, and all are
    the same there (``layers.*.resid_mid``); where they were not the same to begin with, there is no other place.
    """
    catalog = rmodel.catalog
    hosts = [catalog.point(reads) for reads, _ in own]
    if len({host.template for host in hosts}) > 1 or any(host.layer is None for host in hosts):
        return [own]
    by_template: dict[str, list[tuple[str, str]]] = {}
    for reads, writes in own:
        units, layer = _units(rmodel, reads), catalog.point(reads).layer
        for name in catalog.names():
            address = catalog.point(name)
            if (
                address.layer == layer
                and address.expert is None
                and catalog.shape(address)[:2] == ("b", "p")
                and _units(rmodel, name) == units
            ):
                end = name, name if reads == writes else writes
                by_template.setdefault(address.template, []).append(end)
            if name == writes != reads:
                break  # what comes later cannot be read for it
    found = [tuple(ends) for ends in by_template.values() if len(ends) == len(own)]
    return found if own in found else [own]


def _units(rmodel: Any, name: str) -> int:
    catalog = rmodel.catalog
    sizes = catalog.shape(catalog.point(name))[2:]
    return math.prod(size for size in sizes if isinstance(size, int))


def _batches(rmodel: Any, texts: Any) -> Iterator[Any]:
    if isinstance(texts, (list, tuple)) and texts and all(isinstance(text, str) for text in texts):
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            yield rmodel.encode([*texts[start : start + TEXTS_AT_ONCE]])
    else:
        yield texts


Sums = Mapping[str, Mapping[str, Any]]
"""Of all tokens, and of all but first ones: how many, their sum, their squares, and the squares of what lacks."""


def _sums(rmodel: Any, there: DictionaryPoints, tokens: Any) -> list[Sums]:
    """The sums of each point."""
    made, name = rmodel.probe_points, "fit"
    errors = [there.point("error", host) for host in there.hosts]
    written = [writes for _, writes in there.ends]
    probes = [
        made[p].probe(_keep(_of_values), read_only=True, name=name) for p in dict.fromkeys(written)
    ]
    probes += [made[error].probe(_keep(_of_errors), read_only=True, name=name) for error in errors]
    rmodel.forward(tokens, probes=probes, logits="none")
    found = rmodel.recordings()
    sums: list[Sums] = [
        {part: {**found[w, name].sums[part], **found[e, name].sums[part]} for part in PARTS}
        for w, e in zip(written, errors, strict=True)
    ]
    rmodel.clear_recordings(name=name)
    return sums


def _keep(of: Callable[[Any], dict[str, Any]]) -> Callable[[Any, Any], None]:
    def keep(save_ctx: Any, tensor: Any) -> None:
        here = save_ctx.here
        real = here.positions >= 0 if here.mask is None else here.mask
        rows = tensor.flatten(2).double()
        save_ctx.sums = {
            part: of(rows[real if part == "all" else real & (here.positions > 0)])
            for part in ("all", "later")
        }

    return keep


def _of_values(rows: Any) -> dict[str, Any]:
    return {"tokens": len(rows), "sum": rows.sum(0), "squares": rows.pow(2).sum()}


def _of_errors(rows: Any) -> dict[str, Any]:
    return {"lacking": rows.pow(2).sum()}


def _unexplained(points: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    """The share of the variance, of the sums of all batches of each point."""
    lacking = variance = 0.0
    for sums in points:
        tokens = sum(each["tokens"] for each in sums)
        if not tokens:
            raise BadRequest(
                "There are no tokens but first ones, so nothing can be said without them.",
                "Give longer texts.",
            )
        total = sum(each["sum"] for each in sums)
        squares = sum(each["squares"] for each in sums)
        variance += float(squares - (total * total).sum() / tokens)
        lacking += float(sum(each["lacking"] for each in sums))
    return lacking / variance
