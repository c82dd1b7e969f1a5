"""How well a dictionary fits the values of a point: the share of their variance that its reconstruction does not explain.

A dictionary that is read at the wrong point, or for another model, explains next to nothing, or less than nothing; at the right one,
most. The first token of a text has values a hundred times those of others in most models (Sun et al. 2024), which many dictionaries
never saw in training, so each number stands beside the same without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from garcon_jupyter.errors import BadRequest

TEXTS_AT_ONCE = 8

PARTS = ("all", "later")
"""Of which tokens sums are kept: of all, and of those that are not the first of their text."""


@dataclass(frozen=True)
class Fit:
    """How well a dictionary fits at one place.

    Attributes:
        reads, writes: the points.
        unexplained: Σ |y − ŷ|² / Σ |y − mean|² over all tokens; 0 is a perfect reconstruction, 1 that of a constant.
        without_first: the same without the first token of each text.
        tokens: how many there were.
    """

    reads: str
    writes: str
    unexplained: float
    without_first: float
    tokens: int


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
        for fit in self:
            at = fit.reads if fit.reads == fit.writes else f"{fit.reads} → {fit.writes}"
            rows.append((at, f"{fit.unexplained:.3f}", f"{fit.without_first:.3f}"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


def fit_at(rmodel: Any, path: str, texts: Any, places: Sequence[tuple[str, str]]) -> Fits:
    """The fit of a dictionary at some places; it is loaded at each, and let go of again.

    Args:
        rmodel: the model.
        path: of its files, on the server's hosts.
        texts: a list of texts, or tokens as for :meth:`forward`.
        places: (the point that it reads, the point that it writes).
    """
    batches = [*_batches(rmodel, texts)]
    found = []
    for number, (reads, writes) in enumerate(places):
        sae = rmodel.dictionaries.load(path, f"fit-{number}", (reads, writes), show=False)
        try:
            sums = [_sums(rmodel, sae.error.name, writes, tokens) for tokens in batches]
        finally:
            sae.unload()
        every, later = (_unexplained([each[part] for each in sums]) for part in PARTS)
        tokens_read = sum(int(each["all"]["tokens"]) for each in sums)
        found.append(Fit(reads, writes, every, later, tokens_read))
    return Fits(found)


def places_like(rmodel: Any, reads: str, writes: str) -> list[tuple[str, str]]:
    """Where a dictionary may belong instead: points of the same layer with as many units.

    Of a transcoder the point that it reads varies, and what it writes stays.
    """
    catalog = rmodel.catalog
    units, layer = _units(rmodel, reads), catalog.point(reads).layer
    names = [
        name
        for name in catalog.names()
        if catalog.point(name).layer == layer
        and catalog.point(name).expert is None
        and catalog.shape(catalog.point(name))[:2] == ("b", "p")
        and _units(rmodel, name) == units
    ]
    if layer is None or reads not in names:
        return [(reads, writes)]
    return [(name, name if reads == writes else writes) for name in names]


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


def _sums(rmodel: Any, error: str, writes: str, tokens: Any) -> Mapping[str, Mapping[str, Any]]:
    """Of all tokens, and of all but first ones: how many, their sum, their squares, and the squares of what lacks."""
    made, name = rmodel.probe_points, "fit"
    probes = [
        made[writes].probe(_keep(_of_values), read_only=True, name=name),
        made[error].probe(_keep(_of_errors), read_only=True, name=name),
    ]
    rmodel.forward(tokens, probes=probes, logits="none")
    found = rmodel.recordings()
    values, lacking = found[writes, name].sums, found[error, name].sums
    rmodel.clear_recordings(name=name)
    return {part: {**values[part], **lacking[part]} for part in PARTS}


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


def _unexplained(sums: Sequence[Mapping[str, Any]]) -> float:
    """The share of the variance, of the sums of all batches."""
    tokens = sum(each["tokens"] for each in sums)
    if not tokens:
        raise BadRequest(
            "There are no tokens but first ones, so nothing can be said without them.",
            "Give longer texts.",
        )
    total = sum(each["sum"] for each in sums)
    variance = sum(each["squares"] for each in sums) - (total * total).sum() / tokens
    return float(sum(each["lacking"] for each in sums) / variance)
