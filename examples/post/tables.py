"""The post's tables: neurons with the tokens of the data that moved them, and what changes when one is held at zero.

The post counts columns of both weights of an MLP as neurons. In ``linear2`` they are hidden units, in ``linear1`` channels of the residual stream; here are three kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from examples.post.corpus import Corpus
from examples.post.model import Model
from garcon_jupyter import training
from garcon_jupyter.training import FlipTable, TrainingRecord

KINDS = {
    "linear2, hidden unit": ("layers.*.linear2.weight", "hidden unit"),
    "linear1, hidden unit": ("layers.*.linear1.weight", "hidden unit"),
    "linear1, residual channel": ("layers.*.linear1.weight", "residual channel"),
}

LARGEST = 1000
"""How many outliers of a step count, over all of its data, as in the post."""


@dataclass(frozen=True, eq=False)
class Neuron:
    """One that many data moved.

    Attributes:
        unit: name of its weight.
        number: its own.
        side: "hidden unit" or "residual channel".
        outliers: how many of the data's largest gradients are of its weights.
        data: how many different data moved it.
        by_post: tokens that the post's choice names.
        by_data: (token, z) of those that distinct data name.
        flips: what changes without it.
    """

    unit: str
    number: int
    side: str
    outliers: int
    data: int
    by_post: list[str]
    by_data: list[tuple[str, float]]
    flips: FlipTable

    def flipped(self, least: int = 1) -> list[int]:
        """Tokens whose predictions change at so many places."""
        return [each.token for each in self.flips.tokens if each.flips >= least]


def neurons(
    record: TrainingRecord,
    model: Model,
    corpus: Corpus,
    most: int = 46,
    texts: int = 80,
    largest: int = LARGEST,
    kinds: Sequence[str] = tuple(KINDS),
) -> list[Neuron]:
    """Of each kind those with the most outliers, and what each does on texts that moved it.

    Args:
        record: of the training.
        model: as it was at the end.
        corpus: the words.
        most: how many of a kind; the post had 46.
        texts: how many of the data that moved it are read again.
        largest: how many outliers of a step count.
        kinds: names in ``KINDS``.
    """
    found = []
    for kind in kinds:
        pattern, side = KINDS[kind]
        table = record.neurons(pattern, side, largest=largest).neurons
        for each in sorted(table, key=lambda one: -one.outliers)[:most]:
            found.append((each, side))
    named = {
        (way, side, pattern): record.notable_tokens(pattern, way, side=side, largest=largest).tokens
        for pattern, side in (KINDS[kind] for kind in kinds)
        for way in ("frequency", "data")
    }
    made = []
    for each, side in found:
        ids = texts_of(record, each.unit, each.neuron, side, texts)
        axis = record.axis(each.unit, side)
        flips = training.flips(model, ids, each.unit, each.neuron, axis=axis)
        pattern = f"layers.*.{each.unit.split('.')[2]}.weight"
        mine = [
            [t for t in named[way, side, pattern] if (t.unit, t.neuron) == (each.unit, each.neuron)]
            for way in ("frequency", "data")
        ]
        by_post = [corpus.words[token.token] for token in mine[0]]
        by_data = [(corpus.words[token.token], token.z) for token in mine[1]]
        made.append(
            Neuron(each.unit, each.neuron, side, each.outliers, each.data, by_post, by_data, flips)
        )
    return made


def texts_of(record: TrainingRecord, unit: str, neuron: int, side: str, most: int) -> Tensor:
    """Some of the data that moved a neuron, evenly chosen, [data, places]."""
    table = record.of_neuron(unit, neuron, side)
    data = sorted(set(table.data[table.values != 0].tolist()))
    chosen = data[:: max(1, len(data) // most)][:most]
    return torch.tensor([record.tokens[datum] for datum in chosen])


def as_frame(found: Sequence[Neuron]) -> pd.DataFrame:
    """A row for each neuron, as in the post's third appendix."""
    rows = [
        {
            "weight": each.unit.removesuffix(".weight"),
            "neuron": each.number,
            "side": each.side,
            "data": each.data,
            "by frequency": " ".join(each.by_post),
            "by distinct data": " ".join(f"{word} ({z:.0f})" for word, z in each.by_data[:5]),
            "predictions changed": each.flips.positions,
            "tokens flipped": len(each.flipped()),
        }
        for each in found
    ]
    return pd.DataFrame(rows)


def averages(found: Sequence[Neuron], corpus: Corpus) -> pd.DataFrame:
    """By layer and kind: how many tokens are flipped, and what share of them was named; beside it, by the names of the next neuron of the kind: chance."""
    numbers = {word: number for number, word in enumerate(corpus.words)}
    rows = []
    kinds = sorted({(each.unit, each.side) for each in found}, reverse=True)
    for unit, side in kinds:
        mine = [each for each in found if (each.unit, each.side) == (unit, side)]
        names = [
            {numbers[word] for word in (*each.by_post, *(w for w, _ in each.by_data))}
            for each in mine
        ]
        own = [_share(each.flipped(), told) for each, told in zip(mine, names, strict=True)]
        others = [*names[1:], *names[:1]]
        chance = [_share(each.flipped(), told) for each, told in zip(mine, others, strict=True)]
        rows.append(
            {
                "weight": unit.removesuffix(".weight"),
                "side": side,
                "neurons": len(mine),
                "tokens flipped": sum(len(each.flipped()) for each in mine) / len(mine),
                "share that was named": sum(own) / len(own),
                "by the next one's names": sum(chance) / len(chance) if len(mine) > 1 else None,
                "neurons with names": sum(bool(each.by_data) for each in mine),
            }
        )
    return pd.DataFrame(rows)


def _share(tokens: Sequence[int], named: set[int]) -> float:
    return sum(token in named for token in tokens) / len(tokens) if tokens else 0.0


def flip_table(neuron: Neuron, corpus: Corpus, least: int = 2) -> pd.DataFrame:
    """The tokens that one neuron's ablation flips, as in the post."""
    named = {*neuron.by_post, *(word for word, _ in neuron.by_data)}
    rows = [
        {
            "token": corpus.words[each.token],
            "proportion": each.share,
            "count": each.predicted,
            "notable": corpus.words[each.token] in named,
        }
        for each in neuron.flips.tokens
        if each.predicted >= least
    ]
    return pd.DataFrame(rows, columns=["token", "proportion", "count", "notable"])


def in_context(neuron: Neuron, ids: Tensor, corpus: Corpus, most: int = 6, around: int = 9) -> str:
    """Texts with the places where a prediction changes, (before | after), as in the post."""
    lines = []
    changed = (neuron.flips.before != neuron.flips.after).nonzero().tolist()
    for row, at in changed[:: max(1, len(changed) // most)][:most]:
        words = [corpus.words[token] for token in ids[row].tolist()]
        one, two = (
            corpus.words[int(each[row, at])] for each in (neuron.flips.before, neuron.flips.after)
        )
        before, after = words[max(0, at + 1 - around) : at + 1], words[at + 1 : at + 1 + around]
        lines.append(f"… {' '.join(before)} ({one} | {two}) {' '.join(after)} …")
    return "\n".join(lines)
