"""MiniMax 01 (MiniMax 2025): lightning attention, some layers that attend, and experts; a layer adds to the norm of the
stream, not to the stream.

What it goes on with is ``attn.norm.out`` (``mixer.norm.out``) times a number of the configuration, and ``mlp.norm.out`` times
another: ``resid_mid`` is the one with what attention or the mixer adds, ``resid_post`` the other with what experts add. What is
added is multiplied as well, which contributions have in them and ``attn.out``, ``mixer.out`` and ``mlp.out`` have not.
"""

from __future__ import annotations

from typing import Any

from garcon_backend.hook_sites.other_sites import ScaledOutput
from garcon_backend.hook_sites.sites import HookSite, Input
from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.families import bamba, decoder, experts, mixers
from garcon_backend.models.families.decoder import ATTN, BLOCK, MLP
from garcon_backend.models.family import Family, norm_weights, standard_sizes
from garcon_backend.models.family_notes import standard_notes

FIRST_NORM = f"{BLOCK}.input_layernorm"
SECOND_NORM = f"{BLOCK}.post_attention_layernorm"
ATTENDS, RECURS = f"{ATTN}.q_proj", f"{ATTN}.qkv_proj"

CONSTANT_DECAY = "each head forgets at a rate of its own, which no token changes"


def _sizes(config: Any) -> dict[str, int]:
    sizes = standard_sizes(config)
    heads, width = sizes["H"], sizes["d"]
    return {**sizes, "G": heads, "N": width, "R": heads, "r": width, "I": heads * width}


def _notes(config: Any) -> dict[str, str]:
    """How the stream goes on, which is not how it does elsewhere."""
    full, linear = config.full_attn_alpha_factor, config.linear_attn_alpha_factor
    first = (
        f"{full:g} times attn.norm.out and attn.contribution in layers that attend, "
        f"{linear:g} times mixer.norm.out and mixer.contribution in the others"
    )
    return {
        **standard_notes(config),
        "layers.{i}.resid_mid": first,
        "layers.{i}.resid_post": f"{config.mlp_alpha_factor:g} times mlp.norm.out and mlp.contribution",
    }


_ADDED = ScaledOutput(BLOCK, "attn_beta_factor", of="self_attn")


def _attention() -> dict[str, HookSite]:
    return {
        **bamba.attention_points(),
        "layers.{i}.attn.in": Input(ATTN, aside=True),  # what the layer adds to as well
        "layers.{i}.attn.contribution": _ADDED,
    }


def _lightning() -> dict[str, HookSite]:
    return {
        **mixers.lightning_points(ATTN),
        f"{mixers.MIXER}.in": Input(ATTN, aside=True),
        f"{mixers.MIXER}.contribution": _ADDED,
    }


FAMILY = Family(
    name="minimax",
    model_types=("minimax",),
    layers="model.layers",
    sizes=_sizes,
    notes=_notes,
    points={
        **decoder.stem_points(),
        **mixers.first_norm_points(FIRST_NORM, ATTENDS, RECURS, norms.rms_norm),
        **mixers.where(ATTENDS, _attention()),
        **mixers.where(RECURS, _lightning()),
        **decoder.middle_points(SECOND_NORM),
        "layers.{i}.resid_mid": Input(SECOND_NORM),
        **experts.points(),
        "layers.{i}.mlp.in": Input(MLP, aside=True),
        "layers.{i}.mlp.contribution": ScaledOutput(BLOCK, "mlp_beta_factor", of="mlp"),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        f"{mixers.MIXER}.decay": CONSTANT_DECAY,
        **decoder.REFUSED_QK_NORM,
        **experts.REFUSED,
    },
    parameters={
        **decoder.stem_weights(),
        **mixers.first_norm_weights(FIRST_NORM, ATTENDS, RECURS),
        **mixers.beside(ATTENDS, decoder.projection_weights()),
        **mixers.beside(RECURS, mixers.lightning_weights(ATTN)),
        **norm_weights("layers.{i}.mlp.norm", SECOND_NORM),
        **experts.WEIGHTS,
    },
)
