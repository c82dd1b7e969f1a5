"""Maps of a layer: tokens, or units, in two dimensions.

found = experiments.layout(rmodel, "layers.12.resid_post", texts, method="tsne")
found.values                            # where each dot is [dot, coordinate]
found.facts["texts"]                    # the text behind each dot
found.facts["trustworthiness"]          # how far neighbours on the map are neighbours in the data
found.show()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.clean_passes import contexts, decoder, stream
from garcon_jupyter.experiments.layer_views import principal
from garcon_jupyter.experiments.layer_views.embedding import (
    Method,
    check_method,
    check_options,
    made_with,
    placed,
)
from garcon_jupyter.experiments.layer_views.massive import Treatment, border, check_treatment, named
from garcon_jupyter.experiments.layer_views.neighbours import trustworthiness
from garcon_jupyter.experiments.layer_views.sampled import BEFORE, Sampled
from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.recorders.observing import offsets_of

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

Of = Literal["tokens", "units"]

SCORES = 50
"""Principal scores of each dot from which a map is made, and that travel."""

MOST = 8192
"""Tokens of a map at most: distances of all dots to all others are sorted."""

SAYS = "where a dot is on the map; only who lies near whom has a meaning"


def layout(
    rmodel: Client,
    point: str,
    data: Any,
    of: Of = "tokens",
    method: Method = "pca",
    tokens: int = 1000,
    massive: Treatment = "exclude",
    seed: int = 0,
    neighbours: int = 10,
    batch_tokens: int = 2048,
    packed: bool | None = None,
    progress: bool = True,
    **options: Any,
) -> ExperimentResult:
    r"""A map of tokens, or of units, on which like ones lie near each other.

    Tokens are drawn by lot while the data streams past, and their vectors kept beside the layer. Of *tokens*, a dot is a token, and its
    row its vector less the mean: which tokens look alike. Of *units*, a dot is a neuron (or a dimension), and its row its values at all
    these tokens, standardised: which units act alike. These are different pictures. What travels are the first 50 principal scores of each
    row; dots are placed here, on one thread: "pca" takes the first two, "tsne" is openTSNE (van der Maaten and Hinton 2008), "umap" is
    umap-learn (McInnes et al. 2018), both by the cosine. The same seed gives the same map, to the bit.

    How far a map can be believed says its trustworthiness (Venna and Kaski 2001), of the k nearest dots and of whole rows by the cosine,

        T = 1 − 2 / (n k (2n − 3k − 1)) · Σᵢ Σ_{j near i on the map} max(0, rank of j among the neighbours of i in the data − k)

    Args:
        point: of shape [b, p, …].
        data: as for :meth:`garcon_jupyter.RemoteModel.run`.
        of: "tokens" or "units".
        method: "pca", "tsne" (``garcon-jupyter[tsne]``) or "umap" (``garcon-jupyter[umap]``).
        tokens: how many are drawn.
        massive: whether tokens of more than five times the median norm are left out ("exclude") or not ("include"). They are named either way.
        seed: of the drawing and of the map.
        neighbours: k above.
        batch_tokens, packed: as for :meth:`garcon_jupyter.RemoteModel.run`.
        progress: show how far it is.
        options: as the method's package has them: perplexity, n_neighbors, min_dist, ….

    Returns:
        ``values`` [dot, coordinate]. The labels of dots are numbers of tokens drawn, or of units; ``facts["texts"]`` has the text behind each,
        the token between ⟨ and ⟩: of a unit the token where it is largest. ``facts["trustworthiness"]``; ``facts["massive"]``;
        ``facts["constant units"]``, which are left out as they do not vary. Of tokens, ``more["place"]`` [dot, 2] has text and position,
        and ``more["norm"]`` [dot] the norm.

    Raises:
        BadRequest: too few tokens; options that the method does not take.
        MissingModule: the method's package is not installed here.

    Examples:
        >>> texts = ["The cat sat on the mat and the dog lay by the door", "Paris and Rome and Berlin are large old towns of Europe"]
        >>> found = experiments.layout(rmodel, "layers.6.resid_post", texts, packed=False, neighbours=3, progress=False)
        >>> found.axes["coordinate"], found.facts["massive tokens"]
        (('x', 'y'), 3)
        >>> found.facts["texts"][0]
        'The⟨ cat⟩ sat on the mat'
        >>> 0.5 < found.facts["trustworthiness"] <= 1
        True
    """
    _check(of, massive, tokens, neighbours)
    check_method(method)
    check_options(method, options)
    with contexts(rmodel, "layout") as name:
        where = rmodel.probe_points[point]
        recorder = where.probe(Sampled(tokens, seed), name=name)
        plan = {"batch_tokens": batch_tokens, "packed": packed, "show": progress}
        stream(rmodel, data, [recorder], **plan)
        told = _asked(rmodel, point, name, _reducer(of, massive))
        _check_told(point, told, neighbours)
        dots = placed(told["scores"].numpy(), method, seed, options)
        told |= _asked(rmodel, point, name, _truster(of, massive, dots, neighbours))
    return _result(rmodel, point, of, method, massive, seed, neighbours, options, dots, told)


def _check(of: str, massive: str, tokens: int, neighbours: int) -> None:
    """Refuse what makes no map, before anything runs."""
    check_treatment(massive)
    if of not in get_args(Of):
        raise BadRequest(f"There is no map of {of!r}.", f"There are {', '.join(get_args(Of))}.")
    for name, value, most in (("tokens", tokens, MOST), ("neighbours", neighbours, MOST // 2)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise BadRequest(f"{name}={value!r} make no map.", f"Give a number from 1 to {most}.")


def _check_told(point: str, told: dict[str, Any], neighbours: int) -> None:
    """Refuse rows that make no map, before it is made."""
    if not told["finite"]:
        raise BadRequest(
            f"{point} holds NaN or infinite values on this data.",
            "rmodel.show(point, text) shows where.",
        )
    if told["dots"] <= 2 * neighbours:
        raise BadRequest(
            f"There are {told['dots']} dots, and {neighbours} neighbours of each are to be looked at.",
            f"Give data of more tokens, or neighbours={max(1, (told['dots'] - 1) // 2)}.",
        )


def _asked(rmodel: Client, point: str, name: str, probe: Any) -> dict[str, Any]:
    """What a probe tells of the vectors that are kept beside a point."""
    probes = [rmodel.probe_points[point].probe(probe, name=name, read_only=True)]
    rmodel.forward([[0]], probes=probes, logits="none")
    told: dict[str, Any] = rmodel.recordings()[point, name].told
    return told


# -- beside the layer ------------------------------------------------------------------------------


def _reducer(of: str, massive: str) -> Any:
    """A probe that tells the scores of all rows, and where the tokens are."""

    def reduce(save_ctx: Any, tensor: Any) -> None:
        state = getattr(save_ctx, "sampled", None)
        if state is None:
            save_ctx.told = {"finite": True, "dots": 0}
            return
        norms = state.vectors.double().norm(dim=0).cpu()
        if not bool(norms.isfinite().all()):
            save_ctx.told = {"finite": False, "dots": 0}
            return
        rows, dots, strongest = _rows(state, of, massive)
        save_ctx.told = {
            "finite": True,
            "dots": len(dots),
            "scores": principal.scores(rows, SCORES).cpu() if len(dots) > 1 else rows.cpu(),
            "labels": dots.cpu(),
            "units": len(state.vectors),
            "strongest": strongest.cpu(),
            "norms": norms,
            "places": state.places.cpu(),
            "windows": state.windows.cpu(),
        }

    return reduce


def _truster(of: str, massive: str, dots: Any, neighbours: int) -> Any:
    """A probe that holds a map against the rows."""

    def trust(save_ctx: Any, tensor: Any) -> None:
        import torch

        rows, _, _ = _rows(save_ctx.sampled, of, massive)
        value = trustworthiness(rows, torch.from_numpy(dots), neighbours)
        save_ctx.told = {"trustworthiness": value}

    return trust


def _rows(state: Any, of: str, massive: str) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [dot, f], which token or unit each is, and the token whose text stands behind it."""
    import torch

    vectors = state.vectors.double()  # [units, k]
    norms = vectors.norm(dim=0)
    tokens = torch.arange(vectors.shape[1], device=vectors.device)
    if massive == "exclude":
        tokens = tokens[norms <= border(norms)]
    vectors = vectors[:, tokens]
    if of == "tokens":
        return (vectors - vectors.mean(1, keepdim=True)).T, tokens, tokens
    deviation = vectors.std(1, correction=0)
    units = (deviation > 0).nonzero().flatten()
    vectors = vectors[units]
    rows = (vectors - vectors.mean(1, keepdim=True)) / deviation[units, None]
    return rows, units, tokens[rows.argmax(1)]


# -- here ------------------------------------------------------------------------------------------


def _result(
    rmodel: Client,
    point: str,
    of: str,
    method: str,
    massive: str,
    seed: int,
    neighbours: int,
    options: dict[str, Any],
    dots: Any,
    told: dict[str, Any],
) -> ExperimentResult:
    """The map, with the texts behind its dots."""
    import torch

    places, windows, labels = told["places"], told["windows"], told["labels"]
    strongest = told["strongest"]
    documents, offsets = places >> 32, offsets_of(places)
    facts: dict[str, Any] = {
        "model": rmodel.facts["name"],
        "point": point,
        "of": of,
        "method": method,
        "made with": made_with(method),
        "options": {name: str(value) for name, value in options.items()},
        "seed": seed,
        "trustworthiness": told["trustworthiness"],
        "neighbours": neighbours,
        "massive tokens are": "left out" if massive == "exclude" else "on the map",
        **named(rmodel, told["norms"], documents, offsets, windows[:, BEFORE]),
        "texts": _texts(rmodel, windows[strongest]),
        "limits": [
            "distances between far dots, sizes and gaps of groups mean little; the trustworthiness says how far near dots are near"
        ],
    }
    more: dict[str, Any] = {}
    if of == "units":
        facts["constant units"] = sorted({*range(told["units"])} - {*labels.tolist()})
    if of == "tokens":
        more = {
            "place": torch.stack([documents, offsets], 1)[labels],
            "norm": told["norms"][labels],
        }
    axes = {"dot": tuple(labels.tolist()), "coordinate": ("x", "y")}
    return ExperimentResult("layout", torch.from_numpy(dots), axes, SAYS, facts, more)


def _texts(rmodel: Client, windows: Tensor) -> list[str]:
    """The text of each window, its own token between ⟨ and ⟩."""
    words = decoder(rmodel, windows[windows >= 0].tolist())

    def text(window: list[int]) -> str:
        before, own, after = window[:BEFORE], window[BEFORE], window[BEFORE + 1 :]
        parts = ("".join(words[each] for each in part if each >= 0) for part in (before, after))
        return f"⟨{words[own]}⟩".join(parts)

    return [text(window) for window in windows.tolist()]
