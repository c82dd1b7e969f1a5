"""What decoders share: Llama's module names, from which most families differ by a few lines.

``block`` = norm → attention → add → norm → gated MLP → add, every norm an RMSNorm, rotary positions.
"""

from __future__ import annotations

from garcon_backend.hook_sites.sites import (
    HookSite,
    InAttention,
    Input,
    Inside,
    LogitsOf,
    Output,
    SharedInput,
    StagedForward,
)
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.staged.at_softmax import at_softmax
from garcon_backend.hook_sites.staged.head_outputs import output_by_head
from garcon_backend.hook_sites.views import Heads, PointView
from garcon_backend.models.family import Weight, linear, norm_points, norm_weights

BLOCK = "model.layers.{i}"
ATTN = f"{BLOCK}.self_attn"
MLP = f"{BLOCK}.mlp"

# -- why points are missing ------------------------------------------------------------------

NO_LEARNED_POSITIONS = "positions are rotary, not a learned embedding"
NO_QK_NORM = "this architecture does not normalise queries and keys"
DENSE = "its MLP is dense, not a mixture of experts"
UNGATED = "its MLP is not gated"
ADDED_POSITIONS = "positions are added to the embedding, not rotated into queries and keys"
OWN_ATTENTION = "its attention is a class of its own, which can be looked into at its softmax only"

NO_ROTARY = "its attention knows of no positions"

REFUSED_ROTARY = {
    "layers.{i}.attn.q_rot": NO_ROTARY,
    "layers.{i}.attn.k_rot": NO_ROTARY,
}
REFUSED_INSIDE = {
    "layers.{i}.attn.q_rot": OWN_ATTENTION,
    "layers.{i}.attn.k_rot": OWN_ATTENTION,
}

REFUSED_EXPERTS = {
    "layers.{i}.mlp.router.logits": DENSE,
    "layers.{i}.mlp.router.weights": DENSE,
    "layers.{i}.mlp.router.indices": DENSE,
    "layers.{i}.mlp.experts.{e}.post_activation": DENSE,
}
PARALLEL = "attention and MLP both read resid_pre, so there is no residual stream between them"
ONE_NORM = "attention and MLP read one norm, layers.{i}.attn.norm"

REFUSED_MIDDLE = {
    "layers.{i}.resid_mid": PARALLEL,
    "layers.{i}.mlp.norm.scale": ONE_NORM,
    "layers.{i}.mlp.norm.normalized": ONE_NORM,
    "layers.{i}.mlp.norm.out": ONE_NORM,
}
REFUSED_QK_NORM = {
    "layers.{i}.attn.q_normed": NO_QK_NORM,
    "layers.{i}.attn.k_normed": NO_QK_NORM,
}

# -- points that all decoders have, wherever their modules are -------------------------------


def rotary_points(attn: str) -> dict[str, HookSite]:
    """Queries and keys as the attention function of module `attn` is given them."""
    return {
        "layers.{i}.attn.q_rot": InAttention(attn, "q_rot"),
        "layers.{i}.attn.k_rot": InAttention(attn, "k_rot"),
    }


def mixing_points(attn: str) -> dict[str, HookSite]:
    """Who reads whom."""
    return {
        "layers.{i}.attn.scores": InAttention(attn, "scores"),
        "layers.{i}.attn.pattern": InAttention(attn, "pattern"),
    }


def own_mixing_points(attn: str) -> dict[str, HookSite]:
    """The same where attention is a class of its own, at its softmax."""
    return {
        "layers.{i}.attn.scores": Inside(attn, at_softmax, "scores"),
        "layers.{i}.attn.pattern": Inside(attn, at_softmax, "pattern"),
    }


def written_points(
    attn: str, projection: str, contribution: str | None = None
) -> dict[str, HookSite]:
    """What the heads write; `contribution` is the norm after the projection, where there is one."""
    return {
        "layers.{i}.attn.z": Input(projection, Heads()),
        "layers.{i}.attn.head_out": Inside(projection, output_by_head, "head_out"),
        "layers.{i}.attn.out": Output(projection),
        "layers.{i}.attn.contribution": Output(contribution or attn),
    }


def plain_mlp_points(mlp: str, up: str, down: str) -> dict[str, HookSite]:
    """An MLP of two projections."""
    return {
        "layers.{i}.mlp.in": Input(mlp),
        "layers.{i}.mlp.pre_activation": Output(f"{mlp}.{up}"),
        "layers.{i}.mlp.post_activation": Input(f"{mlp}.{down}"),
        "layers.{i}.mlp.out": Output(f"{mlp}.{down}"),
        "layers.{i}.mlp.contribution": Output(mlp),
    }


# -- points by Llama's module names ----------------------------------------------------------


def stem_points(norm: StagedForward = norms.rms_norm) -> dict[str, HookSite]:
    """Embedding, residual stream, final norm and logits."""
    return {
        "embed.out": Output("model.embed_tokens"),
        "layers.{i}.resid_pre": Input(BLOCK),
        "layers.{i}.resid_post": Output(BLOCK),
        **norm_points("final_norm", "model.norm", norm),
        "logits": LogitsOf(),
    }


def attention_points(
    norm: StagedForward = norms.rms_norm, contribution: str | None = None
) -> dict[str, HookSite]:
    """Attention with separate q, k and v projections, and the norm before it."""
    return {
        **norm_points("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm", norm),
        "layers.{i}.attn.in": Input(ATTN),
        "layers.{i}.attn.q": Output(f"{ATTN}.q_proj", Heads()),
        "layers.{i}.attn.k": Output(f"{ATTN}.k_proj", Heads()),
        "layers.{i}.attn.v": Output(f"{ATTN}.v_proj", Heads()),
        **rotary_points(ATTN),
        **mixing_points(ATTN),
        **written_points(ATTN, f"{ATTN}.o_proj", contribution),
    }


def normed_points(view: PointView) -> dict[str, HookSite]:
    """Queries and keys after a norm of their own; `view` shows [b, p, heads, d] in what it puts out."""
    return {
        "layers.{i}.attn.q_normed": Output(f"{ATTN}.q_norm", view),
        "layers.{i}.attn.k_normed": Output(f"{ATTN}.k_norm", view),
    }


def middle_points(path: str, norm: StagedForward = norms.rms_norm) -> dict[str, HookSite]:
    """The residual stream between attention and MLP, and the norm that reads it."""
    return {
        "layers.{i}.resid_mid": SharedInput(path),
        **norm_points("layers.{i}.mlp.norm", path, norm),
    }


def gated_mlp_points(contribution: str = MLP) -> dict[str, HookSite]:
    """A gated MLP; `contribution` is the norm after it, where there is one."""
    return {
        "layers.{i}.mlp.in": Input(MLP),
        "layers.{i}.mlp.pre_activation": Output(f"{MLP}.gate_proj"),
        "layers.{i}.mlp.pre_linear": Output(f"{MLP}.up_proj"),
        "layers.{i}.mlp.post_activation": Input(f"{MLP}.down_proj"),
        "layers.{i}.mlp.out": Output(MLP),
        "layers.{i}.mlp.contribution": Output(contribution),
    }


def gated_points(mlp: str, gate: str, up: str, down: str) -> dict[str, HookSite]:
    """A gated MLP, by what its projections are called."""
    return {
        "layers.{i}.mlp.in": Input(mlp),
        "layers.{i}.mlp.pre_activation": Output(f"{mlp}.{gate}"),
        "layers.{i}.mlp.pre_linear": Output(f"{mlp}.{up}"),
        "layers.{i}.mlp.post_activation": Input(f"{mlp}.{down}"),
        "layers.{i}.mlp.out": Output(mlp),
        "layers.{i}.mlp.contribution": Output(mlp),
    }


# -- parameters by Llama's module names ------------------------------------------------------


def unembed_weights(embedding: str) -> dict[str, Weight]:
    """Unembedding: the embedding, where the checkpoint ties them."""
    return {
        "unembed.weight": Weight("lm_head.weight", tied=embedding),
        "unembed.bias": Weight("lm_head.bias"),
    }


def stem_weights(offset: float = 0.0) -> dict[str, Weight]:
    """Embedding, unembedding and final norm."""
    return {
        "embed.weight": Weight("model.embed_tokens.weight"),
        **norm_weights("final_norm", "model.norm", offset),
        **unembed_weights("model.embed_tokens.weight"),
    }


def attention_weights(offset: float = 0.0) -> dict[str, Weight]:
    """Projections of attention and the norm before it."""
    norm = norm_weights("layers.{i}.attn.norm", f"{BLOCK}.input_layernorm", offset)
    return norm | projection_weights()


def projection_weights() -> dict[str, Weight]:
    """Projections of attention."""
    weights: dict[str, Weight] = {}
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        weights |= linear(f"layers.{{i}}.attn.{name}", f"{ATTN}.{name}")
    return weights


def normed_weights(offset: float = 0.0) -> dict[str, Weight]:
    """The norms of queries and keys."""
    return {
        **norm_weights("layers.{i}.attn.q_norm", f"{ATTN}.q_norm", offset),
        **norm_weights("layers.{i}.attn.k_norm", f"{ATTN}.k_norm", offset),
    }


def gated_mlp_weights() -> dict[str, Weight]:
    """Projections of the MLP."""
    weights: dict[str, Weight] = {}
    for name in ("gate_proj", "up_proj", "down_proj"):
        weights |= linear(f"layers.{{i}}.mlp.{name}", f"{MLP}.{name}")
    return weights


def gated_weights(mlp: str, gate: str, up: str, down: str) -> dict[str, Weight]:
    """Projections of an MLP, by what they are called."""
    weights: dict[str, Weight] = {}
    for name, stored in (("gate_proj", gate), ("up_proj", up), ("down_proj", down)):
        weights |= linear(f"layers.{{i}}.mlp.{name}", f"{mlp}.{stored}")
    return weights
