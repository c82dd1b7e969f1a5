"""BitNet b1.58 (Ma et al. 2024): Llama with a norm before each projection that writes, and a squared ReLU.

``attn.z`` is what the heads mix and ``mlp.post_activation`` the neurons, as elsewhere; the output projection reads
``attn.z_normed``, and the down projection ``mlp.post_activation_normed``. ``attn.head_out`` is what each head writes after the
norm, whose denominator all heads share.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.sites import Input, Output
from garcon_backend.hook_sites.views import Heads
from garcon_backend.models.families import decoder, llama
from garcon_backend.models.family import Weight

HEAD_NORM = f"{decoder.ATTN}.attn_sub_norm"
NEURON_NORM = f"{decoder.MLP}.ffn_sub_norm"

FAMILY = replace(
    llama.FAMILY,
    name="bitnet",
    model_types=("bitnet",),
    points={
        **llama.FAMILY.points,
        "layers.{i}.attn.z": Input(HEAD_NORM, Heads()),
        "layers.{i}.attn.z_normed": Output(HEAD_NORM, Heads()),
        "layers.{i}.mlp.post_activation": Input(NEURON_NORM),
        "layers.{i}.mlp.post_activation_normed": Output(NEURON_NORM),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        **decoder.REFUSED_QK_NORM,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        **llama.FAMILY.parameters,
        "layers.{i}.attn.z_norm.weight": Weight(f"{HEAD_NORM}.weight"),
        "layers.{i}.mlp.neuron_norm.weight": Weight(f"{NEURON_NORM}.weight"),
    },
)
