"""Gemma 3n (Gemma Team 2025): Gemma 4's attention in a block that keeps several streams (AltUp; Baykal et al. 2023).

A block first predicts its streams from one another. Attention and MLP read and add to the first of these, and ``resid_pre`` is
that prediction, not the stream that the block before left. Beside attention a low-rank path (LAuReL; Menghani et al. 2024)
reads what attention reads: ``resid_mid == (resid_pre + attn.contribution + laurel.contribution) / √2``. At its end all streams
are corrected by what came of the first, and the embedding that a token has for the layer is added to the others. So no
sum of contributions is what leaves a block: that is ``altup.streams_post``.

In some layers what the gate projection puts out is cut off between ``pre_activation`` and the activation, so that few
neurons are not zero.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.sites import HookSite, Input, Output, SharedInput
from garcon_backend.hook_sites.views import StreamsFirst
from garcon_backend.models.families import decoder, gemma4
from garcon_backend.models.family import standard_sizes

BLOCK = decoder.BLOCK

NO_SINGLE_STREAM = (
    "a block leaves several streams, corrected by AltUp; see layers.{i}.altup.streams_post"
)

_OWN: dict[str, HookSite] = {
    "layers.{i}.altup.streams_pre": Input(BLOCK, StreamsFirst()),
    "layers.{i}.resid_pre": SharedInput(f"{BLOCK}.input_layernorm"),
    "layers.{i}.laurel.contribution": Output(f"{BLOCK}.laurel"),
    "layers.{i}.attn.in": Input(decoder.ATTN, aside=True),
    "layers.{i}.altup.streams_post": Output(BLOCK, StreamsFirst()),
}
_NOT = ("layers.{i}.resid_post", *gemma4.EXPERT_POINTS)


def _sizes(config: Any) -> dict[str, int]:
    more = {"e": config.hidden_size_per_layer_input, "A": config.altup_num_inputs}
    return standard_sizes(config) | more


FAMILY = replace(
    gemma4.FAMILY,
    name="gemma3n",
    model_types=("gemma3n_text",),
    sizes=_sizes,
    lacks=lambda config: {},
    points={**{t: site for t, site in gemma4.FAMILY.points.items() if t not in _NOT}, **_OWN},
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.resid_post": NO_SINGLE_STREAM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        name: weight
        for name, weight in gemma4.FAMILY.parameters.items()
        if "expert" not in name and "router" not in name
    },
)
