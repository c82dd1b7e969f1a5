"""NanoChat (Karpathy 2025): Llama with an MLP without gate, and norms without gains.

The embedding is normalised before the first block, by the module that is the final norm as well: ``layers.0.resid_pre`` is not
``embed.out``, and ``final_norm`` is that module's second call. A head's queries and keys are normalised *after* rotary
positions, which turn the other way than Llama's: ``q_rot`` is what the norm reads and ``q_normed`` what attention is given.
"""

from __future__ import annotations

from garcon_backend.hook_sites.other_sites import SecondCall
from garcon_backend.hook_sites.sites import Input, Output
from garcon_backend.hook_sites.staged import norms
from garcon_backend.hook_sites.views import HeadsFirst
from garcon_backend.models.families import decoder, llama
from garcon_backend.models.family import Family, linear, norm_points

NORM = norms.bare_rms_norm
FINAL_NORM = norm_points("final_norm", "model.norm", NORM)

FAMILY = Family(
    name="nanochat",
    model_types=("nanochat",),
    layers="model.layers",
    points={
        **decoder.stem_points(NORM),
        **{name: SecondCall(site.path, site) for name, site in FINAL_NORM.items()},
        **decoder.attention_points(NORM),
        **{
            f"layers.{{i}}.attn.{x}_{after}": side(f"{decoder.ATTN}.{x}_norm", HeadsFirst())
            for x in "qk"
            for after, side in (("rot", Input), ("normed", Output))
        },
        **decoder.middle_points(llama.SECOND_NORM, NORM),
        **decoder.plain_mlp_points(decoder.MLP, "fc1", "fc2"),
    },
    refused={
        "pos_embed.out": decoder.NO_LEARNED_POSITIONS,
        "layers.{i}.mlp.pre_linear": decoder.UNGATED,
        **decoder.REFUSED_EXPERTS,
    },
    parameters={
        "embed.weight": decoder.stem_weights()["embed.weight"],
        **decoder.unembed_weights("model.embed_tokens.weight"),
        **decoder.projection_weights(),
        **linear("layers.{i}.mlp.up_proj", f"{decoder.MLP}.fc1"),
        **linear("layers.{i}.mlp.down_proj", f"{decoder.MLP}.fc2"),
    },
)
