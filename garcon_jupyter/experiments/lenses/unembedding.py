"""The final norm and the unembedding as a function of streams, for probes on the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from garcon_jupyter.experiments.clean_passes import contexts, keep

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client


@dataclass(frozen=True)
class Norm:
    """The final norm, as what it does to two vectors tells it: LayerNorm or RMSNorm, and its epsilon."""

    centred: bool
    epsilon: float


_NORMS: WeakKeyDictionary[Client, Norm] = WeakKeyDictionary()


def final_norm(rmodel: Client) -> Norm:
    """What the final norm is, found out by a forward of one token.

    The last residual stream is replaced by zeros in one row and by ones in another. What the norm divides
    zeros by is the root of its epsilon; of ones a LayerNorm divides by the same, an RMSNorm by about 1.
    """
    if rmodel not in _NORMS:

        def replace(save_ctx: Any, tensor: Any) -> None:
            tensor[0], tensor[1] = 0.0, 1.0

        last = rmodel.probe_points[f"layers.{rmodel.catalog.n_layers - 1}.resid_post"]
        scale = rmodel.probe_points["final_norm.scale"]
        with contexts(rmodel, "norm") as name:
            probes = [last.probe(replace, name=name), scale.probe(keep, name=name, read_only=True)]
            rmodel.forward([[0], [0]], probes=probes, logits="none")
            zeros, ones = rmodel.recordings()[scale.name, name].tensor.double().flatten().tolist()
        _NORMS[rmodel] = Norm(centred=ones < 0.5, epsilon=zeros**2)
    return _NORMS[rmodel]


def parameters(rmodel: Client) -> list[str]:
    """Names of the parameters that :func:`unembedded` needs, those that the model has."""
    names = ("final_norm.weight", "final_norm.bias", "unembed.weight", "unembed.bias")
    return [name for name in names if name in rmodel.catalog.parameters]


def unembedded(x: Tensor, norm: Norm, params: Mapping[str, Tensor]) -> Tensor:
    """Logits of streams, as of the last one: float32 [p, D] to float32 [p, V]."""
    import torch

    if norm.centred:
        x = x - x.mean(-1, keepdim=True)
    x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.epsilon)
    x = x * params["final_norm.weight"].float()
    if "final_norm.bias" in params:
        x = x + params["final_norm.bias"].float()
    unembed = params["unembed.weight"]
    # The large matrix first: on a CPU that is twice as fast for few positions.
    logits = (unembed @ x.to(unembed.dtype).T).T.float().contiguous()
    if "unembed.bias" in params:
        logits = logits + params["unembed.bias"].float()
    return logits
