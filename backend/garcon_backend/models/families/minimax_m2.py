"""MiniMax-M2 (MiniMax 2025): Mixtral's block, with a norm of the queries and of the keys of all heads together.

Its router scores each expert by a sigmoid. A bias that is no parameter takes part in the choice, not in the weights of the chosen,
which add up to one and are in no order.
"""

from __future__ import annotations

from dataclasses import replace

from garcon_backend.hook_sites.staged.routers import biased_sigmoid_router
from garcon_backend.models.families import experts, olmoe

FAMILY = replace(
    olmoe.FAMILY,
    name="minimax_m2",
    model_types=("minimax_m2",),
    points={**olmoe.FAMILY.points, **experts.points(biased_sigmoid_router)},
)
