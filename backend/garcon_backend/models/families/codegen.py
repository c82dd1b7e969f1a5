"""CodeGen (Nijkamp et al. 2022): GPT-J, with queries, keys and values in one projection.

Four blocks of heads lie in it one after the other, as its trainer cut it over four devices; each has the queries of its heads,
then the *values*, then the keys.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.sites import Output
from garcon_backend.hook_sites.views import InBlocks
from garcon_backend.models.families import gptj
from garcon_backend.models.family import linear, rows_in_blocks

FUSED = f"{gptj.ATTN}.qkv_proj"
BLOCKS = 4
ORDER = "qvk"

FAMILY = replace(
    gptj.FAMILY,
    name="codegen",
    model_types=("codegen",),
    points={
        **gptj.FAMILY.points,
        **{
            f"layers.{{i}}.attn.{x}": Output(FUSED, InBlocks(n, 3, BLOCKS))
            for n, x in enumerate(ORDER)
        },
    },
    parameters={
        **gptj.FAMILY.parameters,
        **{
            name: weight
            for n, x in enumerate(ORDER)
            for name, weight in linear(
                f"layers.{{i}}.attn.{x}_proj", FUSED, rows_in_blocks(n, 3, BLOCKS)
            ).items()
        },
    },
)
