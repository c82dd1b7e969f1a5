"""A sample of a graph's latents, set to zero in the model itself, in which nothing is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from garcon_jupyter.experiments.attribution.exact import apart, sample
from garcon_jupyter.experiments.attribution_graphs.frozen_passes import FrozenModel, logit_cap
from garcon_jupyter.experiments.unit_effects.ablations import ablated
from garcon_jupyter.experiments.unit_effects.gradient_pass import PlacedUnit
from garcon_jupyter.experiments.unit_effects.writers import UnitWriter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def checked_nodes(
    model: FrozenModel, latents: Sequence[int], effects: Tensor, count: int, seed: int
) -> tuple[Tensor, Mapping[str, float | int]]:
    """What the likeliest logit, less the mean of all, loses without each latent of a sample: [latent], NaN for those that are none.

    Args:
        latents: the nodes, by their numbers among the active latents.
        effects: what the graph says of them, [latent].
        count: how many; half of them the strongest, the others drawn.

    Returns:
        Those, and how far the graph is from them.
    """
    import torch

    token, run, cap = model.run.logits[0], model.run, logit_cap(model.rmodel)

    def metric(logits: Any) -> Any:
        last = logits[:, -1]
        last = last.to(torch.promote_types(last.dtype, torch.float32))
        last = cap * torch.atanh(last / cap) if cap else last
        return last[:, token] - last.mean(-1)

    writers = [
        UnitWriter("latents", each.point("latents"), each.layer, each.label, "", "")
        for each in model.transcoders
    ]
    rows = [row for (row,) in sample(effects, count, seed)]
    nothing = float("nan")
    units = []
    for row in rows:
        position, number = run.places[latents[row]].tolist()
        which = int(run.which[latents[row]])
        units.append(PlacedUnit(which, position, number, nothing, nothing, nothing, nothing))
    lost, _ = ablated(model.rmodel, model.tokens, metric, writers, units)
    exact = torch.full_like(effects, nothing)
    exact[rows] = lost.to(exact.dtype)
    return exact, apart(effects, exact)
