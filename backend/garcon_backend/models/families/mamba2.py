"""Mamba-2 (Dao and Gu 2024): one mixer a layer, a state space of several heads, and no MLP."""

from __future__ import annotations

from typing import Any

from garcon_backend.models.families import mamba, mixers
from garcon_backend.models.family import Family


def _sizes(config: Any) -> dict[str, int]:
    own = (config.num_heads, config.head_dim, config.n_groups, config.state_size)
    return {**mamba.stem_sizes(config), **mixers.state_space_sizes(*own)}


FAMILY = Family(
    name="mamba2",
    model_types=("mamba2",),
    layers="backbone.layers",
    sizes=_sizes,
    mixers=mixers.of_mamba,
    points={**mamba.AROUND, **mixers.state_space_points(mamba.MIXER)},
    refused=mamba.REFUSED,
    parameters={**mamba.WEIGHTS, **mixers.state_space_weights(mamba.MIXER)},
)
