"""What a request for patches says is checked before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from garcon_jupyter.errors import BadRequest, GarconError
from garcon_jupyter.wire import requests as wire
from tests.backend.bare_rank import BareRank

RIGHT: dict[str, Any] = {
    "texts": torch.tensor([[1, 2, 3], [1, 5, 3]]),
    "sources": ((0,), (0,)),
    "cells": (1,),
    "points": ("layers.1.resid_pre",),
    "patches": torch.tensor([[0, 0, -1, 1, -1, -1]]),
    "answers": torch.tensor([[4, 5], [4, 5]]),
}

WRONG: dict[str, dict[str, Any]] = {
    "no runs": {"texts": None},
    "runs of words": {"texts": "x"},
    "runs of numbers that are none of tokens": {"texts": torch.tensor([[1, 2, 2**40]] * 2)},
    "a run that there is not": {"cells": (2,)},
    "one before the first": {"cells": (-1,)},
    "a source that there is not": {"sources": ((0,), (7,))},
    "a run without a source": {"sources": ((0,), ())},
    "too few sources": {"sources": ((0,),)},
    "patches of words": {"patches": "x"},
    "no patches": {"patches": None},
    "patches without a place": {"patches": torch.tensor([[0, 0, -1]])},
    "patches that are no integers": {"patches": torch.ones(1, 6)},
    "a cell without a patch": {"cells": (1, 1)},
    "a cell that there is not": {"patches": torch.tensor([[3, 0, -1, 1, -1, -1]])},
    "a point that there is not": {"patches": torch.tensor([[0, 1, -1, 1, -1, -1]])},
    "a place before the first": {"patches": torch.tensor([[0, 0, -1, -2, -1, -1]])},
    "values of itself": {"patches": torch.tensor([[0, 0, 2, 1, -1, -1]])},
    "values of a cell, one by one": {
        "patches": torch.tensor([[0, 0, -1, 1, -1, -1], [1, 0, 2, 1, -1, -1]]),
        "cells": (1, 1),
        "exact": True,
    },
    "a point of no model": {"points": ("layers.1.nothing",)},
    "a point of experts' tokens": {"points": ("layers.1.mlp.experts.0.post_activation",)},
    "the logits": {"points": ("logits",)},
    "no answers": {"answers": None},
    "answers of one run": {"answers": torch.tensor([[4, 5]])},
    "answers of no vocabulary": {"answers": torch.tensor([[4, 5], [4, 5000]])},
    "an adapter that there is not": {"adapter": "x"},
}


@pytest.fixture(scope="module")
def ours(llama_path: Path) -> BareRank:
    return BareRank(llama_path)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_makes_no_sense_is_refused_before_it_runs(ours: BareRank, wrong: str) -> None:
    request = wire.Patch("test", **{**RIGHT, **WRONG[wrong]})
    with pytest.raises(GarconError):
        ours.executor.prepare(ours.executor.handler(request))


@pytest.mark.parametrize("place", [(3, -1, -1), (-1, 48, -1), (-1, -1, 0)])
def test_a_place_that_there_is_not(ours: BareRank, place: tuple[int, ...]) -> None:
    patches = torch.tensor([[0, 0, -1, *place]])
    with pytest.raises(Exception, match="no place") as caught:
        ours.run(wire.Patch("test", **{**RIGHT, "patches": patches}))
    assert isinstance(getattr(caught.value, "error", None), BadRequest)
    assert ours.installed() == ours.untouched


def test_no_cells_are_the_runs(ours: BareRank) -> None:
    answer = ours.run(wire.Patch("test", **{**RIGHT, "cells": (), "points": (), "patches": None}))
    logits = ours.forward(RIGHT["texts"])[:, -1]
    assert torch.allclose(answer.texts, logits[:, 4] - logits[:, 5], atol=1e-5)
    assert len(answer.cells) == 0
