"""The histogram: its bins, and what is left of it in a saved notebook."""

from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import torch

from garcon_jupyter.widgets import distribution


def test_bins_count_every_finite_value_once() -> None:
    values = np.random.default_rng(0).standard_normal((3, 5, 700)).astype(np.float32)
    values[0, 0, :3] = [np.nan, np.inf, -np.inf]
    bars = distribution(values).data[0]
    finite = values[np.isfinite(values)].astype(np.float64)
    left = np.asarray(bars.x) - np.asarray(bars.width) / 2
    right = np.asarray(bars.x) + np.asarray(bars.width) / 2
    assert sum(bars.y) == finite.size
    assert np.isclose(left[0], finite.min()) and np.isclose(right[-1], finite.max())
    for place in (10, 40, 60):
        inside = ((finite >= left[place]) & (finite < right[place])).sum()
        assert bars.y[place] == inside


def test_the_figure_is_a_plain_figure_of_bins_not_values() -> None:
    figure = distribution(torch.randn(1_000_000, generator=torch.manual_seed(0)), "z")
    assert type(figure).__mro__[1] is go.Figure
    assert len(figure.to_json()) < 20_000


def test_the_subtitle_counts_what_has_no_bin() -> None:
    figure = distribution(np.array([1.0, 1.0, np.nan]), "point")
    assert figure.layout.title.text == "point"
    assert figure.layout.title.subtitle.text.startswith("3 values · mean 1 ·")
    assert figure.layout.title.subtitle.text.endswith("1 not finite")


def test_nothing_and_one_value_are_no_error() -> None:
    assert list(distribution(np.zeros((0, 4))).data[0].y) == []
    assert list(distribution(np.full(7, 2.5)).data[0].y) == [7]


def test_what_is_displayed_needs_no_script_and_no_network() -> None:
    bundle = distribution(np.arange(50.0), "<b>point</b>")._repr_mimebundle_()
    assert json.dumps(bundle["application/vnd.plotly.v1+json"])
    assert bundle["text/html"].startswith("<figure") and "<script" not in bundle["text/html"]
    assert "<b>" not in bundle["text/html"]
    assert "//" not in bundle["text/html"].split("base64,")[0]
