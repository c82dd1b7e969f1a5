"""EXAONE 4 (LG AI Research 2025): OLMo 2's norms after attention and MLP, and a norm of each head's queries and keys.

Layers that see everything turn no positions into queries and keys, where others have a window.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.views import HeadsFirst
from garcon_backend.models.families import decoder, olmo2

FAMILY = replace(
    olmo2.FAMILY,
    name="exaone4",
    model_types=("exaone4",),
    points={**olmo2.FAMILY.points, **decoder.normed_points(HeadsFirst())},
)
