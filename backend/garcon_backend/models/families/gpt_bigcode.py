"""GPT-BigCode (Allal et al. 2023; SantaCoder, StarCoder): GPT-2 whose heads share one key and one value.

Its configuration may give each head a key and a value of its own, which lie beside its query.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garcon_backend.hook_sites.sites import Output
from garcon_backend.hook_sites.views import Grouped
from garcon_backend.models.families import gpt2
from garcon_backend.models.family import linear, rows_of_group, standard_sizes

FUSED = f"{gpt2.ATTN}.c_attn"


def _sizes(config: Any) -> dict[str, int]:
    sizes = standard_sizes(config)
    return {**sizes, "K": 1 if config.multi_query else sizes["H"]}


FAMILY = replace(
    gpt2.FAMILY,
    name="gpt_bigcode",
    model_types=("gpt_bigcode",),
    sizes=_sizes,
    points={
        **gpt2.FAMILY.points,
        **{f"layers.{{i}}.attn.{x}": Output(FUSED, Grouped(n)) for n, x in enumerate("qkv")},
    },
    parameters={
        **gpt2.FAMILY.parameters,
        **linear("layers.{i}.attn.q_proj", FUSED, rows_of_group(0)),
        **linear("layers.{i}.attn.k_proj", FUSED, rows_of_group(1)),
        **linear("layers.{i}.attn.v_proj", FUSED, rows_of_group(2)),
        **linear("layers.{i}.attn.o_proj", f"{gpt2.ATTN}.c_proj"),
        **linear("layers.{i}.mlp.up_proj", f"{gpt2.MLP}.c_fc"),
        **linear("layers.{i}.mlp.down_proj", f"{gpt2.MLP}.c_proj"),
    },
)
