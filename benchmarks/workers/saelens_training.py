"""SAELens: its own trainer, from tokens to a top-k dictionary. CPU time of one thread."""

from __future__ import annotations

import time
from typing import Any

import torch
from datasets import Dataset
from loop import Took, serve
from sae_lens import (
    LanguageModelSAERunnerConfig,
    LanguageModelSAETrainingRunner,
    LoggingConfig,
    TopKTrainingSAEConfig,
)


def train(rows: Any, path: str, asked: dict[str, Any], out: str) -> Any:
    """Train on rows of tokens, the first of each left out; the time is without that of loading the model.

    Args:
        rows: tokens [n, length].
        path: of the model, as transformers loads it: SAELens's quickest way to the activations.
        asked: layer, d_in, width, k, lr, batch, buffered, normalize.
        out: folder for the dictionary.
    """
    torch.set_num_threads(1)
    length, batch = rows.shape[1], asked["batch"]
    settings = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(
            d_in=asked["d_in"],
            d_sae=asked["width"],
            k=asked["k"],
            normalize_activations=asked["normalize"],
        ),
        model_name=path,
        model_class_name="AutoModelForCausalLM",
        hook_name=f"model.layers.{asked['layer']}",
        is_dataset_tokenized=True,
        context_size=length,
        prepend_bos=False,
        seqpos_slice=(1, None),
        training_tokens=rows.shape[0] * (length - 1) // batch * batch,
        train_batch_size_tokens=batch,
        store_batch_size_prompts=batch // length,
        n_batches_in_buffer=asked["buffered"] // (length - 1),
        lr=asked["lr"],
        n_batches_for_norm_estimate=2,
        output_path=out,
        logger=LoggingConfig(log_to_wandb=False),
    )
    data = Dataset.from_dict({"tokens": [row.tolist() for row in rows]})
    runner = LanguageModelSAETrainingRunner(settings, override_dataset=data)
    start = time.process_time()
    runner.run()
    return Took((time.process_time() - start, out))


if __name__ == "__main__":
    serve({"train": train})
