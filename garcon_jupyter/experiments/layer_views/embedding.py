"""Methods that place dots on a map. They run where the notebook is, on one thread, so that a seed gives the same to the bit."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module, metadata
from importlib.util import find_spec
from inspect import signature
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest, MissingModule

Dots = NDArray[np.float64]
Method = Literal["pca", "tsne", "umap"]

NEEDS = {"tsne": ("openTSNE", "openTSNE", "tsne"), "umap": ("umap", "umap-learn", "umap")}
"""Of a method: the module, the package and the extra that has it."""


OWN = ("random_state", "n_jobs", "n_components", "self")
"""Options that a map has its own values of, so that a seed gives the same."""


def check_method(method: str) -> None:
    """Refuse a method that there is not, or whose package is not installed.

    Raises:
        BadRequest: there is no such method.
        MissingModule: names package and extra.
    """
    if method not in get_args(Method):
        raise BadRequest(
            f"There is no method {method!r}.", f"There are {', '.join(get_args(Method))}."
        )
    if method in NEEDS:
        module, package, extra = NEEDS[method]
        if find_spec(module) is None:
            raise MissingModule(
                f'method="{method}" needs {package}, which is not installed where this notebook is.',
                f'pip install "garcon-jupyter[{extra}]", or ask for method="pca".',
            )


def check_options(method: str, options: dict[str, Any]) -> None:
    """Refuse options that the package of a method does not take, or that are given otherwise.

    Raises:
        BadRequest: names them, and the nearest that there are.
    """
    takes = () if method == "pca" or not options else _options_of(method)
    for word in options:
        if word not in takes or word in OWN:
            near = get_close_matches(word, takes, 3) or takes[:3]
            remedy = f"It takes {', '.join(near)}, among others." if near else "Leave it out."
            raise BadRequest(f"{method} does not take {word}.", remedy)


def _options_of(method: str) -> tuple[str, ...]:
    module, _, _ = NEEDS[method]
    maker = getattr(import_module(module), method.upper())
    return tuple(word for word in signature(maker).parameters if word not in OWN)


def made_with(method: str) -> str:
    """The package of a method, with its release."""
    if method not in NEEDS:
        return "garcon"
    return f"{NEEDS[method][1]} {metadata.version(NEEDS[method][1])}"


def placed(scores: Dots, method: str, seed: int, options: dict[str, Any]) -> Dots:
    """Dots [n, 2] of principal scores [n, k]."""
    make: dict[str, Callable[..., Dots]] = {"pca": _pca, "tsne": _tsne, "umap": _umap}
    return np.asarray(make[method](scores, seed, **options), dtype=np.float64)


def _pca(scores: Dots, seed: int) -> Dots:
    """The first two scores themselves."""
    return scores[:, :2]


def _tsne(scores: Dots, seed: int, **options: Any) -> Dots:
    """t-SNE by openTSNE, begun at the first two scores."""
    from openTSNE import TSNE, initialization

    start = initialization.rescale(scores[:, :2].copy())
    few = {"perplexity": min(30.0, (len(scores) - 1) / 3)}
    given = {**few, "metric": "cosine", "initialization": start, **options}
    return np.asarray(TSNE(random_state=seed, n_jobs=1, **given).fit(scores))


def _umap(scores: Dots, seed: int, **options: Any) -> Dots:
    """UMAP by umap-learn, begun at the first two scores."""
    from umap import UMAP

    start = 10 * scores[:, :2] / max(np.abs(scores[:, :2]).max(), 1e-12)
    few = {"n_neighbors": min(15, len(scores) - 1)}
    given = {**few, "metric": "cosine", "init": start, **options}
    return np.asarray(UMAP(random_state=seed, n_jobs=1, **given).fit_transform(scores))
