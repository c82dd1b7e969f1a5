"""Principal components of what a point holds.

found = experiments.pca(rmodel, "layers.12.resid_post", texts)
found.values                            # share of the variance [tokens, component]: without and with massive tokens
found.more["components"]                # [component, unit]
found.facts["massive"]                  # which tokens these are, with their norms
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts, stream
from garcon_jupyter.experiments.layer_views import principal
from garcon_jupyter.experiments.layer_views.apart import Apart
from garcon_jupyter.experiments.layer_views.massive import Treatment, border, check_treatment, named
from garcon_jupyter.experiments.result import ExperimentResult, Label
from garcon_jupyter.recorders.observing import offsets_of

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

SAYS = "share of the variance along a component"
WAYS = ("without massive tokens", "with massive tokens")


def pca(
    rmodel: Client,
    point: str,
    data: Any,
    components: int = 20,
    massive: Treatment = "exclude",
    batch_tokens: int = 2048,
    packed: bool | None = None,
    progress: bool = True,
) -> ExperimentResult:
    r"""Principal components of a point: the directions along which its values vary most, token by token.

    The covariance C = 1/n Σ (x − μ)(x − μ)ᵀ is recorded while the data streams past, in float64, and C = V diag(λ) Vᵀ on the rank that
    has the point; no activation travels. It is what the singular value decomposition of the centred data [token, unit] has, with
    λ = σ² / n. The sign of a component is such that its entry of largest size is positive.

    In most models a few tokens have a norm that is many times that of others (Sun et al. 2024), and the first component of all tokens
    is them. Those of more than five times the median norm are named in ``facts["massive"]``, and both shares of variance are told.

    Args:
        point: of shape [b, p, …].
        data: as for :meth:`garcon_jupyter.RemoteModel.run`.
        components: how many are returned.
        massive: whether components and mean are of the tokens without the massive ones ("exclude"), or of all ("include").
        batch_tokens, packed: as for :meth:`garcon_jupyter.RemoteModel.run`.
        progress: show how far it is.

    Returns:
        ``values`` [tokens, component], the share of the variance without and with massive tokens. ``more["components"]`` [component,
        unit] and ``more["mean"]`` [unit] of the tokens that `massive` says; ``more["variances"]`` [tokens, unit], all eigenvalues.
        ``facts`` has the massive tokens, each with text, position and norm, how many they are, and the median norm.

    Raises:
        BadProbe: a point without a vector for each token.
        BadRequest: fewer than two tokens, or NaN among their values.

    Examples:
        >>> texts = ["The capital of France is Paris", "The capital of Italy is Rome"]
        >>> found = experiments.pca(rmodel, "layers.12.resid_post", texts, components=3, packed=False, progress=False)
        >>> found.values.shape, found.more["components"].shape
        (torch.Size([2, 3]), torch.Size([3, 576]))
        >>> [(one["text"], one["position"], one["token"]) for one in found.facts["massive"]]
        [(0, 0, 'The'), (1, 0, 'The')]
        >>> bool(found.values[1, 0] > 0.99 > found.values[0, 0])
        True
    """
    check_treatment(massive)
    if isinstance(components, bool) or not isinstance(components, int) or components < 1:
        raise BadRequest(f"components={components!r} are none.", "Give at least 1.")
    told = _recorded(rmodel, point, data, components, massive, batch_tokens, packed, progress)
    shares = told["variances"] / told["variances"].sum(1, keepdim=True)
    count = len(told["components"])
    axes: dict[str, tuple[Label, ...]] = {"tokens": WAYS, "component": tuple(range(count))}
    offsets = offsets_of(told["places"])
    facts = {
        "model": rmodel.facts["name"],
        "point": point,
        "components of": WAYS[0 if massive == "exclude" else 1],
        **named(rmodel, told["norms"], told["places"] >> 32, offsets, told["ids"]),
        "limits": ["what varies most need not be what the model uses"],
    }
    more = {name: told[name] for name in ("components", "mean", "variances")}
    return ExperimentResult("pca", shares[:, :count], axes, SAYS, facts, more)


def _recorded(
    rmodel: Client,
    point: str,
    data: Any,
    count: int,
    massive: str,
    batch_tokens: int,
    packed: bool | None,
    progress: bool,
) -> dict[str, Any]:
    """What the covariance comes to, on the rank that has the point."""

    def finish(save_ctx: Any, tensor: Any) -> None:
        save_ctx.told = _finished(getattr(save_ctx, "apart", None), count, massive)

    known = 0.0
    with contexts(rmodel, "pca") as name:
        where = rmodel.probe_points[point]
        while True:  # twice at most
            recorder = where.probe(Apart(known), name=name)
            plan = {"batch_tokens": batch_tokens, "packed": packed, "show": progress}
            stream(rmodel, data, [recorder], **plan)
            probe = where.probe(finish, name=name, read_only=True)
            rmodel.forward([[0]], probes=[probe], logits="none")
            told: dict[str, Any] = rmodel.recordings()[point, name].told
            if told["tokens"] < 2:
                raise BadRequest(
                    f"The data holds {told['tokens']} tokens.", "Give at least two to vary."
                )
            if not told["finite"]:
                raise BadRequest(
                    f"{point} holds NaN or infinite values on this data.",
                    "rmodel.show(point, text) shows where.",
                )
            if not told["torn"]:
                return told
            known = border(told["norms"])  # a massive token went in unnoticed: once more


def _finished(state: Any, count: int, massive: str) -> dict[str, Any]:
    """Components and variances; this runs beside the layer."""
    import torch

    if state is None:
        return {"tokens": 0}
    seen = {"norms": state.norms, "places": state.places, "ids": state.ids}
    told = {"tokens": len(state.norms), "finite": math.isfinite(float(state.norms.sum())), **seen}
    if not told["finite"] or state.torn:
        return {**told, "torn": True}
    whole, ordinary = state.parted()
    parts = [principal.components(each.covariance.cpu()) for each in (ordinary, whole)]
    chosen = 0 if massive == "exclude" else 1
    return {
        **told,
        "torn": False,
        "components": parts[chosen][0][:count].float(),
        "mean": (ordinary, whole)[chosen].mean.cpu(),
        "variances": torch.stack([variances for _, variances in parts]),
    }
