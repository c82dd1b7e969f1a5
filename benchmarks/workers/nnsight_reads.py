"""nnsight: four reads in one trace, in process and through what a remote request goes through."""

from __future__ import annotations

from typing import Any

import torch
from loop import serve
from nnsight import LanguageModel
from transformers import AutoModelForCausalLM, AutoTokenizer

held: dict[str, Any] = {}


def load(path: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(path)
    held["model"] = LanguageModel(
        AutoModelForCausalLM.from_pretrained(path).eval(), tokenizer=tokenizer
    )


def here(ids: Any) -> Any:
    model = held["model"]
    with torch.no_grad(), model.trace(torch.as_tensor(ids)):
        a = model.model.layers[0].mlp.down_proj.input.save()
        b = model.model.layers[1].mlp.down_proj.input.save()
        c = model.model.layers[2].mlp.down_proj.input.save()
        d = model.model.layers[3].mlp.down_proj.input.save()
        logits = model.output.logits.save()
    return logits, a, b, c, d


def remote(ids: Any) -> Any:
    model = held["model"]
    with torch.no_grad(), model.trace(torch.as_tensor(ids), remote="local"):
        a = model.model.layers[0].mlp.down_proj.input.save()
        b = model.model.layers[1].mlp.down_proj.input.save()
        c = model.model.layers[2].mlp.down_proj.input.save()
        d = model.model.layers[3].mlp.down_proj.input.save()
        logits = model.output.logits.save()
    return logits, a, b, c, d


if __name__ == "__main__":
    serve({"load": load, "here": here, "remote": remote})
