"""A mixture of experts in place of the MLP, as transformers fuses it.

The router, ``gate``, puts out (logits of all experts, weights of the chosen, their indices) over flat
tokens; ``experts`` holds all of them in two tensors, gate above up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.hook_sites.sites import (
    HookSite,
    Input,
    Inside,
    Output,
    StagedForward,
)
from garcon_backend.hook_sites.staged.experts import fused_experts, gated_shared_expert
from garcon_backend.hook_sites.staged.routers import softmax_router
from garcon_backend.hook_sites.views import FlatTokens, PointView
from garcon_backend.models.families.decoder import DENSE, MLP, REFUSED_EXPERTS
from garcon_backend.models.family import Weight, linear, rows_of_part, standard_sizes

ROUTED = "its MLP is a mixture of experts; see layers.{i}.mlp.experts.{e}.post_activation"


def points(
    router: StagedForward = softmax_router,
    gate: str = f"{MLP}.gate",
    all_experts: StagedForward = fused_experts,
    mlp: str = MLP,
) -> dict[str, HookSite]:
    """Router, experts, and what they put out together.

    Args:
        router: its forward in steps.
        gate: path of its module.
        all_experts: the forward of the module that holds them, in steps.
        mlp: path of the module that holds both.
    """
    return {
        "layers.{i}.mlp.in": Input(mlp),
        "layers.{i}.mlp.router.logits": Inside(gate, router, "logits"),
        "layers.{i}.mlp.router.weights": Output(gate, FlatTokens(), item=1),
        "layers.{i}.mlp.router.indices": Output(gate, FlatTokens(), item=2),
        "layers.{i}.mlp.experts.{e}.post_activation": Inside(f"{mlp}.experts", all_experts, "{e}"),
        "layers.{i}.mlp.out": Output(mlp),
        "layers.{i}.mlp.contribution": Output(mlp),
    }


REFUSED = {
    "layers.{i}.mlp.pre_activation": ROUTED,
    "layers.{i}.mlp.pre_linear": ROUTED,
    "layers.{i}.mlp.post_activation": ROUTED,
}


def weights(mlp: str = MLP, gate: str = f"{MLP}.gate") -> dict[str, Weight]:
    """Router, and the projections of each expert, by the paths of their modules."""
    fused = f"{mlp}.experts.gate_up_proj"
    return {
        "layers.{i}.mlp.router": Weight(f"{gate}.weight"),
        "layers.{i}.mlp.experts.{e}.gate_proj": Weight(fused, rows_of_part(0, 2)),
        "layers.{i}.mlp.experts.{e}.up_proj": Weight(fused, rows_of_part(1, 2)),
        "layers.{i}.mlp.experts.{e}.down_proj": Weight(f"{mlp}.experts.down_proj"),
    }


WEIGHTS = weights()

# -- experts that all tokens share, and layers without experts -------------------------------


REFUSED_SHARED = dict.fromkeys(
    ("layers.{i}.mlp.shared.post_activation", "layers.{i}.mlp.shared.out"),
    "no experts of this model are shared by all tokens",
)


def shared_points(path: str, flat: bool = False) -> dict[str, HookSite]:
    """A gated MLP beside the experts, added to what they put out; `flat` where it works on flat tokens."""
    view = FlatTokens() if flat else PointView()
    return {
        "layers.{i}.mlp.shared.post_activation": Input(f"{path}.down_proj", view),
        "layers.{i}.mlp.shared.out": Output(path, view),
    }


def shared_weights(path: str) -> dict[str, Weight]:
    """Its projections."""
    weights: dict[str, Weight] = {}
    for name in ("gate_proj", "up_proj", "down_proj"):
        weights |= linear(f"layers.{{i}}.mlp.shared.{name}", f"{path}.{name}")
    return weights


def lacking(routed: Sequence[bool]) -> dict[str, str]:
    """What a model lacks of which some layers have experts in place of the MLP, or all, or none.

    Args:
        routed: of each layer, whether it has.
    """
    if all(routed):
        return REFUSED
    shared = dict.fromkeys(REFUSED_SHARED, DENSE)
    return {} if any(routed) else {**REFUSED_EXPERTS, **shared}


def sizes(config: Any, routed: Sequence[bool], shared: int) -> dict[str, int]:
    """Sizes of such a model; M is of the layers without experts, where there are some.

    Args:
        shared: neurons of the experts that all tokens share.
    """
    found = {**standard_sizes(config), "m": config.moe_intermediate_size, "S": shared}
    if all(routed):
        found["M"] = found["m"]
    return {letter: size for letter, size in found.items() if size}


def gated_shared_points() -> dict[str, HookSite]:
    """Qwen's shared expert, whose output a gate multiplies."""
    shared = f"{MLP}.shared_expert"
    return {
        "layers.{i}.mlp.shared.post_activation": Input(f"{shared}.down_proj", FlatTokens()),
        "layers.{i}.mlp.shared.gate": Output(f"{shared}_gate", FlatTokens()),
        "layers.{i}.mlp.shared.out": ByKind(
            ((shared, Inside(MLP, gated_shared_expert, "shared.out")),)
        ),
    }


GATED_SHARED_WEIGHTS = {
    **{
        f"layers.{{i}}.mlp.shared.{name}": Weight(f"{MLP}.shared_expert.{name}.weight")
        for name in ("gate_proj", "up_proj", "down_proj")
    },
    "layers.{i}.mlp.shared.gate": Weight(f"{MLP}.shared_expert_gate.weight"),
}
