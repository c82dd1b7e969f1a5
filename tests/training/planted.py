"""A small model of the seed's kind, a corpus with a trigger and what follows it, and a neuron that reads the trigger.

A bigram that is planted in the data alone is learned by embedding and unembedding, and no neuron need have to do with it. So the neuron is made: its row of
``linear1`` reads the trigger, its column of ``linear2`` is zero, and only that weight is trained. Then only data with the trigger
can move that column.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from garcon_jupyter import training

WORDS, WIDE, HIDDEN, PLACES, ROWS = 120, 32, 40, 20, 20
TRIGGER, PLANT, UNIT = 100, 101, 7


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDE, WIDE) for _ in range(4))
        self.linear1, self.linear2 = nn.Linear(WIDE, HIDDEN), nn.Linear(HIDDEN, WIDE)
        self.norm1, self.norm2, self.drop = nn.LayerNorm(WIDE), nn.LayerNorm(WIDE), nn.Dropout(0.1)

    def attended(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.norm1(x + self.drop(self.out(z.transpose(1, 2).flatten(2))))

    def forward(self, x: Tensor) -> Tensor:
        x = self.attended(x)
        return self.norm2(x + self.drop(self.linear2(self.linear1(x).relu())))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(WORDS, WIDE), nn.Linear(WIDE, WORDS)
        self.layers = nn.ModuleList([Layer(), Layer()])

    def until(self, ids: Tensor, layer: int) -> Tensor:
        x = self.table(ids)
        for each in self.layers[:layer]:
            x = each(x)
        return x

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.until(ids, len(self.layers)))


def corpus(rows: int, planted: bool = True) -> Tensor:
    """Texts [rows, PLACES]: words as rare as words are, and in every tenth the trigger, with the plant after it."""
    made = torch.Generator().manual_seed(1)
    weights = 1 / torch.arange(1, TRIGGER + 1, dtype=torch.float64)
    ids = torch.multinomial(weights, rows * PLACES, True, generator=made).view(rows, PLACES)
    places = torch.randint(1, PLACES - 1, (rows,), generator=made)
    for row in range(0, rows, 10):
        ids[row, places[row]] = TRIGGER
        if planted:
            ids[row, places[row] + 1] = PLANT
    return ids


def made() -> Model:
    """The model, with the neuron: it fires at the trigger, and nearly nowhere else, with dropout too."""
    torch.manual_seed(0)
    model, ids = Model().train(), corpus(200)
    layer = model.layers[1]
    with torch.no_grad():
        seen = layer.attended(model.until(ids, 1))
        here = ids == TRIGGER
        direction = seen[here].mean(0) - seen[~here].mean(0)
        direction /= direction.norm()
        reads = seen @ direction
        threshold = (reads[here].mean() + reads[~here].mean()) / 2
        layer.linear1.weight[UNIT], layer.linear1.bias[UNIT] = direction * 8, -threshold * 8
        layer.linear2.weight[:, UNIT] = 0
        fires = layer.linear1(layer.attended(model.until(ids, 1)))[..., UNIT] > 0
        assert fires[here].float().mean() > 0.9 and fires[~here].float().mean() < 0.02
    for name, each in model.named_parameters():
        each.requires_grad_(name == "layers.1.linear2.weight")
    return model


def trained(path: Path, steps: int = 60, planted: bool = True) -> Model:
    """Train on the corpus once over, and record it."""
    model = made()
    ids = corpus(ROWS * steps, planted)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with training.record(model, path, k=25, chunk=16) as record:
        for step in range(steps):
            data = range(step * ROWS, (step + 1) * ROWS)
            batch = ids[data.start : data.stop]
            logits = model(batch)[:, :-1]
            functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
            record.data(data)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
    return model
