"""What most decoders share: Llama's module names, from which the other families differ by a line.

``block`` = norm → attention → add → norm → gated MLP → add, every norm an RMSNorm, rotary positions.
"""

from __future__ import annotations

from garcon_backend.models.family import Weight, linear, norm_points, norm_weights
from garcon_backend.probing import steps
from garcon_backend.probing.places import (
    InAttention,
    Input,
    Inside,
    LogitsOf,
    Output,
    Place,
    SharedInput,
    StagedForward,
)
from garcon_backend.probing.views import Heads

BLOCK = "model.layers.{i}"

NO_LEARNED_POSITIONS = "positions are rotary, not a learned embedding"
NO_QK_NORM = "this architecture does not normalise queries and keys"
DENSE = "its MLP is dense, not a mixture of experts"

REFUSED_DENSE = {
    "layers.{i}.mlp.router.logits": DENSE,
    "layers.{i}.mlp.router.weights": DENSE,
    "layers.{i}.mlp.router.indices": DENSE,
    "layers.{i}.mlp.experts.{e}.post_activation": DENSE,
}
REFUSED_QK_NORM = {
    "layers.{i}.attn.q_normed": NO_QK_NORM,
    "layers.{i}.attn.k_normed": NO_QK_NORM,
}


def stem_points(norm: StagedForward = steps.rms_norm) -> dict[str, Place]:
    """Embedding, residual stream, final norm and logits."""
    return {
        "embed.out": Output("model.embed_tokens"),
        "layers.{i}.resid_pre": Input(BLOCK),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "model.norm", norm),
        "logits": LogitsOf(),
    }


def attention_points(norm: StagedForward = steps.rms_norm) -> dict[str, Place]:
    """Attention with separate q, k and v projections."""
    attn = f"{BLOCK}.self_attn"
    return {
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm", norm),
        "layers.{i}.attn.in": Input(attn),
        "layers.{i}.attn.q": Output(f"{attn}.q_proj", Heads()),
        "layers.{i}.attn.k": Output(f"{attn}.k_proj", Heads()),
        "layers.{i}.attn.v": Output(f"{attn}.v_proj", Heads()),
        **inner_attention_points(attn, f"{attn}.o_proj"),
        "layers.{i}.attn.contribution": Output(f"{attn}.o_proj"),
    }


def inner_attention_points(attn: str, projection: str) -> dict[str, Place]:
    """What is computed between the projections, and the output projection's own values."""
    return {
        "layers.{i}.attn.q_rot": InAttention(attn, "q_rot"),
        "layers.{i}.attn.k_rot": InAttention(attn, "k_rot"),
        "layers.{i}.attn.scores": InAttention(attn, "scores"),
        "layers.{i}.attn.pattern": InAttention(attn, "pattern"),
        "layers.{i}.attn.z": Input(projection, Heads()),
        "layers.{i}.attn.head_out": Inside(projection, steps.output_by_head, "head_out"),
        "layers.{i}.attn.out": Output(projection),
    }


def gated_mlp_points(norm: StagedForward = steps.rms_norm) -> dict[str, Place]:
    """A gated MLP after its norm."""
    mlp = f"{BLOCK}.mlp"
    return {
        "layers.{i}.resid_mid": SharedInput(f"{BLOCK}.post_attention_layernorm"),
        **norm_points("layers.{i}.mlp.norm", f"{BLOCK}.post_attention_layernorm", norm),
        "layers.{i}.mlp.in": Input(mlp),
        "layers.{i}.mlp.pre_activation": Output(f"{mlp}.gate_proj"),
        "layers.{i}.mlp.pre_linear": Output(f"{mlp}.up_proj"),
        "layers.{i}.mlp.post_activation": Input(f"{mlp}.down_proj"),
        "layers.{i}.mlp.out": Output(mlp),
        "layers.{i}.mlp.contribution": Output(mlp),
    }


def stem_weights(offset: float = 0.0) -> dict[str, Weight]:
    """Embedding, unembedding (tied where the checkpoint ties it) and final norm."""
    return {
        "embed.weight": Weight("model.embed_tokens.weight"),
        **norm_weights("final_norm", "model.norm", offset),
        "unembed.weight": Weight("lm_head.weight", tied="model.embed_tokens.weight"),
        "unembed.bias": Weight("lm_head.bias"),
    }


def attention_weights(offset: float = 0.0) -> dict[str, Weight]:
    """Norm and projections of attention."""
    attn = f"{BLOCK}.self_attn"
    weights = norm_weights("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm", offset)
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        weights |= linear(f"layers.{{i}}.attn.{name}", f"{attn}.{name}")
    return weights


def gated_mlp_weights(offset: float = 0.0) -> dict[str, Weight]:
    """Norm and projections of the MLP."""
    weights = norm_weights("layers.{i}.mlp.norm", f"{BLOCK}.post_attention_layernorm", offset)
    for name in ("gate_proj", "up_proj", "down_proj"):
        weights |= linear(f"layers.{{i}}.mlp.{name}", f"{BLOCK}.mlp.{name}")
    return weights
