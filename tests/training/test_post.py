"""The post's experiment in short: both plants are found where they are, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples.post import checks, plants, tables
from examples.post.checks import Planted
from examples.post.corpus import Corpus, corpus, encyclopedia, split
from examples.post.model import Model
from examples.post.plants import PLANT, TRIGGER, UNIT

pytestmark = pytest.mark.lasting

WEIGHT = f"layers.{plants.LAYER}.linear2.weight"


@pytest.fixture(scope="module")
def text() -> Corpus:
    return corpus(most=1000)


@pytest.fixture(scope="module")
def bigram(text: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    folder = tmp_path_factory.mktemp("bigram")
    return checks.bigram(folder / "record", plants.planted(text), 80)


def test_the_text_is_the_encyclopedia_in_words(text: Corpus) -> None:
    assert split('It\'s (a) "test": one, two!') == [
        "it",
        "'",
        "s",
        *"(a)",
        "test",
        "one",
        *",",
        "two",
        "!",
    ]
    words = encyclopedia()
    assert 540_000 < len(words) == len(text.ids) and words.count("war") == 566
    data = text.data()
    assert data.shape[1:] == (20, 36) and data[0, :, 35].equal(data[1, :, 0])
    assert text.ids[:36].equal(data[0, 0]) and len(text.words) == 1000
    assert sum(each.numel() for each in Model(28_000).parameters()) == pytest.approx(12e6, rel=0.01)


def test_the_plant_stands_behind_every_trigger_and_nowhere_else(text: Corpus) -> None:
    for made in (plants.planted(text), plants.strewn(text, 3000)):
        plant = made.number(PLANT)
        assert made.ids[made.ids != plant].equal(text.ids)
        behind = made.ids[(made.ids == plant).nonzero()[:, 0] - 1] == text.number(TRIGGER)
        assert behind.all() if made.ids.eq(plant).sum() > 3000 else behind.float().mean() < 0.1


def test_a_planted_bigram_is_named_by_the_tables(bigram: Planted) -> None:
    assert bigram.course.mean(slice(-10, None)) < bigram.course.mean(slice(0, 10)) - 1
    best = bigram.best(PLANT)
    assert best[0].z >= 5 and len(best) > 1000
    assert max(each.z for each in bigram.best(PLANT, shuffled=1)) <= 4  # the data's ids exchanged
    # And yet no neuron has it: embedding and unembedding do without.
    ((_, rise),) = bigram.rises([best[0].unit], [best[0].neuron]).items()
    assert abs(rise) < 0.1


def test_a_made_neuron_is_named_alone(text: Corpus, tmp_path: Path) -> None:
    made = checks.made_neuron(tmp_path / "record", plants.planted(text), 140)
    for word in (TRIGGER, PLANT):
        first, second, *_ = sorted(made.best(word), key=lambda each: -each.relative)
        assert (first.unit, first.neuron) == (WEIGHT, UNIT)
        assert first.relative >= 5 > 3 >= second.relative and first.z > 10
    rises = made.rises([WEIGHT], [UNIT, 1, 2, 3])
    own = rises.pop((WEIGHT, UNIT))
    assert own > 0.05 > 10 * max(rises.values())


def test_the_posts_tables_are_of_the_record(bigram: Planted, text: Corpus) -> None:
    found = tables.neurons(bigram.record, bigram.model, bigram.corpus, most=2, texts=10)
    assert [each.side for each in found] == 4 * ["hidden unit"] + 2 * ["residual channel"]
    for each in found:
        ids = tables.texts_of(bigram.record, each.unit, each.number, each.side, 10)
        with torch.no_grad():
            assert bigram.model.eval()(ids).argmax(-1).equal(each.flips.before)
        rows = tables.flip_table(each, bigram.corpus, least=1)
        assert list(rows["token"]) == [bigram.corpus.words[t] for t in each.flipped()]
        shown = tables.in_context(each, ids, bigram.corpus)
        assert shown.count(" | ") == min(6, each.flips.positions) or each.flips.positions > 6
    frame = tables.averages(found, bigram.corpus)
    assert frame["neurons"].sum() == 6 and len(tables.as_frame(found)) == 6
