"""The files of a trained crosscoder or cross-layer transcoder, as Llama Scope's library has them.

Rows are scaled to length √D there too, by the average lengths among the tensors; so weights are written as they were learnt. That layout
subtracts no bias from what is read: where training did, the encoder's bias takes it up.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from garcon_backend.dictionaries.training.trainer import Trainer
from garcon_jupyter.dictionaries.places import hook_name
from garcon_jupyter.wire.dictionary_training import CROSS_LAYER

LAYOUT = "2.0.0b34"
"""The release of llamascopium whose layout this is."""

_NORM = "dataset_average_activation_norm."


def tensors_of(trainer: Trainer, learnt: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the file.

    Args:
        learnt: the latents of all ranks, as :meth:`Trainer.learnt` has them.
    """
    settings, points = trainer.settings, len(trainer.settings.ends)
    encoder, decoder = (learnt[name].unflatten(-1, (points, -1)) for name in ("encoder", "decoder"))
    biases, outputs = learnt["encoder_bias"], learnt["output_bias"].unflatten(0, (points, -1))
    thresholds = learnt["threshold"].clamp(min=1e-30).log()
    key = "activation_function.log_jumprelu_threshold"
    if settings.kind == CROSS_LAYER:
        by_layer = (points, settings.width)
        encoder, decoder = encoder.unflatten(0, by_layer), decoder.unflatten(0, by_layer)
        found = {
            "W_E": torch.stack([encoder[i, :, i].T for i in range(points)]),
            "b_E": biases.unflatten(0, by_layer),
            key: thresholds.unflatten(0, by_layer),
        }
        for j in range(points):
            found |= {f"W_D.{j}": decoder[: j + 1, :, j], f"b_D.{j}": outputs[j]}
    else:
        if settings.autoencodes:
            biases = biases - learnt["encoder"] @ learnt["output_bias"]
        found = {
            "W_E": encoder.permute(1, 2, 0),
            "b_E": torch.cat([biases[None], biases.new_zeros(points - 1, len(biases))]),
            "W_D": decoder.permute(1, 0, 2),
            "b_D": outputs,
            key: thresholds,
        }
    sides = zip(*settings.ends, strict=True)
    widths = (trainer.d_in // points, trainer.d_out // points)
    for names, scales, width in zip(sides, trainer.point_scales, widths, strict=True):
        for name, scale in zip(names, scales, strict=True):
            found[f"{_NORM}{hook_name(name)}"] = torch.tensor(math.sqrt(width) / scale)
    return found


def config_of(trainer: Trainer) -> dict[str, Any]:
    """The configuration beside them."""
    settings, d_model = trainer.settings, trainer.d_in // len(trainer.settings.ends)
    reads, writes = (
        [hook_name(name) for name in side] for side in zip(*settings.ends, strict=True)
    )
    config = {
        "sae_type": settings.architecture,
        "d_model": d_model,
        "expansion_factor": _factor(settings.width, d_model),
        "use_decoder_bias": True,
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": False,
        "dtype": "float32",
        "trained_by": "garcon-jupyter",
        "layout": LAYOUT,
        "training_tokens": trainer.tokens,
        "model_name": settings.model,
    }
    if settings.kind == CROSS_LAYER:
        return config | {"hook_points_in": reads, "hook_points_out": writes}
    return config | {"hook_points": reads}


def _factor(width: int, d_model: int) -> float:
    """What times the model's width is so many latents, once it is rounded down."""
    factor = width / d_model
    return factor if int(d_model * factor) == width else math.nextafter(factor, math.inf)
