"""How the residual stream begins, and goes from layer to layer."""

from __future__ import annotations

from garcon_jupyter.certificate.closeness import norms
from garcon_jupyter.certificate.formulas import Compared, centred, epsilon, factor
from garcon_jupyter.certificate.values import Missing, PointValues


def goes_on(n: PointValues) -> Compared:
    """What enters a layer left the one before it."""
    if not n.layer:
        raise Missing("there is no layer before the first")
    return n["resid_pre"], n.at(n.layer - 1)["resid_post"]


def begins(n: PointValues) -> Compared:
    """What enters the first layer is the embedding, times one number, with learned positions added."""
    if n.layer or "embed.norm.weight" in n.parameters:
        raise Missing("only the first layer reads the embedding, which no norm has changed")
    stream, whole = n["resid_pre"], n.at(None)
    embedding = whole["embed.out"]
    if "pos_embed.out" in whole:
        positions = whole["pos_embed.out"].expand_as(stream)
        return stream, embedding + positions, norms(stream, embedding, positions)
    return stream, embedding * factor(stream, embedding)


def begins_with_a_norm(n: PointValues) -> Compared:
    """What enters the first layer is a LayerNorm of the embedding, as BLOOM has it."""
    if n.layer:
        raise Missing("only the first layer reads the embedding")
    whole = n.at(None)
    stream, middle = n["resid_pre"], centred(whole["embed.out"], True)
    direction = middle * whole.weight("embed.norm.weight")
    bias = whole.optional("embed.norm.bias")
    inverse = ((stream - bias) * direction).sum(-1, keepdim=True) / (direction**2).sum(
        -1, keepdim=True
    )
    square = middle.pow(2).mean(-1, keepdim=True)
    return stream, direction / (square + epsilon(inverse.pow(-2), square)).sqrt() + bias
