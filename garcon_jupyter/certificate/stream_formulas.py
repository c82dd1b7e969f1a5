"""How the residual stream begins, and goes from layer to layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from garcon_jupyter.certificate.closeness import norms
from garcon_jupyter.certificate.formulas import (
    Compared,
    Formula,
    centred,
    epsilon,
    factor,
    scaled_by_token,
)
from garcon_jupyter.certificate.values import Missing, PointValues

if TYPE_CHECKING:
    from torch import Tensor


def goes_on(n: PointValues) -> Compared:
    """What enters a layer left the one before it."""
    if not n.layer:
        raise Missing("there is no layer before the first")
    return n["resid_pre"], n.at(n.layer - 1)["resid_post"]


def begins(n: PointValues) -> Compared:
    """What enters the first layer is the embedding, times one number, with learned positions added."""
    if n.layer or "embed.norm.weight" in n.parameters or "altup.streams_pre" in n:
        raise Missing("only the first layer reads the embedding, which no norm has changed")
    stream, whole = n["resid_pre"], n.at(None)
    embedding = whole["embed.out"]
    if "pos_embed.out" in whole:
        positions = whole["pos_embed.out"].expand_as(stream)
        return stream, embedding + positions, norms(stream, embedding, positions)
    return stream, embedding * factor(stream, embedding)


def begins_with_a_norm(centre: bool) -> Formula:
    """What enters the first layer is a norm of the embedding, as BLOOM has it, or one without gains."""

    def formula(n: PointValues) -> Compared:
        if n.layer or "altup.streams_pre" in n:
            raise Missing("only the first layer reads the embedding")
        whole = n.at(None)
        stream, middle = n["resid_pre"], centred(whole["embed.out"], centre)
        gain, bias = whole.optional("embed.norm.weight"), whole.optional("embed.norm.bias")
        given = stream - bias
        return given, scaled_by_token(given, middle, 1.0 if isinstance(gain, float) else gain, True)

    return formula


def added_up(of: str, start: str, *parts: str, divisor: float = 1.0) -> Formula:
    """What parts of a block add to the stream, of those that the layer has."""

    def formula(n: PointValues) -> Compared:
        values = [n[start], *(n[part] for part in parts if part in n)]
        if len(values) == 1:
            raise Missing("what is added")
        return n[of], sum(values[1:], values[0]) / divisor, norms(n[of], *values)

    return formula


def added_to_a_norm(of: str, norms_of: tuple[str, ...], *parts: str) -> Formula:
    """What is added not to the stream, but to the norm that was read, times one number (MiniMax 2025)."""

    def formula(n: PointValues) -> Compared:
        normed = n.first(*(f"{part}.norm.out" for part in norms_of))
        added = [n[part] for part in parts if part in n]
        if len(added) != 1:
            raise Missing("one thing that is added")
        kept = normed * factor(n[of] - added[0], normed)
        return n[of], kept + added[0], norms(n[of], kept, added[0])

    return formula


def joint_denominator(n: PointValues) -> Compared:
    """The denominator of a norm of the stream and the token's embedding side by side (Zyphra 2024)."""
    square, scale = _joint(n).pow(2).mean(-1, keepdim=True), n["attn.norm.scale"]
    return scale, (square + epsilon(scale.pow(2), square)).sqrt()


def joint(n: PointValues) -> Compared:
    """The stream and the token's embedding side by side, by that denominator, times a gain."""
    made = _joint(n) / n["attn.norm.scale"] * n.weight("attn.joint_norm.weight")
    return n["attn.joint"], made


def _joint(n: PointValues) -> Tensor:
    import torch

    if "attn.joint" not in n:
        raise Missing("attn.joint")
    return torch.cat([n["resid_pre"], n.at(None)["embed.out"]], -1)


def streams_go_on(n: PointValues) -> Compared:
    """The streams that the layer before left; the first of those that enter the first layer is the embedding."""
    given = n["altup.streams_pre"]
    if n.layer:
        return given, n.at(n.layer - 1)["altup.streams_post"]
    embedding = n.at(None)["embed.out"]
    return given[:, :, 0], embedding * factor(given[:, :, 0], embedding)


def gated_by_the_stream(n: PointValues) -> Compared:
    """What gates the embedding of a layer: the stream after the MLP, projected."""
    if "altup.streams_pre" in n:
        raise Missing("the corrected stream that it reads")
    made = n.projected("per_layer.gate_proj", n["resid_mid"] + n["mlp.contribution"])
    return made.of(n["per_layer.gate"]), made.out
