"""Each formula against its definition written out, and what has no value."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from garcon_jupyter.explanations.scoring import calibration, scores
from garcon_jupyter.explanations.scoring.scores import Score

RNG = np.random.default_rng(4)
TRUE = [RNG.exponential(size=n).tolist() for n in (5, 1, 8, 3)]
SIMULATED = [[0.6 * v + RNG.normal() for v in part] for part in TRUE]
T, S = np.concatenate(TRUE), np.concatenate(SIMULATED)


def test_correlation_is_of_all_tokens_together() -> None:
    score = scores.correlation(TRUE, SIMULATED)
    assert score.n == 17
    assert score.value == pytest.approx(np.corrcoef(T, S)[0, 1], abs=1e-12)
    # The wrong answer: the mean over sequences, of which one has a single token.
    apart = [np.corrcoef(t, s)[0, 1] for t, s in zip(TRUE, SIMULATED, strict=True) if len(t) > 1]
    assert abs(score.value - np.mean(apart)) > 1e-3


def test_r_squared_is_not_centred() -> None:
    total, left = sum(t * t for t in T), sum((t - s) ** 2 for t, s in zip(T, S, strict=True))
    score = scores.r_squared(TRUE, SIMULATED)
    assert score.value == pytest.approx(1 - left / total, abs=1e-12)
    centred = 1 - left / sum((t - T.mean()) ** 2 for t in T)
    assert abs(score.value - centred) > 0.05
    assert scores.r_squared(TRUE, [[0.0] * len(part) for part in TRUE]).value == 0.0


def test_absolute_deviation() -> None:
    left = sum(abs(t - s) for t, s in zip(T, S, strict=True))
    score = scores.absolute_deviation(TRUE, SIMULATED)
    assert score.value == pytest.approx(1 - left / sum(abs(t) for t in T), abs=1e-12)


def test_auc_counts_pairs_and_ties_as_half() -> None:
    positive, negative = RNG.integers(0, 4, 30), RNG.integers(-1, 3, 20)
    pairs = list(itertools.product(positive, negative))
    expected = sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)
    found = scores.auc(positive.tolist(), negative.tolist())
    assert found.value == pytest.approx(expected, abs=1e-12) and found.n == 50
    assert (
        sum(p >= n for p, n in pairs) / len(pairs)
        > expected
        > sum(p > n for p, n in pairs) / len(pairs)
    )
    assert scores.auc([1, 1], [1, 1, 1]).value == 0.5


def test_auc_of_yes_and_no_is_the_balanced_accuracy() -> None:
    positive, negative = [1, 1, 0], [0, 0, 0, 1, 0]
    assert scores.auc(positive, negative).value == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_what_is_undefined_has_a_reason_and_no_number() -> None:
    flat = [[3.3] * len(part) for part in TRUE]
    for found in (
        scores.correlation(TRUE, flat),
        scores.correlation(flat, SIMULATED),
        scores.correlation([[1.0]], [[2.0]]),
        scores.correlation([], []),
        scores.r_squared([[0.0, 0.0]], [[1.0, 0.0]]),
        scores.absolute_deviation([], []),
        scores.auc([], [1.0]),
        scores.auc([1.0], []),
        scores.accuracy([]),
    ):
        assert found.value is None and found.reason.startswith("undefined: ")
        assert str(found) == found.reason
    # Nor by rounding: values that are the same but for the last bits.
    nearly = [[0.1 + 0.2 if n % 2 else 0.3 for n in range(len(part))] for part in TRUE]
    assert scores.correlation(TRUE, nearly).value is None


def test_a_simulation_of_another_length_is_no_score() -> None:
    with pytest.raises(ValueError, match="another number of tokens"):
        scores.correlation([[1.0, 2.0]], [[1.0]])


def test_perfect_and_shuffled() -> None:
    values = RNG.exponential(size=500)
    assert scores.correlation([values], [values]).value == pytest.approx(1.0, abs=1e-12)
    assert scores.r_squared([values], [values]).value == 1.0
    assert abs(scores.correlation([values], [RNG.permutation(values)]).value or 1.0) < 0.2


def test_a_score_is_a_number_or_its_reason() -> None:
    assert str(Score(0.12345, 9)) == "0.123"
    assert not math.isnan(scores.accuracy([True, False, True]).value or math.nan)


# -- calibration -----------------------------------------------------------------------------------


def test_none_takes_levels_for_tenths_of_the_largest_value() -> None:
    way = calibration.fitted("none", [], [], largest=5.0, top=10)
    assert way.predicted([[0.0, 4.0], [10.0]]) == [[0.0, 2.0], [5.0]]


def test_linear_is_least_squares() -> None:
    way = calibration.fitted("linear", TRUE, SIMULATED, 1.0, 10)
    slope, intercept = np.polyfit(S, T, 1)
    assert (way.slope, way.intercept) == pytest.approx((slope, intercept), abs=1e-10)
    assert np.concatenate(way.predicted(SIMULATED)) == pytest.approx(slope * S + intercept)


def test_percentile_puts_the_kth_smallest_at_the_kth_smallest() -> None:
    way = calibration.fitted("percentile", TRUE, SIMULATED, 1.0, 10)
    points = np.interp(S, np.sort(S), np.sort(T))
    assert np.concatenate(way.predicted(SIMULATED)) == pytest.approx(points, abs=1e-12)
    assert np.sort(np.concatenate(way.predicted(SIMULATED))) == pytest.approx(np.sort(T))
    assert way.predicted([[-99.0, 99.0]]) == [[T.min(), T.max()]]


def test_levels_that_are_equal_become_one_value_whatever_the_order_of_tokens() -> None:
    true, levels = [1.0, 5.0, 2.0, 9.0], [0.0, 3.0, 0.0, 3.0]
    way = calibration.fitted("percentile", [true], [levels], 1.0, 10)
    assert way.predicted([[0.0, 3.0, 1.5]]) == [[1.5, 7.0, 4.25]]
    turned = calibration.fitted("percentile", [true[::-1]], [levels[::-1]], 1.0, 10)
    assert turned == way


def test_a_line_through_levels_that_do_not_vary_is_undefined() -> None:
    way = calibration.fitted("linear", [[1.0, 2.0]], [[3.0, 3.0]], 1.0, 10)
    assert way.reason.startswith("undefined: ")
    assert calibration.fitted("percentile", [], [], 1.0, 10).reason.startswith("undefined: ")
