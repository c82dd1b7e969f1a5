"""The two plants, trained and looked for: what tables say of them, and what holding neurons at zero does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from examples.post import plants
from examples.post.corpus import Corpus
from examples.post.model import Model
from examples.post.training import Course, train
from garcon_jupyter import training
from garcon_jupyter.training import TrainingRecord
from garcon_jupyter.training.questions.notable import NotableToken

AT_LEAST = 40
"""How many different data must have moved a neuron that is asked."""


@dataclass(frozen=True, eq=False)
class Planted:
    """A training on a text with a plant.

    Attributes:
        record: of it.
        model: at its end.
        course: how it went.
        corpus: the text.
        held_out: texts that it did not read, [rows, places].
    """

    record: TrainingRecord
    model: Model
    course: Course
    corpus: Corpus
    held_out: Tensor

    def best(
        self, word: str, shuffled: int | None = None, pattern: str = "*"
    ) -> list[NotableToken]:
        """A word's numbers at all neurons that enough data moved, those with the largest z first."""
        found = self.record.notable_tokens(
            pattern,
            at_least=AT_LEAST,
            false_discoveries=1.0,
            tokens=[self.corpus.number(word)],
            shuffled=shuffled,
        )
        return sorted(found.tokens, key=lambda each: -each.z)

    def rises(self, weights: Sequence[str], numbers: Sequence[int]) -> dict[tuple[str, int], float]:
        """How much the loss rises where the plant stands, with single hidden units held at zero."""
        plant = self.corpus.number(plants.PLANT)
        found = {}
        for weight in weights:
            axis = self.record.axis(weight, "hidden unit")
            for number in numbers:
                flips = training.flips(self.model, self.held_out, weight, number, axis=axis)
                found[weight, number] = flips.loss[plant]
        return found


def bigram(folder: Path, corpus: Corpus, steps: int, rate: float = 1.0) -> Planted:
    """Train on a text in which a new word follows every trigger, or, where it holds none, on the text as it is."""
    torch.manual_seed(0)
    return _trained(folder, corpus, Model(len(corpus.words)), steps, rate)


def made_neuron(folder: Path, corpus: Corpus, steps: int, rate: float = 5.0) -> Planted:
    """Train output weights alone of a model with a neuron that reads the trigger."""
    torch.manual_seed(0)
    model, words = Model(len(corpus.words)), corpus.data()[:20].flatten(0, 1)
    plants.give_neuron(model, words, corpus.number(plants.TRIGGER))
    return _trained(folder, corpus, model, steps, rate)


def _trained(folder: Path, corpus: Corpus, model: Model, steps: int, rate: float) -> Planted:
    data = corpus.data()
    course = train(model, data, folder, rate=rate, most=steps, norms=False)
    held_out = data[steps : steps + 8, :, :-1].flatten(0, 1)
    return Planted(training.open_record(folder), model, course, corpus, held_out)
