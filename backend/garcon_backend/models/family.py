"""What a family file declares: where each point and parameter of one architecture is.

A *family* is data, not code: a site for each point of the table, a reason for each point that the
architecture lacks, a weight for each parameter. Binding it to a loaded model checks it against the
real modules and gives the :class:`~garcon_jupyter.points.Catalog` that clients resolve names by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from garcon_backend.hook_sites.sites import (
    HookSite,
    Inside,
    Output,
    StagedForward,
)
from garcon_backend.hook_sites.staged import norms
from garcon_backend.models.family_notes import standard_notes
from garcon_backend.models.fused_rows import (
    Rows,
    Sizes,
    every_row,
    rows_in_blocks,
    rows_in_turn,
    rows_of_each_head,
    rows_of_group,
    rows_of_part,
    rows_of_stretch,
)
from garcon_backend.models.layer_kinds import standard_mixers
from garcon_backend.models.rotary import extends_context
from garcon_jupyter.model_files.configuration import of_all_layers, of_each_layer
from garcon_jupyter.points import PARAMETERS, POINTS


@dataclass(frozen=True)
class Weight:
    """Where a parameter of the table is among those of the checkpoint.

    Attributes:
        path: dotted path of the stored parameter, with ``{i}`` as a hole. What is stored for all
            experts at once has the expert as its first dimension.
        rows: picks this parameter's rows out of a fused one, once it is oriented [out, in].
        transposed: stored as [in, out].
        offset: what is added to values, not to gradients: 1 for Gemma's gains, stored as gain − 1.
        tied: another path that holds the same parameter where this one is absent.
        beside: path of a module that layers have whose parameter it is; any layer where it is "".
        unless: paths of modules that these layers do not have.
        otherwise: dotted path in layers that have nothing at `path`.
        counted: path of a module; ``{j}`` in `path` is how many layers before have it.
    """

    path: str
    rows: Rows = every_row
    transposed: bool = False
    offset: float = 0.0
    tied: str | None = None
    beside: str = ""
    unless: tuple[str, ...] = ()
    otherwise: str = ""
    counted: str = ""


@dataclass(frozen=True)
class Reading:
    """How one parameter of a loaded model is read.

    Attributes:
        read: takes the stored tensor (whole) to the table's orientation and part. Linear, so that it
            reads gradients as well.
        offset: what is added to values, not to gradients.
    """

    read: Callable[[Tensor], Tensor] = lambda stored: stored
    offset: float = 0.0


@dataclass(frozen=True)
class Family:
    """The sites and parameters of one architecture.

    Attributes:
        name: what messages call it.
        model_types: the ``model_type`` of the configurations it serves.
        points: template → site.
        refused: template → why this architecture has no such point. What the table gives a reason for by itself need
            not be said.
        parameters: template → weight.
        layers: dotted path of the list of blocks.
        sizes: config → size of each letter.
        lacks: config → points that some models of the family lack, and why.
        notes: config → of some points, what a reader of their values should know.
        shaped: config → the family as models of that configuration are, where their modules have other names; None where
            all have the same.
        mixers: config → of each layer, what mixes its tokens (:data:`~garcon_backend.models.layer_kinds.MIXERS`).
        elsewhere: config → sites of the points that are in other modules in some models of the family.
        not_while_generating: template → why a point that a forward shows cannot be shown while tokens are generated.
    """

    name: str
    model_types: tuple[str, ...]
    points: Mapping[str, HookSite]
    refused: Mapping[str, str]
    parameters: Mapping[str, Weight]
    layers: str
    sizes: Callable[[Any], dict[str, int]] = field(default=lambda config: standard_sizes(config))
    lacks: Callable[[Any], Mapping[str, str]] = field(default=lambda config: {})
    notes: Callable[[Any], Mapping[str, str]] = field(default=lambda config: standard_notes(config))
    mixers: Callable[[Any], tuple[str, ...]] = field(default=lambda config: standard_mixers(config))
    shaped: Callable[[Any], Family] | None = None
    elsewhere: Callable[[Any], Mapping[str, HookSite]] = field(default=lambda config: {})
    not_while_generating: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        templates = {spec.template for spec in POINTS}
        usual = {spec.template: spec.absent for spec in POINTS if spec.absent}
        unsaid = {template: why for template, why in usual.items() if template not in self.points}
        object.__setattr__(self, "refused", {**unsaid, **self.refused})
        both = set(self.points) & set(self.refused)
        neither = templates ^ (set(self.points) | set(self.refused))
        unknown = set(self.parameters) - {spec.template for spec in PARAMETERS}
        if wrong := both | neither | unknown:
            raise ValueError(f"{self.name}: {sorted(wrong)} are not said once")


def standard_sizes(config: object) -> dict[str, int]:
    """Sizes of the letters from a transformers configuration, by the usual names.

    A size that differs from layer to layer is none of the model's. Neither is P where rotary positions are
    made for longer texts than the configuration says.
    """

    def first(*names: str) -> int | None:
        return next((v for n in names if isinstance(v := of_all_layers(config, n), int)), None)

    heads = first("num_attention_heads", "n_head") or 1
    width = first("hidden_size", "n_embd") or 0
    sizes = {
        "D": width,
        "H": heads,
        "K": first("num_key_value_heads") or heads,
        "d": first("head_dim") or width // heads,
        "M": first("intermediate_size", "n_inner") or 4 * width,
        "V": first("vocab_size") or 0,
        "E": first("num_local_experts", "num_experts") or 0,
        "k": first("num_experts_per_tok") or 0,
        "P": 0 if extends_context(config) else first("max_position_embeddings", "n_positions") or 0,
    }
    for letter, name in (
        ("d", "head_dim"),
        ("K", "num_key_value_heads"),
        ("M", "intermediate_size"),
    ):
        if len(of_each_layer(config, name)) > 1:
            del sizes[letter]
    return {letter: size for letter, size in sizes.items() if size > 0}


def norm_points(
    prefix: str, path: str, in_steps: StagedForward = norms.rms_norm
) -> dict[str, HookSite]:
    """The three points of a norm."""
    return {
        f"{prefix}.scale": Inside(path, in_steps, "scale"),
        f"{prefix}.normalized": Inside(path, in_steps, "normalized"),
        f"{prefix}.out": Output(path),
    }


def post_norm_points(attention: str, mlp: str, in_steps: StagedForward) -> dict[str, HookSite]:
    """The denominators of norms after attention and MLP; what they put out is what these contribute.

    Args:
        attention, mlp: paths of the two norms.
    """
    return {
        f"layers.{{i}}.{half}.post_norm.scale": Inside(path, in_steps, "scale")
        for half, path in (("attn", attention), ("mlp", mlp))
    }


def norm_weights(prefix: str, path: str, offset: float = 0.0) -> dict[str, Weight]:
    """Gain and bias of a norm."""
    return {
        f"{prefix}.weight": Weight(f"{path}.weight", offset=offset),
        f"{prefix}.bias": Weight(f"{path}.bias"),
    }


def linear(
    template: str, path: str, rows: Rows = every_row, transposed: bool = False
) -> dict[str, Weight]:
    """Weight and bias of a projection, or of one of several that are fused."""
    return {
        template: Weight(f"{path}.weight", rows, transposed),
        f"{template}.bias": Weight(f"{path}.bias", rows),
    }


__all__ = [
    "Family",
    "Reading",
    "Sizes",
    "Weight",
    "linear",
    "norm_points",
    "norm_weights",
    "post_norm_points",
    "rows_in_blocks",
    "rows_in_turn",
    "rows_of_each_head",
    "rows_of_group",
    "rows_of_part",
    "rows_of_stretch",
    "standard_mixers",
    "standard_sizes",
]
