"""Parts of what an atlas knows of a unit: dealt out in turn, without a text in two of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

import garcon_jupyter as garcon
from garcon_jupyter.errors import BadData
from garcon_jupyter.explanations import Excerpt, of_patterns, of_record, parted
from garcon_jupyter.explanations.records.excerpts import PARTS, levels
from tests.explanations.conftest import made_excerpts, made_record

POINT = "layers.1.mlp.post_activation"


def test_levels_are_floors_of_tenths_from_0_to_10() -> None:
    values = [-3.0, 0.0, 0.99, 1.0, 5.49, 9.99, 10.0, 11.0]
    assert levels(values, 10.0) == [0, 0, 0, 1, 5, 9, 10, 10]
    assert levels(values, 10.0, top=9)[-3:] == [8, 9, 9]
    assert levels([1.0, 2.0], 0.0) == [0, 0]


def test_the_strongest_are_dealt_out_to_four_parts_and_the_random_to_three() -> None:
    top, sample = made_excerpts(22, seed=1), made_excerpts(20, seed=2, strong=False)
    record = parted(POINT, 3, top, sample)
    # Slices of the Transformer Debugger, [n : 4 · each : 4] and [n : 3 · each : 3].
    assert record.train == tuple(top[0:20:4])
    for n, name in enumerate(PARTS[1:]):
        part = record.part(name)
        assert part == (*top[n + 1 : 20 : 4], *sample[n:18:3][:5])
    assert record.largest == 20.0


def test_no_text_is_in_two_parts_though_windows_overlap() -> None:
    """An atlas keeps tokens: two of one sentence are two examples, of one text."""
    whole = [f" w{n}" for n in range(40)]

    def window(first: int, document: int) -> Excerpt:
        tokens = tuple(f"{word}d{document}" for word in whole[first : first + 8])
        return Excerpt(tokens, (0.0,) * 7 + (5.0,), document, first)

    top = [window(first, document) for document in range(6) for first in (0, 3, 20)]
    sample = [window(first, document) for document in range(6) for first in (5, 30)]
    record = parted(POINT, 0, top, sample)
    seen = [one for name in PARTS for one in record.part(name)]
    assert len(seen) > 8
    for n, one in enumerate(seen):
        assert not any(one.overlaps(other) for other in seen[n + 1 :])
    # The wrong answer: in turn without a look at where they are, the same sentence is explained from and tested on.
    assert any(one.overlaps(other) for one in top[0::4] for other in top[3::4])


def test_texts_that_read_alike_are_one() -> None:
    top = made_excerpts(12, seed=1)
    again = [Excerpt(one.tokens, one.values, one.document + 500) for one in top]
    record = parted(POINT, 0, [*top, *again], made_excerpts(9, seed=2, strong=False))
    assert len(record.train) == 3


def test_intervals_are_over_the_whole_range_and_nothing_of_train_is_in_them() -> None:
    record = made_record(top=12, sample=60)
    peaks = [[one.peak for one in part] for part in record.intervals]
    assert len(peaks) > 1
    assert all(max(low) <= min(high) for low, high in itertools.pairwise(peaks))
    assert all(one.peak > 0.1 * record.largest for part in record.intervals for one in part)
    assert all(one.peak <= 0.1 * record.largest for one in record.quiet) and record.quiet
    assert not any(
        one.overlaps(other) for part in record.intervals for one in part for other in record.train
    )


def test_a_dead_unit_and_one_with_too_little_are_refused_with_the_numbers() -> None:
    with pytest.raises(BadData, match="Unit 4 of .* never fires"):
        parted(POINT, 4, [Excerpt(("a",), (0.0,))], [])
    with pytest.raises(BadData, match="3 strongest and 9 random"):
        parted(POINT, 4, made_excerpts(3, seed=1), made_excerpts(9, seed=2))
    with pytest.raises(BadData, match="no part 'tset'"):
        made_record().part("tset")


def test_a_record_has_another_digest_when_anything_of_it_is_another() -> None:
    digests = {made_record().digest, made_record(unit=1).digest, made_record(top=16).digest}
    assert len(digests) == 3 and made_record().digest == made_record().digest


# -- of an atlas -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def atlas(llama_here: object, tmp_path_factory: pytest.TempPathFactory) -> garcon.Atlas:
    model = garcon.connect(llama_here)  # type: ignore[arg-type]
    rows = np.random.default_rng(3).integers(3, 263, size=(40, 14))
    path = tmp_path_factory.mktemp("explained") / "tiny"
    made = model.atlas(POINT, rows, path, k=24, before=3, after=2, batch_tokens=280, show=False)
    model.close()
    return made


def test_a_record_of_an_atlas_has_its_values(atlas: garcon.Atlas) -> None:
    known = atlas[POINT, 5]
    record = of_record(known)
    assert (record.point, record.unit) == (POINT, 5)
    assert record.largest == pytest.approx(known.moments["high"])
    first = known.examples[0]
    assert record.train[0].tokens == tuple(first.tokens)
    assert record.train[0].values == tuple(first.values)
    assert record.train[0].first == first.offset - first.at
    texts = [one.tokens for name in PARTS for one in record.part(name)]
    assert len(texts) == len(set(texts))


def test_a_unit_without_quiet_texts_of_its_own_borrows_them_and_says_so(
    atlas: garcon.Atlas, tmp_path: Path
) -> None:
    record = made_record(top=12, sample=9)
    loud = [one for one in made_excerpts(9, seed=7) if one.peak > 2]
    others = made_excerpts(3, seed=8)
    made = parted(POINT, 1, record.train * 4 + tuple(made_excerpts(9, seed=9)), loud, others=others)
    assert made.quiet == tuple(others)
    assert not parted(POINT, 1, made_excerpts(8, seed=9), loud).quiet


# -- heads -----------------------------------------------------------------------------------------


def test_pairs_of_a_head_are_its_strongest_and_random_ones() -> None:
    rng = np.random.default_rng(0)
    texts, patterns = [], []
    for n in range(12):
        pattern = np.tril(rng.random((6, 6))) * 0.02
        pattern[:, 0] = 0.9  # where heads rest
        pattern[4, 2] = 0.5 + n / 100
        texts.append([f" t{n}{k}" for k in range(6)])
        patterns.append(pattern)
    pairs = of_patterns("layers.0.attn.pattern", 3, texts, patterns)
    assert len(pairs.train) == len(pairs.test) == len(pairs.quiet) == 5
    assert {(one.query, one.key) for one in (*pairs.train, *pairs.test)} == {(4, 2)}
    assert pairs.largest == pytest.approx(0.61)
    assert [one.value for one in pairs.train] == pytest.approx([0.61, 0.59, 0.57, 0.55, 0.53])
    assert not {one.tokens for one in pairs.train} & {
        one.tokens for one in (*pairs.test, *pairs.quiet)
    }
    for one in pairs.quiet:
        assert one.value < 0.061 and 0 < one.key <= one.query
    resting = of_patterns("layers.0.attn.pattern", 3, texts, patterns, first=True)
    assert {one.key for one in resting.train} == {0}
    with pytest.raises(BadData, match="attends to nothing"):
        of_patterns(
            "layers.0.attn.pattern", 3, texts, [np.eye(6)[:, :1] @ np.ones((1, 6)) * 0] * 12
        )
