"""nnsight: one forward per batch, whose ten largest values of every neuron are merged with those before."""

from __future__ import annotations

from typing import Any

import torch
from loop import serve
from nnsight import LanguageModel, save
from transformers import AutoModelForCausalLM, AutoTokenizer

held: dict[str, Any] = {}


def load(path: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path)
    held["model"] = LanguageModel(
        AutoModelForCausalLM.from_pretrained(path).eval(), tokenizer=tokenizer
    )
    held["best"], held["tokens"] = {}, 0


def batch(ids: Any, k: int) -> None:
    """Merge the k largest of a batch into what is kept; a place is counted over all batches."""
    model, best = held["model"], held["best"]
    with torch.no_grad(), model.trace(torch.as_tensor(ids)):
        found = save([])
        for layer in model.model.layers:
            found.append(layer.mlp.down_proj.input.flatten(0, 1).topk(k, 0))
    for layer, top in enumerate(found):
        values, places = top.values, top.indices + held["tokens"]
        if layer in best:
            values = torch.cat([best[layer][0], values])
            places = torch.cat([best[layer][1], places])
            order = values.topk(k, 0).indices
            values, places = values.gather(0, order), places.gather(0, order)
        best[layer] = values, places
    held["tokens"] += ids.size


def result() -> Any:
    """The k largest of each layer, [layers, k, units]."""
    return torch.stack([values for values, _ in held["best"].values()])


if __name__ == "__main__":
    serve({"load": load, "batch": batch, "result": result})
