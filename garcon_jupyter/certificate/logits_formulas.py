"""What logits are made of."""

from __future__ import annotations

from garcon_jupyter.certificate.attention_formulas import soft_capped
from garcon_jupyter.certificate.formulas import Compared, factor
from garcon_jupyter.certificate.values import Missing, PointValues


def unembedded(n: PointValues) -> Compared:
    """The final norm's output through the unembedding, times one number: [b, p, token that was kept]."""
    import torch

    given, which = n["logits"], n.columns
    if which is None:
        raise Missing("no token of the vocabulary was kept")
    rows = n.parameters.rows("unembed.weight", which=which).value
    made: torch.Tensor = n["final_norm.out"] @ rows.T
    if "unembed.bias" in n.parameters:
        made = made + n.parameters.rows("unembed.bias", which=which).value
    return given, made * factor(given, made)


def capped(n: PointValues) -> Compared:
    """The same, soft-capped (Gemma Team 2024)."""
    given, made = unembedded(n)[:2]
    return given, soft_capped(given, made)
