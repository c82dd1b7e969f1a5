"""Forwards in steps of what mixes tokens without attending: which functions they call, and what these are given.

Parts are those of ``layers.{i}.mixer.*``. Within a step of a generation several of the functions are given one position
without its axis; the parts have it always.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from garcon_backend.hook_sites.own_forward import CONV_IN, At, Calls, own_forward
from garcon_backend.hook_sites.sites import Input, Pass, StagedForward, Visitor
from garcon_backend.hook_sites.views import Frame, Interleaved, PointView


@dataclass(frozen=True)
class ChannelsFirst(PointView):
    """[b, C, p] as [b, p, C]; what was kept of earlier positions may stand before these."""

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return tensor[..., -the_pass.batch[1] :].transpose(1, 2)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        before = tensor[..., : -the_pass.batch[1]]
        return torch.cat([before, value.transpose(1, 2)], -1)


@dataclass(frozen=True)
class Laid(PointView):
    """A value that lies otherwise than the table says: there and back again."""

    there: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]

    def extract(self, tensor: Tensor, the_pass: Frame) -> Tensor:
        return self.there(tensor)

    def insert(self, tensor: Tensor, value: Tensor, the_pass: Frame) -> Tensor:
        return self.back(value).expand(tensor.shape)


_ONE = Laid(lambda x: x.unsqueeze(1), lambda x: x.squeeze(1))
"""[b, …] of one position as [b, 1, …]."""
_STEP_OF_HEAD = Laid(lambda x: x[..., 0].unsqueeze(1), lambda x: x.squeeze(1).unsqueeze(-1))
"""[b, R, r] of one position, alike in all of a head, as [b, 1, R]."""

_CONV = {CONV_IN: At("hidden_states", ChannelsFirst()), "conv_out": At(None, ChannelsFirst())}
CONV: Calls = {"causal_conv1d_fn": _CONV, "causal_conv1d_update": _CONV}

_DELTA = {
    "q": At("query"),
    "k": At("key"),
    "v": At("value"),
    "beta": At("beta"),
    "decay": At("g"),
    "state_out": At(),
}

short_convolution = own_forward(CONV)
"""LFM2's: a convolution over a few positions, and gates before and after it."""


def _of_delta_rule(delta: Mapping[str, At]) -> StagedForward:
    rules = ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule")
    return own_forward({**CONV, **dict.fromkeys(rules, delta)})


def gated_delta_net(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: dict[str, Any]
) -> Any:
    """Gated DeltaNet (Yang et al. 2024): a state that each key reads, and of which β is replaced by the key's value.

    Several heads of values share one of queries and keys. Before 5.23 transformers repeats these itself, before it calls the rule,
    which then is given each of them several times.
    """
    shared = module.num_v_heads // module.num_k_heads
    repeats = "repeat_interleave" in inspect.unwrap(type(module).forward).__code__.co_names
    steps = _of_repeated(shared) if repeats and shared > 1 else _AS_THEY_ARE
    return steps(module, visits, the_pass, args, kwargs)


_AS_THEY_ARE = _of_delta_rule(_DELTA)


@functools.cache
def _of_repeated(times: int) -> StagedForward:
    """For a rule that is given each head of queries and keys so many times, one after the other."""
    view = Laid(lambda x: x[:, :, ::times], lambda x: x.repeat_interleave(times, dim=2))
    return _of_delta_rule({**_DELTA, "q": At("query", view), "k": At("key", view)})


_DELTA_OF_CHANNELS = {"channel_decay" if n == "decay" else n: at for n, at in _DELTA.items()}

kimi_delta_attention = own_forward(
    {
        **CONV,
        "chunk_kimi_delta_attention": _DELTA_OF_CHANNELS,
        "recurrent_kimi_delta_attention": _DELTA_OF_CHANNELS,
    }
)
"""Kimi Delta Attention (Kimi Team 2025): Gated DeltaNet, where each channel of a key is forgotten at a rate of its own."""

SPACE: Calls = {
    **CONV,
    "mamba2_chunk_scan": {
        "x": At("hidden_states"),
        "dt": At("dt"),
        "B": At("B"),
        "C": At("C"),
        "state_out": At(),
    },
    "mamba2_selective_state_update": {
        "x": At("hidden_states", _ONE),
        "dt": At("dt", _STEP_OF_HEAD),
        "B": At("B", _ONE),
        "C": At("C", _ONE),
        "state_out": At(None, _ONE),
    },
}

state_space = own_forward(SPACE)
"""Mamba-2 (Dao and Gu 2024): heads that decay by one number each."""

_GATE_OF_ONE = Laid(lambda x: x.flatten(1).unsqueeze(1), lambda x: x.squeeze(1))
"""[b, R, r] of one position as [b, 1, R·r]."""

_ungrouped_space = own_forward(
    {
        **SPACE,
        "mamba2_selective_state_update": {
            "gate": At("z", _GATE_OF_ONE),
            **SPACE["mamba2_selective_state_update"],
        },
        "torch.nn.functional.silu": {"gate": At("input")},
    },
    gate="z",
)


def multiplied_space(
    module: Any, visits: dict[str, Visitor], the_pass: Pass, args: Any, kwargs: dict[str, Any]
) -> Any:
    """Falcon-H1's Mamba-2: a gate inside its forward, or, where the configuration says so, one inside a norm."""
    if not module.mamba_rms_norm or "gate" not in visits:
        return _ungrouped_space(module, visits, the_pass, args, kwargs)
    inside = Input("norm", position=1)
    remove = inside.install(module.norm, the_pass, visits["gate"])
    try:
        others = {part: visit for part, visit in visits.items() if part != "gate"}
        return _ungrouped_space(module, others, the_pass, args, kwargs)
    finally:
        remove()


_CHANNELS = Laid(lambda x: x.transpose(1, 2).unsqueeze(-1), lambda x: x.squeeze(-1).transpose(1, 2))
"""[b, I, p] as [b, p, I, 1]: each channel is a head of its own."""
_OF_ALL = Laid(lambda x: x.transpose(1, 2).unsqueeze(2), lambda x: x.squeeze(2).transpose(1, 2))
"""[b, N, p] as [b, p, 1, N]."""
_SWAPPED = Laid(lambda x: x.transpose(1, 2), lambda x: x.transpose(1, 2))
_ONE_OF_CHANNELS = Laid(lambda x: x[:, None, :, None], lambda x: x[:, 0, :, 0])
_ONE_OF_ALL = Laid(lambda x: x[:, None, None], lambda x: x[:, 0, 0])

selective_scan = own_forward(
    {
        **CONV,
        "mamba_selective_scan": {
            "x": At("hidden_states", _CHANNELS),
            "dt": At("dt", _SWAPPED),
            "B": At("B", _OF_ALL),
            "C": At("C", _OF_ALL),
            "gate": At("z", _SWAPPED),
            "state_out": At(None, _CHANNELS),
        },
        "mamba_selective_state_update": {
            "x": At("hidden_states", _ONE_OF_CHANNELS),
            "dt": At("dt", _ONE),
            "B": At("B", _ONE_OF_ALL),
            "C": At("C", _ONE_OF_ALL),
            "gate": At("z", _ONE),
            "state_out": At(None, _ONE_OF_CHANNELS),
        },
    },
    gate="z",
)
"""Mamba (Gu and Dao 2023): each channel decays by N numbers of its own."""

lightning_attention = own_forward(
    {
        "apply_mask_to_padding_states": {
            part: At(None, Interleaved(index, 3)) for index, part in enumerate("qkv")
        }
    }
)
"""Lightning attention (Qin et al. 2024): linear attention whose heads forget at rates that no token changes."""
