"""Scores of a text against the plain model's, and characters made whole."""

from __future__ import annotations

import numpy as np
from torch import Tensor

import garcon_jupyter as garcon
from garcon_jupyter.experiments.clean_passes import whole_pieces
from garcon_jupyter.experiments.token_metrics import score
from tests.experiments.conftest import TEXT


def test_scores_are_those_of_each_token_given_the_earlier(
    either: garcon.RemoteModel, ids: Tensor, log_probabilities: Tensor
) -> None:
    scores = score(either, TEXT)
    logs = log_probabilities
    own = logs[:-1].gather(1, ids[0, 1:, None])[:, 0]
    assert scores.metrics[0, :3].isnan().all()
    assert np.allclose(scores.metrics[1:, 0], -own, atol=2e-5)
    assert np.allclose(scores.metrics[1:, 1], own.exp(), atol=1e-6)
    assert np.array_equal(scores.metrics[1:, 2], (logs[:-1] > own[:, None]).sum(-1))
    assert np.allclose(scores.metrics[:, 3], -(logs.exp() * logs).sum(-1), atol=2e-5)
    assert np.array_equal(scores.ids, logs.topk(5).indices)
    shifted = logs.gather(1, ids[0, :, None])[:, 0]  # of the token itself, after it was read
    assert not np.allclose(scores.metrics[1:, 0], -shifted[1:], atol=0.01)


def test_more_positions_than_one_chunk(rmodel: garcon.RemoteModel) -> None:
    ids = [[3 + n % 200 for n in range(128)]]
    long, short = score(rmodel, ids), score(rmodel, [ids[0][:100]])
    assert np.allclose(long.metrics[1:100], short.metrics[1:], atol=1e-4)
    assert not long.metrics[1:].isnan().any()


def test_characters_cut_over_tokens_are_made_whole(rmodel: garcon.RemoteModel) -> None:
    tokens = rmodel.encode("a🙂שb", special=False)
    assert "".join(rmodel.token_strings(tokens)[0]) == "a🙂שb"
    assert "\ufffd" in "".join(rmodel.token_strings(tokens, alone=True)[0])
    pieces = whole_pieces(rmodel, tokens)
    assert pieces == ["a", "🙂", "·", "·", "·", "ש", "·", "b"]


def test_the_widget_has_ones_own_metric_first(rmodel: garcon.RemoteModel) -> None:
    length = rmodel.encode(TEXT).shape[1]
    widget = rmodel.show_tokens(TEXT, {"mine": np.arange(length)})
    assert widget.metrics == ["mine", "loss", "probability", "rank", "entropy after"]
    assert len(np.frombuffer(widget.predicted, "<i4")) == 5 * length
