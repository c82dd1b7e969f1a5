"""What holds between the points of a dictionary, its weights as its files have them, and the points that it reads and writes.

The table beside that of the model's own points (:mod:`garcon_jupyter.certificate.identities`): a row for each part of
:data:`garcon_jupyter.points.dictionary_points.PARTS`. Everything is computed in float64 of the form's own formula
(:mod:`garcon_jupyter.dictionaries.form`), by other means than the server's: so a row of the decoder in another's place, a bias that
is left out, or latents that ranks put together wrongly, show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.certificate.values import Missing
from garcon_jupyter.dictionaries import InputNorm
from garcon_jupyter.dictionaries.form import STANDARD_EPS

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.certificate.dictionary_values import DictionaryValues


@dataclass(frozen=True)
class DictionaryIdentity:
    """What one of a dictionary's points is made of.

    Attributes:
        says: what holds, in words.
        formula: (the value, what it should be), both float64.
        rounding: as of :class:`~garcon_jupyter.certificate.identity.Identity`.
    """

    says: str
    formula: Callable[[DictionaryValues], tuple[Tensor, Tensor]]
    rounding: str = "product"


def _normed(x: Tensor, norm: InputNorm) -> Any:
    """What a dictionary reads of `x`, [b, p, D]."""
    if norm.kind == "scale":
        return x * norm.scale[0]
    if norm.kind == "length":
        return x * (x.shape[-1] ** 0.5 / x.norm(dim=-1, keepdim=True))
    if norm.kind == "standard":
        centred = x - x.mean(-1, keepdim=True)
        return centred / (x.std(-1, keepdim=True) + STANDARD_EPS)
    return x


def _scaled_back(y: Tensor, x: Tensor, norm: InputNorm) -> Any:
    """What a dictionary that read `x` writes, [b, p, O]."""
    if norm.kind == "scale":
        return y / norm.scale[0]
    if norm.kind == "length":
        return y * (x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5)
    if norm.kind == "standard":
        return y * x.std(-1, keepdim=True) + x.mean(-1, keepdim=True)
    return y


def scaled_change(change: Tensor, x: Tensor, norm: InputNorm) -> Any:
    """As :func:`_scaled_back`, of a change of what it writes: a mean that is added back stays."""
    if norm.kind == "standard":
        return change * x.std(-1, keepdim=True)
    return _scaled_back(change, x, norm)


def _pre_activation(n: DictionaryValues) -> tuple[Tensor, Tensor]:
    """Of the latents whose encoder rows are read."""
    form = n.form
    if form.kind != "token":
        raise Missing("its pre-activations are no function of the token alone")
    z = _normed(n.x, form.norm_in)
    if form.subtracts_bias:
        z = z - n.weight("output_bias")
    rows = n.sampled
    made = z @ n.rows("decoder" if form.tied else "encoder", rows).T
    if form.gated:
        scale = n.weight("gate_scale").exp()
        made = made * scale[rows.start : rows.stop]
    if (bias := n.optional("encoder_bias")) is not None:
        made = made + bias[rows.start : rows.stop]
    if form.glu:
        gate = z @ n.rows("glu", rows).T + n.weight("glu_bias")[rows.start : rows.stop]
        made = made * gate.sigmoid()
    return n["pre_activation"][..., rows.start : rows.stop], made


def _latents(n: DictionaryValues) -> tuple[Tensor, Tensor]:
    """What passes of the pre-activations that the model has. On an edge, where rounding decides, either will do."""
    import torch

    form, activation = n.form, n.form.activation
    if form.kind == "pursuit":
        raise Missing("its latents are chosen one after the other")
    given, pre = n["latents"], n["pre_activation"]
    r = n.decoder_norms if form.decoder_norms else torch.ones((), dtype=torch.float64)
    scaled = pre * r
    if activation.kind == "relu":
        passing = scaled > 0
    elif activation.kind == "jumprelu":
        passing = scaled > n.threshold
    elif activation.kind == "groupmax":
        groups = scaled.relu().unflatten(-1, (activation.k, -1))
        passing = (groups == groups.amax(-1, keepdim=True)).flatten(-2)
    else:
        size = scaled.abs() if activation.kind == "abstopk" else scaled
        passing = size >= size.topk(min(activation.k, size.shape[-1])).values[..., -1:]
    value = scaled
    if activation.rectified and activation.kind != "abstopk":
        value = scaled.relu()
    made = torch.where(passing, value, 0.0)
    made = made / r if form.decoder_norms == "gate" else made
    edge = (passing != (given != 0)) & n.near_an_edge(scaled, passing)
    return given, torch.where(edge, given, made)


def _reconstruction(n: DictionaryValues) -> tuple[Tensor, Tensor]:
    form = n.form
    if form.kind == "context":
        raise Missing("what earlier tokens predict is written as well")
    latents = n["latents"]
    if form.decoder_norms == "latents":
        latents = latents / n.decoder_norms
    y = n.written(latents)
    if form.output_bias:
        y = y + n.weight("output_bias")
    y = _scaled_back(y, n.x, form.norm_out)
    if form.skip:
        y = y + n.x @ n.weight("skip").T
    return n["reconstruction"], y


def _error(n: DictionaryValues) -> tuple[Tensor, Tensor]:
    """The sum of both is compared, whose size is the value's: the error alone may be small beside what it is a difference of."""
    return n["error"] + n["reconstruction"], n.y


DICTIONARY_IDENTITIES: Mapping[str, DictionaryIdentity] = {
    "pre_activation": DictionaryIdentity(
        "what is read × encoder + bias, by the form", _pre_activation
    ),
    "latents": DictionaryIdentity("activation of pre_activation", _latents),
    "reconstruction": DictionaryIdentity("latents × decoder + bias, by the form", _reconstruction),
    "error": DictionaryIdentity("reconstruction + error == the value that is written", _error),
}
"""By the last word of a point's name."""
