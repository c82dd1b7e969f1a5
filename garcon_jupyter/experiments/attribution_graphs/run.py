"""The prompt as the model reads it: which latents are active, and which tokens are likely next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.attribution_graphs.transcoders import LayerTranscoder
from garcon_jupyter.experiments.clean_passes import contexts

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from garcon_jupyter.client.client import Client
    from garcon_jupyter.client.tokens import Tokens


@dataclass(frozen=True)
class PromptRun:
    """What a graph is of.

    Attributes:
        layers: of the transcoders.
        which: of each active latent, the number of its transcoder, int64 [latent]; in the order of the layers.
        places: its position and its number in the dictionary, int64 [latent, 2].
        activations: [latent].
        logits: ids of the likeliest tokens, likeliest first.
        probabilities: of these.
    """

    layers: tuple[int, ...]
    which: Tensor
    places: Tensor
    activations: Tensor
    logits: tuple[int, ...]
    probabilities: tuple[float, ...]

    def of(self, transcoder: int) -> Tensor:
        """Numbers of the active latents of one transcoder."""
        found: Tensor = (self.which == transcoder).nonzero().flatten()
        return found


def run_of(
    rmodel: Client,
    tokens: Tokens,
    transcoders: Sequence[LayerTranscoder],
    bypass: Sequence[int],
    share: float,
    most_logits: int,
) -> PromptRun:
    """One forward.

    Args:
        bypass: positions whose latents are none.
        share: of probability that the logits add up to.
    """
    import torch

    def likely(logits: Any) -> Any:
        import torch

        chances = logits[0, -1].double().softmax(-1).topk(most_logits)
        return torch.stack([chances.indices.double(), chances.values]).cpu()

    with contexts(rmodel, "active latents") as name:
        points = [each.point("latents") for each in transcoders]
        probes = [
            rmodel.probe_points[point].probe(_active(list(bypass)), name=name, read_only=True)
            for point in points
        ]
        best = rmodel.forward(tokens, probes=probes, logits=likely)
        recordings = rmodel.recordings(fetch=False)
        handles = [
            recordings[p, name].handle(what) for p in points for what in ("places", "values")
        ]
        got = rmodel.fetch(*handles)
    places, values = list(got[::2]), list(got[1::2])
    which = [torch.full((len(each),), number) for number, each in enumerate(places)]
    if not sum(map(len, places)):
        raise BadRequest(
            "No latent is active on this prompt.", "Give another prompt, or other dictionaries."
        )
    needed = int((best[1].cumsum(0) < share).sum()) + 1
    return PromptRun(
        tuple(each.layer for each in transcoders),
        torch.cat(which),
        torch.cat(places),
        torch.cat(values).double(),
        tuple(int(token) for token in best[0][:needed]),
        tuple(best[1][:needed].tolist()),
    )


def _active(bypass: list[int]) -> Callable[[Any, Any], None]:
    """A probe that leaves the latents that are not 0."""

    def active(save_ctx: Any, tensor: Any) -> None:
        latents = tensor[0].detach().clone()
        latents[[place for place in bypass if place < len(latents)]] = 0
        places = latents.nonzero()
        save_ctx.places = places.cpu()
        save_ctx.values = latents[places[:, 0], places[:, 1]].cpu()

    return active
