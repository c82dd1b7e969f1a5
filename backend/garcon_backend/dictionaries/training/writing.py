"""The files of a trained dictionary, as SAELens has them (of several points, as Llama Scope's library): what it would infer with, and no
state of training.

Top-k of a batch is written as the jumprelu that it becomes, as SAELens does. Scales are in the weights.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from garcon_backend.dictionaries.formats import llama_scope
from garcon_backend.dictionaries.formats.saelens import CONFIG, WEIGHTS
from garcon_backend.dictionaries.training import writing_several
from garcon_backend.dictionaries.training.trainer import Trainer
from garcon_jupyter.dictionaries.places import hook_name
from garcon_jupyter.errors import BadData

LAYOUT = "6.54.12"
"""The release of SAELens whose layout this is."""

_NAMES = {
    "encoder": "W_enc",
    "encoder_bias": "b_enc",
    "decoder": "W_dec",
    "output_bias": "b_dec",
    "threshold": "threshold",
    "gate_bias": "b_gate",
    "gate_scale": "r_mag",
}
_GATED = {"encoder_bias": "b_mag"}
"""What is called otherwise in gated ones."""


def write(trainer: Trainer, directory: str | os.PathLike[str]) -> None:
    """Write what a trainer has learnt. Collective over its ranks; the first one writes.

    Raises:
        BadData: the directory cannot be written.
        BadRequest: nothing was trained.
    """
    several = bool(trainer.settings.several)
    tensors = _whole(trainer, trainer.learnt() if several else trainer.folded())
    if trainer.ranks.rank:
        return
    folder = Path(directory)
    if several:
        stored, config = (
            writing_several.tensors_of(trainer, tensors),
            writing_several.config_of(trainer),
        )
        files = llama_scope.WEIGHTS[0], llama_scope.CONFIG
    else:
        stored, config = _named(tensors), _config(trainer)
        files = WEIGHTS, CONFIG
    stored = {name: value.cpu().contiguous() for name, value in stored.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _put(folder / files[0], safetensors.torch.save(stored))
        _put(folder / files[1], json.dumps(config, indent=1).encode())
    except OSError as error:
        raise BadData(
            f"The dictionary could not be written to {folder}: {error.strerror or error}.",
            "Make room, or give write() another directory; what was trained is still there.",
        ) from None


def _put(file: Path, content: bytes) -> None:
    """A file that is there whole or not at all."""
    temporary = file.with_name(f".{file.name}.writing")
    temporary.write_bytes(content)
    temporary.replace(file)


def _named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """By SAELens's names."""
    names = _NAMES | _GATED if "gate_bias" in tensors else _NAMES
    stored = {names[name]: value for name, value in tensors.items()}
    return stored | {"W_enc": stored["W_enc"].T}


def _whole(trainer: Trainer, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The latents of all ranks, of those of this one."""
    width = trainer.settings.latents

    def joined(value: Tensor) -> Tensor:
        return trainer.ranks.all_gather(value.movedim(0, -1).contiguous(), width).movedim(-1, 0)

    return {name: value if name == "output_bias" else joined(value) for name, value in own.items()}


def _config(trainer: Trainer) -> dict[str, Any]:
    settings = trainer.settings
    points = trainer.curve.points
    config: dict[str, Any] = {
        "architecture": settings.architecture,
        "d_in": trainer.d_in,
        "d_sae": settings.width,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": settings.autoencodes,
        "normalize_activations": "none",
        "reshape_activations": "none",
    }
    if settings.kind == "topk":
        config |= {"k": settings.k, "rescale_acts_by_decoder_norm": False}
    metadata = {
        "sae_lens_version": LAYOUT,
        "sae_lens_training_version": None,
        "trained_by": "garcon-jupyter",
        "training_architecture": settings.kind,
        "training_tokens": trainer.tokens,
        "model_name": settings.model,
        "hook_name": hook_name(settings.reads),
        "excluded_tokens": list(settings.left_out),
        "l0": points[-1].l0 if points else None,
        "variance_unexplained": points[-1].unexplained if points else None,
    }
    if not settings.autoencodes:
        config["d_out"] = trainer.d_out
        metadata["hook_name_out"] = hook_name(settings.writes)
    return {**config, "metadata": metadata}
