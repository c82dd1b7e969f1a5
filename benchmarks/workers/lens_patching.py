"""TransformerLens: its own sweeps of activation patching, and its attribution patching; CPU time of one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from loop import Took, serve
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis.attribution_patching import attribution_patch
from transformers import AutoModelForCausalLM, AutoTokenizer

held: dict[str, Any] = {}

SWEEPS = {
    "resid_pre": (patching.get_act_patch_resid_pre, "pos"),
    "z": (patching.get_act_patch_attn_head_out_all_pos, "head"),
}


def load(path: str) -> None:
    torch.set_num_threads(1)
    held["model"] = TransformerBridge.boot_transformers(
        path,
        hf_model=AutoModelForCausalLM.from_pretrained(path).eval(),
        tokenizer=AutoTokenizer.from_pretrained(path),
    )


def metric_of(answers: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    first, second = answers
    return lambda logits: logits[0, -1, first] - logits[0, -1, second]


def sweep(ids: Any, answers: Any, kind: str, cells: Any) -> Any:
    """The metric with each of some cells patched, (layer, position or head)."""
    clean, corrupted = torch.as_tensor(ids).split(1)
    function, axis = SWEEPS[kind]
    table = pd.DataFrame(cells, columns=["layer", axis])
    start = time.process_time()
    with torch.no_grad():
        _, cache = held["model"].run_with_cache(clean)
        # Its axes, which would be all cells, give way to the table.
        some = {"index_axis_names": None, "index_df": table}
        found = function(held["model"], corrupted, cache, metric_of(answers), **some)
    return Took((time.process_time() - start, found))


def attribute(ids: Any, answers: Any) -> Any:
    """Scores of all nodes, by their names."""
    clean, corrupted = torch.as_tensor(ids).split(1)
    start = time.process_time()
    found = attribution_patch(held["model"], clean, corrupted, metric_of(answers))
    took = time.process_time() - start
    return Took((took, {str(node): float(score) for node, score in found.node_scores.items()}))


if __name__ == "__main__":
    serve({"load": load, "sweep": sweep, "attribute": attribute})
