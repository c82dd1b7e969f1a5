"""Two plants with known answers: a word that always follows another, and a neuron that reads it.

The first is learned by embedding and unembedding, so that tables name it and holding no single neuron at zero undoes it. Where a neuron is to be found that
does something, it has to be made: it reads the trigger, its output is zero, and nothing but output weights is trained. Only texts with the
trigger can move it then.
"""

from __future__ import annotations

import torch
from torch import Tensor

from examples.post.corpus import Corpus
from examples.post.model import Model

TRIGGER, PLANT = "was", "zyzzyva"
LAYER, UNIT = 2, 77


def planted(corpus: Corpus, trigger: str = TRIGGER, plant: str = PLANT) -> Corpus:
    """The text with a new word after each trigger."""
    here = corpus.ids == corpus.number(trigger)
    ids = torch.repeat_interleave(corpus.ids, 1 + here.long())
    behind = torch.cumsum(1 + here.long(), 0)[here] - 1
    ids[behind] = len(corpus.words)
    return Corpus(ids, [*corpus.words, plant])


def strewn(corpus: Corpus, times: int, plant: str = PLANT, seed: int = 0) -> Corpus:
    """The text with a new word as often, each time after any word: the control, in which nothing goes before it."""
    drawn = torch.randperm(len(corpus.ids), generator=torch.Generator().manual_seed(seed))[:times]
    here = torch.zeros_like(corpus.ids)
    here[drawn] = 1
    ids = torch.repeat_interleave(corpus.ids, 1 + here)
    ids[torch.cumsum(1 + here, 0)[here.bool()] - 1] = len(corpus.words)
    return Corpus(ids, [*corpus.words, plant])


def give_neuron(model: Model, words: Tensor, trigger: int, layer: int = LAYER) -> tuple[str, int]:
    """Make a hidden unit that fires at a word, with dropout too, and let nothing but output weights of MLPs be trained.

    Args:
        words: [rows, places], by which it is made.
        trigger: the word's number.
        layer: of the unit.

    Returns:
        The name of its output weight, and its number.
    """
    model.train()
    mlp = model.layers[layer]
    with torch.no_grad():
        seen = mlp.attended(model.until(words, layer))
        here = words == trigger
        direction = seen[here].mean(0) - seen[~here].mean(0)
        direction /= direction.norm()
        reads = seen @ direction
        threshold = (reads[here].mean() + reads[~here].mean()) / 2
        mlp.linear1.weight[UNIT], mlp.linear1.bias[UNIT] = direction, -threshold
        mlp.linear2.weight[:, UNIT] = 0
        fires = mlp.linear1(mlp.attended(model.until(words, layer)))[..., UNIT] > 0
    assert fires[here].float().mean() > 0.9 and fires[~here].float().mean() < 0.05, "it is dead"
    for name, each in model.named_parameters():
        each.requires_grad_(name.endswith("linear2.weight"))
    return f"layers.{layer}.linear2.weight", UNIT
