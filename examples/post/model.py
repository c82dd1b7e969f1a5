"""The post's model: three layers, 200 wide, four heads, norms after each part, sine positions; 28,000 words made 12.2 million parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDE, HIDDEN, HEADS, LAYERS = 200, 200, 4, 3


class Attention(nn.Module):
    """Heads with a weight each for queries, keys and values, so that a record tells them apart."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out_proj = (nn.Linear(WIDE, WIDE) for _ in range(4))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            made(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for made in (self.query, self.key, self.value)
        )
        dropped = self.dropout if self.training else 0.0
        z = functional.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropped)
        return self.out_proj(z.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A layer with its norms behind attention and MLP; the names are those of torch's own."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(dropout)
        self.linear1, self.linear2 = nn.Linear(WIDE, HIDDEN), nn.Linear(HIDDEN, WIDE)
        self.norm1, self.norm2 = nn.LayerNorm(WIDE), nn.LayerNorm(WIDE)
        self.drop = nn.Dropout(dropout)

    def attended(self, x: Tensor) -> Tensor:
        """What the MLP reads."""
        return self.norm1(x + self.drop(self.self_attn(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.attended(x)
        return self.norm2(x + self.drop(self.linear2(self.drop(self.linear1(x).relu()))))


class Model(nn.Module):
    """The model; gives logits [rows, places, words]."""

    def __init__(self, words: int, dropout: float = 0.2, places: int = 64) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(words, WIDE), nn.Linear(WIDE, words)
        self.layers = nn.ModuleList([Layer(dropout) for _ in range(LAYERS)])
        self.drop = nn.Dropout(dropout)
        angles = torch.arange(places)[:, None] / 10_000 ** (torch.arange(0, WIDE, 2) / WIDE)
        waves = torch.stack([angles.sin(), angles.cos()], 2).flatten(1)
        self.register_buffer("places", waves)
        for each in (self.table, self.head):
            nn.init.uniform_(each.weight, -0.1, 0.1)
        nn.init.zeros_(self.head.bias)

    def until(self, ids: Tensor, layer: int) -> Tensor:
        """What a layer reads."""
        x = self.drop(self.table(ids) * WIDE**0.5 + self.places[: ids.shape[1]])
        for each in self.layers[:layer]:
            x = each(x)
        return x

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.until(ids, LAYERS))
