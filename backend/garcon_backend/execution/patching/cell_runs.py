"""The forwards of a request for patches, and the metric of their logits.

The texts themselves are the first rows of the batch that their cells join, so that what cells are given lies beside them, and
nothing is kept from one request to the next. Replicas share out the cells; each has the texts for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from garcon_backend.distributed.collectives import Layout
from garcon_backend.distributed.gather_group import GatherGroup
from garcon_backend.execution.inputs import Inputs
from garcon_backend.execution.passes import Passes, logits_of
from garcon_backend.execution.patching.cells import PatchedCell, patches_by_point, together
from garcon_backend.execution.patching.climbing import CannotClimb, Climb
from garcon_backend.execution.patching.patched_pass import KeptPass, OwnPass, PatchedPass
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.points import Address
from garcon_jupyter.wire import requests as wire

Metric = Callable[[Tensor], Any]
"""Logits [row, p, V] to a number for each row."""

ALONE = "each cell has a forward of its own"


class CellRuns:
    """Runs the cells of one request.

    Args:
        inputs: the texts.
        cells, points: as the request says them.
        metric: the caller's own; None for the difference of the answers' logits.
    """

    def __init__(
        self,
        passes: Passes,
        request: wire.Patch,
        inputs: Inputs,
        cells: Sequence[PatchedCell],
        points: Sequence[Address],
        metric: Metric | None,
    ) -> None:
        self._passes, self._rank, self._request = passes, passes.rank, request
        self._inputs, self._points, self._metric = inputs, points, metric
        self._cells = cells
        self._texts, replicas = len(inputs.ids), passes.rank.mesh.degrees.dp
        groups = together(cells)
        self._shares = [
            _share(groups[replica::replicas]) for replica in range(replicas)
        ]  # each in the order in which they join
        self._most = max(map(len, self._shares))

    def run(self) -> wire.PatchedMetrics | None:
        """Run them; the answer on the rank that has the logits of all.

        Raises:
            UserFailure: the metric raised.
            BadRequest: it gave no number for each row.
        """
        mine = self._shares[self._rank.mesh.replica]
        mine = [
            *mine,
            *[_filler(mine)] * (self._most - len(mine)),
        ]  # replicas read equally many rows
        with torch.no_grad():
            if self._request.exact:
                logits, whole = self._one_by_one(mine), ALONE
            else:
                logits, whole = self._together(mine)
        if not self._rank.mesh.last_stage:
            return None
        rows = self._texts + len(mine)
        mesh = self._rank.mesh
        every = GatherGroup(mesh.tp, mesh.replicas, rows * mesh.degrees.dp)
        all_logits = every.gather(logits, Layout())
        return None if all_logits is None else self._answer(all_logits, rows, whole)

    # -- forwards ----------------------------------------------------------------------------

    def _together(self, cells: Sequence[PatchedCell]) -> tuple[Tensor, str]:
        """The logits of texts and cells, [row, p, V], in one forward; and why it did not climb, if so."""
        joining = [(cell.begins, cell.text) for cell in cells]
        dictionaries = self._rank.bound.catalog.dictionaries
        for name in {point.dictionary for point in self._points if point.dictionary}:
            if dictionaries[name].several:
                why = f"{name} reads several layers, of which rows that join later have not all"
                return self._forward(cells, None), why
        try:
            climb = Climb(self._rank.model, self._texts, joining)
            return self._forward(cells, climb), ""
        except CannotClimb as error:
            return self._forward(cells, None), str(error)

    def _forward(self, cells: Sequence[PatchedCell], climb: Climb | None) -> Tensor:
        rows = self._rows([*range(self._texts), *(cell.text for cell in cells)])
        numbered = enumerate(cells, self._texts)
        patches = patches_by_point(numbered, self._request.sources)
        probed = PatchedPass(self._rank, len(rows.ids), self._points, patches)
        if climb is None:
            return self._read(probed, rows)
        with climb.installed(probed):
            return self._read(probed, rows)

    def _one_by_one(self, cells: Sequence[PatchedCell]) -> Tensor:
        """The same as a loop of forwards has it."""
        logits, kept = [], []
        for text in range(self._texts):
            keeping = KeptPass(self._rank, 1, self._points)
            logits.append(self._read(keeping, self._rows([text])))
            kept.append(keeping.kept)
        values = {name: torch.cat([one[name] for one in kept]) for name in kept[0]}
        for cell in cells:
            logits.append(self._alone(cell, values))
        return torch.cat(logits)

    def _alone(self, cell: PatchedCell, values: Mapping[str, Tensor]) -> Tensor:
        patches = patches_by_point([(0, cell)], self._request.sources)
        probed = PatchedPass(self._rank, 1, self._points, patches, values)
        return self._read(probed, self._rows([cell.text]))

    def _rows(self, texts: Sequence[int]) -> Inputs:
        return Inputs(self._inputs.ids[texts], None, self._inputs.positions[texts])

    def _read(self, probed: OwnPass, rows: Inputs) -> Tensor:
        keep: Any = 0 if self._metric else rows.last.unique()
        with self._passes.installed(probed):
            output = self._passes.read(probed, rows, keep)
            probed.check_visited()
        logits = logits_of(output)
        return logits if self._metric else logits[:, -1:]

    # -- the metric --------------------------------------------------------------------------

    def _answer(self, logits: Tensor, rows: int, whole: str) -> wire.PatchedMetrics:
        """The metric of texts and cells, in the order of the request; on the rank that has all logits."""
        metrics = self._measured(logits).split(rows)
        cells = torch.empty(len(self._cells))
        for share, part in zip(self._shares, metrics, strict=True):
            places = [cell.number - self._texts for cell in share]
            cells[places] = part[self._texts : self._texts + len(share)]
        return wire.PatchedMetrics(metrics[0][: self._texts].clone(), cells, whole)

    def _measured(self, logits: Tensor) -> Tensor:
        if self._metric is None:
            return self._difference(logits)
        found = self._passes.user(self._request.seed, self._metric, "the metric", logits)
        try:
            numbers = torch.as_tensor(found).detach().float().cpu()
        except (TypeError, ValueError, RuntimeError):
            numbers = torch.empty(0, 0)
        if numbers.shape != (len(logits),):
            gave = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise BadRequest(
                f"The metric gave {gave} for {len(logits)} rows of logits, not one number for each row.",
                "Return a tensor [row], such as logits[:, -1, 5].",
            )
        return numbers

    def _difference(self, logits: Tensor) -> Tensor:
        texts: list[int] = []
        for share in self._shares:
            texts += [*range(self._texts), *(cell.text for cell in share)]
            texts += [0] * (self._most - len(share))
        answers = torch.as_tensor(self._request.answers).to(logits.device)[texts]
        chosen = logits[:, -1].gather(1, answers).float()
        return (chosen[:, 0] - chosen[:, 1]).cpu()


def _share(groups: Sequence[Sequence[PatchedCell]]) -> list[PatchedCell]:
    """The cells of some groups, in the order in which they join."""
    return sorted((cell for group in groups for cell in group), key=lambda cell: cell.begins)


def _filler(before: Sequence[PatchedCell]) -> PatchedCell:
    """A row that only fills up: a text as it is, joined last."""
    return PatchedCell(-1, 0, before[-1].begins if before else 0, ())
