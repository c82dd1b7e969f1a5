"""Falcon-H1 (TII 2025): in every layer attention and Mamba-2 side by side, behind one norm; then a gated MLP.

What is projected and what is added is multiplied throughout by numbers of the configuration: ``attn.out``, ``mixer.out`` and
``mlp.out`` are before them, contributions after; ``attn.k_rot`` is multiplied, ``attn.k`` is not.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites import recurrences
from garcon_backend.hook_sites.sites import Input, Inside, Output
from garcon_backend.hook_sites.staged.layers import parallel_layer
from garcon_backend.models.families import bamba, decoder, mixers
from garcon_backend.models.family import Family, norm_points, norm_weights, standard_sizes

FIRST_NORM = f"{decoder.BLOCK}.input_layernorm"
ONE_NORM = "attention and Mamba read one norm, layers.{i}.attn.norm"


def _sizes(config: Any) -> dict[str, int]:
    return {**standard_sizes(config), **mixers.mamba_sizes(config)}


FAMILY = Family(
    name="falcon_h1",
    model_types=("falcon_h1",),
    layers="model.layers",
    sizes=_sizes,
    points={
        **{t: s for t, s in bamba.POINTS.items() if ".mixer.norm." not in t},
        **norm_points("layers.{i}.attn.norm", FIRST_NORM),
        **mixers.state_space_points(bamba.MAMBA, recurrences.multiplied_space),
        f"{mixers.MIXER}.in": Input(bamba.MAMBA, aside=True),
        f"{mixers.MIXER}.gate": Inside(bamba.MAMBA, recurrences.multiplied_space, "gate"),
        "layers.{i}.attn.contribution": Inside(decoder.BLOCK, parallel_layer, "attn"),
        f"{mixers.MIXER}.contribution": Inside(decoder.BLOCK, parallel_layer, "mixer"),
        "layers.{i}.mlp.pre_activation": Input(f"{bamba.MLP}.act_fn"),
        "layers.{i}.mlp.out": Output(f"{bamba.MLP}.down_proj"),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **{f"{mixers.MIXER}.norm.{part}": ONE_NORM for part in ("scale", "normalized", "out")},
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **{n: w for n, w in bamba.WEIGHTS.items() if ".mixer.norm." not in n},
        **norm_weights("layers.{i}.attn.norm", FIRST_NORM),
        **mixers.state_space_weights(bamba.MAMBA),
    },
)
