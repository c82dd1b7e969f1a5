"""Norms, made part of the weights that read or write the residual stream.

A norm between the stream x and a projection W does three things. A LayerNorm takes the mean away, which is a matrix,
C = I − 1·1ᵀ/D. It divides by a number that depends on all of x. It multiplies by its gain g. So ``W·norm(x) = (W·diag(g)·C)·x / scale``:
the matrix in brackets is W, *folded*. What it divides by is one positive number at each token, the same for all that was written, so that
shares, signs and orders are right without it. The norm's bias, as the projection's, adds the same whatever is read, and is left out.

A norm *behind* a projection (Gemma 2, OLMo 2) does the same to what is written: ``diag(g)·W``, up to what it divides by, which is now the
writer's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from garcon_jupyter.errors import PointUnavailable
from garcon_jupyter.points import parse_point

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.experiments.connectivity.weights import Weights
    from garcon_jupyter.points import Catalog


_OTHER_STREAMS = {
    "layers.{i}.altup.streams_pre": "its layers read a mix of several streams, which differs from token to token",
    "layers.{i}.mixer.aside": "what attention and MLP put out is read by the next mixer alone, and added to no stream",
}
"""Points of models whose parts do not write into one residual stream that later parts read, and why that is so."""


def has_point(catalog: Catalog, template: str, layer: int) -> bool:
    """Whether a layer has a point of the table."""
    return layer in catalog.layers.get(template, ()) and template not in catalog.refused


def check_one_stream(catalog: Catalog) -> None:
    """Refuse models whose parts do not add to one residual stream: products of weights would not say what reads what.

    Raises:
        PointUnavailable: says why.
    """
    for template, why in _OTHER_STREAMS.items():
        if any(has_point(catalog, template, layer) for layer in range(catalog.n_layers)):
            raise PointUnavailable(
                f"Connections of this model are not products of its weights: {why}.",
                f"rmodel.probe_points[{template.replace('{i}', '*')!r}] shows it on a text.",
            )


def weight(weights: Weights, name: str) -> Tensor | None:
    """A parameter in float32, [out, in]; None where the model has none of this name. It is read, never changed in place."""
    if name not in weights.catalog.parameters:
        return None
    return weights.get_parameter(name).float()


def takes_the_mean(catalog: Catalog, norm: str) -> bool:
    """Whether a norm takes the mean away, as LayerNorm does.

    Args:
        norm: what the names of its points begin with, such as ``layers.3.attn.norm``.
    """
    address = parse_point(f"{norm}.scale")
    return address is not None and address.template.removesuffix(".scale") in catalog.centred


def reading(weights: Weights, matrix: Tensor, norm: str) -> Tensor:
    """A matrix [out, D] that reads the stream through a norm: ``W·diag(g)·C``."""
    if (gain := weight(weights, f"{norm}.weight")) is not None:
        matrix = matrix * gain
    if takes_the_mean(weights.catalog, norm):
        matrix = matrix - matrix.mean(-1, keepdim=True)
    return matrix


def writing(weights: Weights, matrix: Tensor, norm: str) -> Tensor:
    """A matrix [D, in] that writes into the stream, through a norm of its own where it has one: ``diag(g)·W``.

    Where all that reads the stream takes the mean away, so is it taken away here: no reader sees it, and it would count in the
    matrix's norm.
    """
    if (gain := weight(weights, f"{norm}.weight")) is not None:
        matrix = matrix * gain[:, None]
    if takes_the_mean(weights.catalog, "final_norm"):
        matrix = matrix - matrix.mean(0, keepdim=True)
    return matrix


def width_read(weights: Weights) -> int:
    """Dimensions of the stream in which directions differ for who reads it: D, or D − 1 where the mean is taken away."""
    width = weights.catalog.sizes["D"]
    return width - 1 if takes_the_mean(weights.catalog, "final_norm") else width
