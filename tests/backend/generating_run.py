"""What each rank does in the tests of generation, and the same by plain transformers with plain hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
)

from garcon_backend.distributed.mesh import Mesh
from garcon_backend.libraries.transformers_internals import CACHE
from garcon_jupyter.wire.launch_spec import Degrees
from tests.backend.bare_rank import BareRank

IDS = (torch.arange(21).view(3, 7) * 37 + 11) % 263
MASK = torch.ones_like(IDS)
MASK[1, :3] = MASK[2, :1] = 0
NEW = 7
SEED = 5
POINT = "layers.1.resid_post"


class EndsAt(StoppingCriteria):
    """Ends each row at another length."""

    def __call__(self, ids: Any, scores: Any, **kwargs: Any) -> Any:
        return torch.tensor([ids.shape[1] >= 9 + row for row in range(len(ids))])


class Low(LogitsProcessor):
    """Only tokens of low numbers, and of those by a rule that depends on what was there."""

    def __call__(self, ids: Any, scores: Any) -> Any:
        scores = scores.clone()
        scores[:, 60 + ids.shape[1] :] = -torch.inf
        return scores


def allowed(batch: int, ids: Tensor) -> list[int]:
    """Which tokens may come next."""
    return list(range(20 + 10 * batch, 90, 1 + len(ids) % 3))


OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "uncached": {"use_cache": False},
    "beams": {"num_beams": 3},
    "several beams": {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.3},
    "samples": {"do_sample": True, "num_return_sequences": 2, "temperature": 1.3, "top_k": 40},
    "at least": {"min_new_tokens": NEW},
    "penalty": {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2},
    "criteria": {"stopping_criteria": StoppingCriteriaList([EndsAt()]), "eos_token_id": []},
    "processors": {"logits_processor": LogitsProcessorList([Low(), TemperatureLogitsWarper(0.5)])},
    "allowed": {"prefix_allowed_tokens_fn": allowed},
    "guidance": {"guidance_scale": 1.5},
    "in chunks": {"prefill_chunk_size": 3},
    "the whole": {"max_length": 12},
}
"""What is asked of generate, by what it is about."""


def end_of(model: Any) -> int:
    """A token at which some row ends early."""
    free = _plainly(model, {"eos_token_id": []}).sequences[:, IDS.shape[1] :]
    return int(free[1, 2])


def _plainly(model: Any, options: dict[str, Any]) -> Any:
    torch.manual_seed(SEED)
    base = {"do_sample": False, "pad_token_id": 2, "return_dict_in_generate": True}
    if "max_length" not in options:
        base["max_new_tokens"] = NEW
    return model.generate(IDS, attention_mask=MASK, output_scores=True, **{**base, **options})


def plainly(path: Path) -> dict[str, dict[str, Any]]:
    """Of each option, what transformers gives and what its forwards were given."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    end = end_of(model)
    found = {}
    for name, options in OPTIONS.items():
        read: list[dict[str, Any]] = []
        top = model.register_forward_pre_hook(
            lambda m, a, k, read=read: read.append(_given(a, k)), with_kwargs=True
        )
        layer = model.model.layers[1].register_forward_pre_hook(
            lambda m, a, k, read=read: read[-1].update(positions=k["position_ids"]),
            with_kwargs=True,
        )
        output = _plainly(model, {"eos_token_id": end, **options})
        top.remove()
        layer.remove()
        found[name] = {"output": output, "read": read}
    found["end"] = end  # type: ignore[assignment]
    return found


def _given(args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    ids, mask = kwargs["input_ids"] if not args else args[0], kwargs.get("attention_mask")
    cache = kwargs.get(CACHE)
    past = 0 if cache is None else cache.get_seq_length()
    mask = torch.ones(len(ids), past + ids.shape[1]) if mask is None else mask
    return {"tokens": ids.clone(), "mask": mask.bool()}


def by_us(ours: BareRank, end: int) -> dict[str, dict[str, Any]]:
    """The same by us, as far as this rank is told."""
    found = {}
    for name, options in OPTIONS.items():
        read: list[dict[str, Any]] = []

        def look(context: Any, tensor: Tensor, read: list[Any] = read) -> None:
            here = context.here
            told = {"tokens": here.tokens, "mask": here.mask, "positions": here.positions}
            read.append({**told, "step": here.step, "rows": len(tensor), "width": tensor.shape[1]})

        limit = {} if "max_length" in options else {"max_new_tokens": NEW}
        asked = {"eos_token_id": end, **options, **limit, "output_scores": True}
        answer = ours.generated(IDS, MASK, {POINT: look}, SEED, **asked)
        found[name] = {"answer": answer, "read": read}
    return found


def on_ranks(path: str, folder: str, layout: dict[str, int], end: int) -> None:
    """On every rank: load, generate, and write down what came."""
    torch.set_num_threads(1)
    mesh = Mesh.form(Degrees(**layout))
    torch.save(by_us(BareRank(Path(path), None, mesh), end), f"{folder}/{mesh.rank}.pt")
    mesh.leave()
