"""All cells of a sweep run, and laid out as a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.connection.progress import Count
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.pairs import REPLACE, Pairs, Replace
from garcon_jupyter.experiments.activation_patching.requests import (
    CellRequests,
    Measured,
    Rows,
    one_row,
)
from garcon_jupyter.experiments.result import ExperimentResult

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client
    from garcon_jupyter.experiments.activation_patching.grid import CellLayout
    from garcon_jupyter.experiments.activation_patching.measures import Measure

SAYS = "share of the clean run's metric: 0 as corrupted, 1 as clean"


TOKENS = 4096
"""Tokens of one request at most."""


def swept(
    experiment: str,
    rmodel: Client,
    pairs: Pairs,
    grid: CellLayout,
    measure: Measure,
    about: dict[str, Any],
    *,
    denoise: bool,
    replace: Replace = "patch",
    rows: Rows = one_row,
    tokens: int,
    exact: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> ExperimentResult:
    """All cells run and laid out, by the options of :func:`patch <garcon_jupyter.experiments.activation_patching.patch.patch>`.

    Args:
        rows: what rows a cell takes.
        about: facts of the experiment itself.

    Raises:
        BadRequest: an option makes no sense, or no cell takes a row.
    """
    sources = pairs.sources(denoise, replace, seed)
    requests = CellRequests(rmodel, pairs, grid, denoise, sources, measure, exact, seed, rows)
    about = {**about, "tokens": tokens}
    return laid_out(experiment, requests, measured(requests, tokens, progress), about)


def check_options(replace: Any, tokens: Any) -> None:
    """Refuse options that make no sense, before anything is asked of the server.

    Raises:
        BadRequest: says which.
    """
    if replace not in REPLACE:
        raise BadRequest(f"There is no replace={replace!r}.", f"There are {', '.join(REPLACE)}.")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise BadRequest(f"tokens={tokens!r} is no number of tokens.", "Give at least 1.")


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
        "answers": [[*two] for two in requests.measure.answers or ()],
        "metric": requests.measure.name,
        **about,
        "forwards": f"whole: {requests.whole}" if requests.whole else "from each cell's layer on",
        "cells that change nothing": requests.skipped,
    }
    return ExperimentResult(experiment, values, axes, SAYS, facts, more)
