"""Cells of every family, in one batch that climbs, are what its architecture written by hand makes of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from garcon_backend.process.user_code import UserFailure
from garcon_jupyter.wire import requests as wire
from tests import checkpoints
from tests.backend.bare_rank import BareRank
from tests.backend.cases import EVERY, NO_STAGES, Case

CLEAN = torch.tensor([[3, 40, 41, 42, 99, 7]])
CORRUPTED = torch.tensor([[3, 40, 77, 42, 99, 7]])
POSITION = 3

WANTED = (
    *("resid_pre", "attn.q", "attn.v", "attn.z", "mixer.state_out", "mixer.conv_out"),
    *("mlp.post_activation", "mlp.contribution", "attn.contribution", "altup.streams_post"),
)
"""Of the points of a layer, those at which a cell is patched."""


def points_of(case: Case) -> list[str]:
    """Points of two layers, and of the stream before the last."""
    names = [f"layers.{layer}.{point}" for layer in (1, 2) for point in WANTED]
    return [*(name for name in names if name in case.ours.catalog.names()), "embed.out"]


def cells_by_hand(case: Case, points: list[str], clean: dict[str, Tensor]) -> Tensor:
    """The last logits of each cell, [cell, V]: a row of a batch for each, at which its point alone is edited."""

    def given(row: int, point: str) -> object:
        def edit(value: Tensor) -> Tensor:
            changed = value.clone()
            changed[row, POSITION] = clean[point][0, POSITION]
            return changed

        return edit

    edits = {point: given(row, point) for row, point in enumerate(points)}
    with torch.no_grad():
        taps = case.theirs.run(CORRUPTED.repeat(len(points), 1), None, **edits)  # type: ignore[arg-type]
    return taps.values["logits"][:, -1]


def test_cells_are_those_by_hand(case: Case) -> None:
    points = points_of(case)
    with torch.no_grad():
        clean, corrupted = (case.theirs.run(ids, None).values for ids in (CLEAN, CORRUPTED))
    # The two tokens whose logits move most: a large range, beside which rounding is small.
    moved = clean["logits"][0, -1] - corrupted["logits"][0, -1]
    answers = [int(moved.argmax()), int(moved.argmin())]
    last = cells_by_hand(case, points, clean)
    expected = last[:, answers[0]] - last[:, answers[1]]
    request = wire.Patch(
        "test",
        texts=torch.cat([CLEAN, CORRUPTED]),
        sources=((0,), (0,)),
        cells=(1,) * len(points),
        points=tuple(points),
        patches=torch.tensor([[row, row, -1, POSITION, -1, -1] for row in range(len(points))]),
        answers=torch.tensor([answers] * 2),
    )
    found = case.ours.run(request)
    assert case.ours.installed() == case.ours.untouched
    span = float(moved.max() - moved.min())
    assert float((found.cells - expected).abs().max()) <= 1e-4 * span * case.rounding
    assert len(set(found.cells.tolist())) > 2  # patches do something
    assert bool(found.whole) == (case.name in WHOLE)


WHOLE = {*NO_STAGES, "gemma4"}
"""Families whose layers hand on more than a stream, so that cells are rows of whole forwards."""


def test_the_list_of_families_that_do_not_climb_is_of_families() -> None:
    assert set(EVERY) >= WHOLE


def test_what_has_no_row_for_each_run_is_refused(tmp_path: Path) -> None:
    """GPT-2 embeds positions once for all rows."""
    ours = BareRank(checkpoints.make("gpt2", tmp_path))
    request = wire.Patch(
        "test",
        texts=torch.cat([CLEAN, CORRUPTED]),
        sources=((0,), (0,)),
        cells=(1,),
        points=("module:transformer.wpe.output",),
        patches=torch.tensor([[0, 0, -1, POSITION, -1, -1]]),
        answers=torch.tensor([[5, 6]] * 2),
    )
    with pytest.raises(UserFailure, match="has 1 rows, not one for each of 3 texts"):
        ours.run(request)
    request.exact = True  # one row for one run
    answer = ours.run(request)
    assert answer.cells[0] == answer.texts[1]
