"""SAELens: its own trainer, from tokens to a top-k dictionary."""

from __future__ import annotations

import time
from pathlib import Path
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
from safetensors.torch import load_file


def train(path: str, rows: Any, asked: dict[str, Any], out: str) -> Any:
    """(tokens, folder of the dictionary) of a training, without the time that loading takes.

    Args:
        path: of the model.
        rows: tokens [n, length].
        asked: layer, width, k, lr, batch, warm_up, rows_of_buffer.
        out: folder for the dictionary.
    """
    length, batch = rows.shape[1], asked["batch"]
    prompts = batch // length
    tokens = len(rows) * (length - 1) // batch * batch
    settings = LanguageModelSAERunnerConfig(
        sae=TopKTrainingSAEConfig(
            d_in=asked["d_in"],
            d_sae=asked["width"],
            k=asked["k"],
            use_sparse_activations=asked.get("sparse", True),
            normalize_activations=asked.get("normalize", "none"),
        ),
        model_name=path,
        model_class_name="AutoModelForCausalLM",
        hook_name=f"model.layers.{asked['layer']}",
        is_dataset_tokenized=True,
        context_size=length,
        prepend_bos=False,
        seqpos_slice=(1, None),  # the first token of each row is left out
        training_tokens=tokens,
        train_batch_size_tokens=batch,
        store_batch_size_prompts=prompts,
        n_batches_in_buffer=asked["rows_of_buffer"] // (length - 1),
        lr=asked["lr"],
        lr_warm_up_steps=asked["warm_up"],
        lr_decay_steps=int(0.2 * tokens / batch),
        dead_feature_window=asked["dead_after"],
        output_path=out,
        logger=LoggingConfig(log_to_wandb=False),
        n_batches_for_norm_estimate=5,
    )
    data = Dataset.from_dict({"tokens": [row.tolist() for row in rows]})
    runner = LanguageModelSAETrainingRunner(settings, override_dataset=data)
    start = time.perf_counter()
    runner.run()
    return Took((time.perf_counter() - start, (tokens, out)))


def reconstructions(folder: str, values: Any) -> Any:
    """What a written dictionary makes of activations, by SAELens."""
    from sae_lens import SAE

    found = SAE.load_from_disk(folder, device="cpu")
    with torch.no_grad():
        return found(torch.as_tensor(values))


def tensors(folder: str) -> Any:
    """The tensors of a dictionary's file, by name."""
    return load_file(Path(folder) / "sae_weights.safetensors")


if __name__ == "__main__":
    serve({"train": train, "reconstructions": reconstructions, "tensors": tensors})
