"""What mixes tokens without attending, as transformers writes it for all architectures that have it.

A layer of a hybrid attends or has one of these: points and parameters of both are told apart by a module that only
layers of one kind have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from garcon_backend.hook_sites import recurrences
from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.hook_sites.sites import (
    HookSite,
    Input,
    Inside,
    Output,
    StagedForward,
)
from garcon_backend.hook_sites.views import FlatHeads, FusedPart, Heads
from garcon_backend.models.family import (
    Sizes,
    Weight,
    linear,
    norm_points,
    norm_weights,
    rows_of_part,
    standard_mixers,
)
from garcon_backend.models.fused_rows import Rows

MIXER = "layers.{i}.mixer"


# -- telling kinds of layers apart -----------------------------------------------------------


def where(module: str, points: Mapping[str, HookSite]) -> dict[str, HookSite]:
    """Points that only layers have which have a certain module."""
    return {template: ByKind(((module, site),)) for template, site in points.items()}


def beside(module: str, weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Parameters that only layers have which have a certain module."""
    return {template: replace(weight, beside=module) for template, weight in weights.items()}


def first_norm_points(
    norm: str, attention: str, mixer: str, in_steps: StagedForward
) -> dict[str, HookSite]:
    """A norm that all layers have, by what reads it: that of attention, or of the mixer."""
    return {
        **where(attention, norm_points("layers.{i}.attn.norm", norm, in_steps)),
        **where(mixer, norm_points(f"{MIXER}.norm", norm, in_steps)),
    }


def first_norm_weights(
    norm: str, attention: str, mixer: str, offset: float = 0.0
) -> dict[str, Weight]:
    """Its parameters."""
    return {
        **beside(attention, norm_weights("layers.{i}.attn.norm", norm, offset)),
        **beside(mixer, norm_weights(f"{MIXER}.norm", norm, offset)),
    }


def of_mamba(config: Any) -> tuple[str, ...]:
    """Mixers of an architecture whose state spaces transformers calls linear attention."""
    return tuple("mamba" if kind == "linear" else kind for kind in standard_mixers(config))


# -- points ----------------------------------------------------------------------------------


def _around(mixer: str, projection: str) -> dict[str, HookSite]:
    return {
        f"{MIXER}.in": Input(mixer),
        f"{MIXER}.gated": Input(projection),
        f"{MIXER}.out": Output(projection),
        f"{MIXER}.contribution": Output(mixer),
    }


def _inside(mixer: str, steps: StagedForward, *parts: str) -> dict[str, HookSite]:
    return {f"{MIXER}.{part}": Inside(mixer, steps, part) for part in parts}


def delta_points(mixer: str, norm: str = "norm", out: str = "out_proj") -> dict[str, HookSite]:
    """A Gated DeltaNet."""
    parts = ("conv_in", "conv_out", "q", "k", "v", "beta", "decay", "state_out")
    return {
        **_around(mixer, f"{mixer}.{out}"),
        **_inside(mixer, recurrences.gated_delta_net, *parts),
        f"{MIXER}.gate": Input(f"{mixer}.{norm}", FlatHeads(), position=1),
    }


def channel_delta_points(mixer: str) -> dict[str, HookSite]:
    """Kimi Delta Attention."""
    parts = ("conv_in", "conv_out", "q", "k", "v", "beta", "channel_decay", "state_out")
    return {
        **_around(mixer, f"{mixer}.o_proj"),
        **_inside(mixer, recurrences.kimi_delta_attention, *parts),
        f"{MIXER}.gate": Input(f"{mixer}.o_norm", FlatHeads(), position=1),
    }


def state_space_points(
    mixer: str, steps: StagedForward = recurrences.state_space
) -> dict[str, HookSite]:
    """Mamba-2."""
    parts = ("conv_in", "conv_out", "x", "dt", "B", "C", "state_out")
    return {
        **_around(mixer, f"{mixer}.out_proj"),
        **_inside(mixer, steps, *parts),
        f"{MIXER}.gate": Input(f"{mixer}.norm", position=1),
    }


def selective_points(mixer: str) -> dict[str, HookSite]:
    """Mamba."""
    parts = ("conv_in", "conv_out", "x", "dt", "B", "C", "gate", "state_out")
    return {
        **_around(mixer, f"{mixer}.out_proj"),
        **_inside(mixer, recurrences.selective_scan, *parts),
    }


def convolution_points(mixer: str) -> dict[str, HookSite]:
    """LFM2's short convolution between two gates."""
    return {
        **_around(mixer, f"{mixer}.out_proj"),
        **_inside(mixer, recurrences.short_convolution, "conv_in", "conv_out"),
        f"{MIXER}.in_gate": Output(f"{mixer}.in_proj", FusedPart(0, 3)),
        f"{MIXER}.gate": Output(f"{mixer}.in_proj", FusedPart(1, 3)),
    }


def lightning_points(mixer: str) -> dict[str, HookSite]:
    """Lightning attention."""
    return {
        **_around(mixer, f"{mixer}.out_proj"),
        **_inside(mixer, recurrences.lightning_attention, "q", "k", "v"),
        f"{MIXER}.state_out": Input(f"{mixer}.norm", Heads()),
        f"{MIXER}.gate": Output(f"{mixer}.output_gate"),
    }


# -- sizes -----------------------------------------------------------------------------------


def delta_sizes(config: Any) -> dict[str, int]:
    """Of a Gated DeltaNet, by the names that all configurations give them."""
    heads, width = config.linear_num_value_heads, config.linear_value_head_dim
    groups, state = config.linear_num_key_heads, config.linear_key_head_dim
    inner = heads * width
    channels = 2 * groups * state + inner
    return {"R": heads, "r": width, "G": groups, "N": state, "C": channels, "I": inner}


def state_space_sizes(heads: int, width: int, groups: int, state: int) -> dict[str, int]:
    """Of Mamba-2."""
    inner = heads * width
    channels = inner + 2 * groups * state
    return {"R": heads, "r": width, "G": groups, "N": state, "C": channels, "I": inner}


def mamba_sizes(config: Any) -> dict[str, int]:
    """Of Mamba-2 in a hybrid, by the names that most configurations give them."""
    return state_space_sizes(
        config.mamba_n_heads, config.mamba_d_head, config.mamba_n_groups, config.mamba_d_state
    )


def selective_sizes(channels: int, state: int) -> dict[str, int]:
    """Of Mamba, whose every channel is a head."""
    return {"R": channels, "r": 1, "G": 1, "N": state, "C": channels, "I": channels}


# -- parameters ------------------------------------------------------------------------------


def rows_of_lengths(index: int, lengths: Callable[[Sizes], list[int]]) -> Rows:
    """One of several blocks of rows of given lengths; -1 is all that the others leave."""

    def rows(stored: Tensor, sizes: Sizes) -> Tensor:
        known = lengths(sizes)
        rest = len(stored) - sum(length for length in known if length >= 0)
        parts: tuple[Tensor, ...] = stored.split([rest if n < 0 else n for n in known], 0)
        return parts[index]

    return rows


def rows_of_each_group(index: int, lengths: Callable[[Sizes], list[int]]) -> Rows:
    """One of several blocks of rows that each of G groups has side by side."""

    def rows(stored: Tensor, sizes: Sizes) -> Tensor:
        by_group = stored.unflatten(0, (sizes["G"], -1))
        parts: tuple[Tensor, ...] = by_group.split(lengths(sizes), 1)
        return parts[index].flatten(0, 1)

    return rows


def convolved(stored: Tensor, sizes: Sizes) -> Tensor:
    """A short convolution, stored as [C, 1, w]."""
    return stored.squeeze(1)


def _convolution(path: str) -> dict[str, Weight]:
    return {
        f"{MIXER}.conv.weight": Weight(f"{path}.weight", convolved),
        f"{MIXER}.conv.bias": Weight(f"{path}.bias"),
    }


def _recurrence(mixer: str, *names: str) -> dict[str, Weight]:
    return {f"{MIXER}.{name}": Weight(f"{mixer}.{name}") for name in names}


def delta_weights(mixer: str, norm: str = "norm", out: str = "out_proj") -> dict[str, Weight]:
    """A Gated DeltaNet, without the projections that it reads by."""
    return {
        **_convolution(f"{mixer}.conv1d"),
        **_recurrence(mixer, "A_log", "dt_bias"),
        f"{MIXER}.out_norm.weight": Weight(f"{mixer}.{norm}.weight"),
        **linear(f"{MIXER}.out_proj", f"{mixer}.{out}"),
    }


def channel_delta_weights(mixer: str) -> dict[str, Weight]:
    """Kimi Delta Attention, whose decay and gate are projected through a narrow middle."""
    named = {
        **{f"{x}_proj": f"{x}_proj" for x in "qkv"},
        "beta_proj": "b_proj",
        "decay_down_proj": "forget_gate.f_a_proj",
        "decay_up_proj": "forget_gate.f_b_proj",
        "gate_down_proj": "g_a_proj",
        "gate_up_proj": "g_b_proj",
        "out_proj": "o_proj",
    }
    weights = {
        **_convolution(f"{mixer}.conv1d"),
        f"{MIXER}.A_log": Weight(f"{mixer}.forget_gate.A_log", lambda s, sizes: s.flatten()),
        f"{MIXER}.dt_bias": Weight(f"{mixer}.forget_gate.dt_bias"),
        f"{MIXER}.out_norm.weight": Weight(f"{mixer}.o_norm.weight"),
    }
    for name, stored in named.items():
        weights |= linear(f"{MIXER}.{name}", f"{mixer}.{stored}")
    return weights


def _of_state_space(sizes: Sizes) -> list[int]:
    state = sizes["G"] * sizes["N"]
    return [sizes["I"], sizes["I"], state, state, sizes["R"]]


def state_space_weights(mixer: str) -> dict[str, Weight]:
    """Mamba-2, whose one projection puts out gate, x, B, C and dt one after the other."""
    weights = {
        **_convolution(f"{mixer}.conv1d"),
        **_recurrence(mixer, "A_log", "dt_bias", "D"),
        f"{MIXER}.out_norm.weight": Weight(f"{mixer}.norm.weight"),
        **linear(f"{MIXER}.out_proj", f"{mixer}.out_proj"),
    }
    for index, name in enumerate(("gate_proj", "x_proj", "B_proj", "C_proj", "dt_proj")):
        rows = rows_of_lengths(index, _of_state_space)
        weights |= linear(f"{MIXER}.{name}", f"{mixer}.in_proj", rows)
    return weights


def _of_steps(sizes: Sizes) -> list[int]:
    return [-1, sizes["N"], sizes["N"]]


def selective_weights(mixer: str) -> dict[str, Weight]:
    """Mamba: steps, B and C are projected from what the short convolution puts out, steps through a narrow middle."""
    weights = {
        **_convolution(f"{mixer}.conv1d"),
        **_recurrence(mixer, "A_log", "D"),
        f"{MIXER}.dt_proj": Weight(f"{mixer}.dt_proj.weight"),
        f"{MIXER}.dt_bias": Weight(f"{mixer}.dt_proj.bias"),
        **linear(f"{MIXER}.out_proj", f"{mixer}.out_proj"),
    }
    for index, name in enumerate(("x_proj", "gate_proj")):
        weights |= linear(f"{MIXER}.{name}", f"{mixer}.in_proj", rows_of_part(index, 2))
    for index, name in enumerate(("dt_down_proj", "B_proj", "C_proj")):
        rows = rows_of_lengths(index, _of_steps)
        weights[f"{MIXER}.{name}"] = Weight(f"{mixer}.x_proj.weight", rows)
    return weights


def convolution_weights(mixer: str) -> dict[str, Weight]:
    """LFM2's short convolution."""
    weights = {
        **_convolution(f"{mixer}.conv"),
        **linear(f"{MIXER}.out_proj", f"{mixer}.out_proj"),
    }
    for index, name in enumerate(("in_gate_proj", "gate_proj", "x_proj")):
        weights |= linear(f"{MIXER}.{name}", f"{mixer}.in_proj", rows_of_part(index, 3))
    return weights


def lightning_weights(mixer: str) -> dict[str, Weight]:
    """Lightning attention, whose one projection puts out queries, keys and values of each head side by side."""
    weights = {
        **linear(f"{MIXER}.gate_proj", f"{mixer}.output_gate"),
        f"{MIXER}.out_norm.weight": Weight(f"{mixer}.norm.weight"),
        **linear(f"{MIXER}.out_proj", f"{mixer}.out_proj"),
    }
    for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
        rows = rows_of_each_group(index, lambda sizes: [sizes["r"]] * 3)
        weights |= linear(f"{MIXER}.{name}", f"{mixer}.qkv_proj", rows)
    return weights
