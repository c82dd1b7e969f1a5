"""All cells of a sweep run, and laid out as a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.progress import Count
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from garcon_jupyter.experiments.activation_patching.requests import CellRequests, Measured

SAYS = "share of the clean run's metric: 0 as corrupted, 1 as clean"


def measured(requests: CellRequests, tokens: int, progress: bool) -> list[Measured]:
    """What came of all cells.

    Args:
        tokens: of one request at most.
        progress: show how far it is, where it takes more than a moment.
    """
    shown = Count(len(requests.cells()), "cells") if progress else None
    found: list[Measured] = []
    for part in requests.run(lambda length: tokens // length):
        found += part
        if shown:
            shown.at(len(found))
    if shown:
        shown.end()
    return found


def laid_out(
    experiment: str, requests: CellRequests, found: Sequence[Measured], about: dict[str, Any]
) -> ExperimentResult:
    """The numbers of all cells, along their axes.

    Args:
        about: facts of the experiment itself.
    """
    import torch

    pairs, grid = requests.pairs, requests.grid
    shape = (len(pairs), *(len(labels) for labels in grid.axes.values()))
    values, metrics = torch.full((2, *shape), torch.nan)
    for one in found:
        at = (one.where.pair, *one.where.cell.at)
        values[at], metrics[at] = one.share, one.metric
    ends = torch.tensor([requests.ends[pair] for pair in range(len(pairs))])
    more = {"metric": metrics, "corrupted": ends[:, 0], "clean": ends[:, 1]}
    axes: dict[str, Any] = {"pair": range(len(pairs)), **grid.axes}
    if len(pairs) == 1:
        values, more = values[0], {name: value[0] for name, value in more.items()}
        del axes["pair"]
    facts = {
        "model": requests.rmodel.facts["model"]["architecture"],
        "points": list(grid.patterns),
        "clean": [list(text) for text in pairs.clean],
        "corrupted": [list(text) for text in pairs.corrupted],
        "answers": [[*two] for two in requests.answers or ()],
        "metric": requests.metric.name if requests.metric else "difference of the answers' logits",
        **about,
        "forwards": f"whole: {requests.whole}" if requests.whole else "from each cell's layer on",
        "cells that change nothing": requests.skipped,
    }
    return ExperimentResult(experiment, values, axes, SAYS, facts, more)
