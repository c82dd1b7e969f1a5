"""What is on the screen, fetched from a recording, beside the same from the whole array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.display import frames
from garcon_jupyter.display.frames import RecordedSource
from garcon_jupyter.display.points import show
from garcon_jupyter.widgets import ActivationsWidget, FetchingView
from garcon_jupyter.widgets.sources import ArraySource
from tests.experiments.conftest import TEXT


def keep(save_ctx: Any, tensor: Any) -> None:
    save_ctx.tensor = tensor


@pytest.fixture
def both(rmodel: garcon.RemoteModel) -> tuple[RecordedSource, ArraySource]:
    """The logits [1, p, 263] on the server and here."""
    rmodel.forward(TEXT, probes=[rmodel.probe_points["logits"].probe(keep)], logits="none")
    recordings = rmodel.recordings(fetch=False)
    handle = recordings["logits"].handle("tensor")
    return RecordedSource(rmodel, handle), ArraySource(handle.fetch())


@pytest.mark.parametrize(
    ("first", "end", "pooled"), [(0, 263, 1), (0, 263, 10), (50, 61, 4), (5, 9, 100), (0, 260, 10)]
)
def test_frames_are_those_of_the_array(
    both: tuple[RecordedSource, ArraySource], first: int, end: int, pooled: int
) -> None:
    remote, here = both
    wanted = here.frame(0, -1, first, end, pooled, None)
    assert np.array_equal(remote.frame(0, -1, first, end, pooled, None), wanted)
    order = here.order(0, -1, 2)
    assert np.array_equal(remote.order(0, -1, 2), order)
    sorted_here = here.frame(0, -1, first, end, pooled, order)
    assert np.array_equal(remote.frame(0, -1, first, end, pooled, order), sorted_here)
    assert pooled == 1 or not np.array_equal(wanted, sorted_here)


def test_scale_and_sample_are_those_of_the_array(both: tuple[RecordedSource, ArraySource]) -> None:
    remote, here = both
    assert remote.scale(-1) == pytest.approx(here.scale(-1))
    assert np.array_equal(remote.sample(0, -1), here.sample(0, -1))


def test_a_large_recording_stays_where_it_is(
    rmodel: garcon.RemoteModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "LARGE", 1000)
    fetched: list[int] = []
    whole_fetch = rmodel.fetch

    def fetch(*handles: Any, **options: Any) -> Any:
        values = whole_fetch(*handles, **options)
        for value in values if isinstance(values, list) else [values]:
            fetched.append(value.numel())
        return values

    monkeypatch.setattr(rmodel, "fetch", fetch)
    view = show(rmodel, "logits", [list(range(3, 103))] * 3)
    assert isinstance(view, FetchingView) and "<img" in view.html
    widget = view.widget
    assert isinstance(widget, ActivationsWidget) and widget.units == 263
    before = sum(fetched)
    assert before < 3 * 100 * 263  # not the whole batch
    widget.row = 2
    assert widget.worker.wait() and widget.trouble == ""
    look = rmodel.look([list(range(3, 103))])["logits"][0]
    values = np.frombuffer(widget.frame, "<f4").reshape(100, -1)
    assert np.allclose(values, look, atol=1e-4)
    widget.sort_token = 5
    assert widget.worker.wait() and widget.trouble == ""
    order = np.frombuffer(widget.order, "<i4")
    assert np.array_equal(order[:3], np.argsort(-look[5].numpy(), kind="stable")[:3])
    assert len(rmodel.recordings()) == 0
