"""From what a module read, and the gradient of what it wrote, to the gradients of its parameters, datum by datum.

Matrix products, tables and the norms of torch have rules of their own here. Every other module that holds parameters, such as a norm of
another class, a router or fused experts, is run again (:mod:`garcon_jupyter.training.gradients.replay`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.gradients.sites import DenseSite, LookupSite, OuterSite, Site

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from garcon_jupyter.training.gradients.capture import Passage
    from garcon_jupyter.training.gradients.layouts import DataLayout


def kind_of(module: Module) -> str:
    """Which rule a module follows: "linear", "conv1d", "embedding", "layer norm", "rms norm", or "again"."""
    from torch import nn

    forward = type(module).forward
    if isinstance(module, nn.Linear) and forward is nn.Linear.forward:
        return "linear"
    if isinstance(module, nn.Embedding) and forward is nn.Embedding.forward:
        return "embedding"
    if isinstance(module, nn.LayerNorm) and forward is nn.LayerNorm.forward:
        return "layer norm"
    if isinstance(module, nn.RMSNorm) and forward is nn.RMSNorm.forward:
        return "rms norm"
    kind = type(module)
    if kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils":
        return "conv1d"
    return "again"


def refuse(module: Module, name: str) -> None:
    """Raise for options of a table under which a gradient is not a sum of its places.

    Raises:
        BadRequest: with what to leave out.
    """
    for option in ("sparse", "scale_grad_by_freq", "max_norm"):
        if kind_of(module) == "embedding" and getattr(module, option):
            raise BadRequest(
                f"The table {name} has {option}={getattr(module, option)}.",
                f"Record it without {option}.",
            )


def sites_of(seen: Passage, layout: DataLayout) -> dict[str, Site]:
    """The sites of a module that has a rule, by the names of its parameters in it."""
    rule = kind_of(seen.module)
    if rule in ("linear", "conv1d"):
        found = _product(seen, layout, rule == "conv1d")
    elif rule == "embedding":
        found = _table(seen, layout)
    else:
        found = _norm(seen, layout, rule)
    trained = {name for name, each in seen.module.named_parameters() if each.requires_grad}
    return {name: site for name, site in found.items() if name in trained}


def _gradient(seen: Passage) -> Tensor:
    (gradient,) = seen.gradients
    assert gradient is not None
    weight = seen.module.weight
    return gradient.to(weight.dtype)  # type: ignore[arg-type] # a parameter


def _product(seen: Passage, layout: DataLayout, transposed: bool) -> dict[str, Site]:
    gradient = _gradient(seen)
    read = seen.read if seen.autocast is None else seen.read.to(seen.autocast)
    inputs = layout.gather(read.to(gradient.dtype), seen.call, 1, f"{seen.name}.input")
    outputs = layout.gather(gradient, seen.call, 1, f"{seen.name}.output")
    found: dict[str, Site] = {"weight": OuterSite(inputs, outputs, transposed)}
    if seen.module.bias is not None:
        found["bias"] = DenseSite(outputs.sum(1))
    return found


def _table(seen: Passage, layout: DataLayout) -> dict[str, Site]:
    gradient, ids = _gradient(seen), seen.read
    if ids.shape != gradient.shape[:-1]:  # one row of positions for all rows
        ids = ids.expand(gradient.shape[:-1])
    padding: Any = seen.module.padding_idx
    if padding is not None:
        gradient = gradient * ids.ne(padding)[..., None]
    return {
        "weight": LookupSite(
            layout.gather(ids, seen.call, 0, f"{seen.name}.input"),
            layout.gather(gradient, seen.call, 1, f"{seen.name}.output"),
            seen.module.num_embeddings,  # type: ignore[arg-type] # an int
        )
    }


def _norm(seen: Passage, layout: DataLayout, rule: str) -> dict[str, Site]:
    from torch.nn import functional

    module, gradient = seen.module, _gradient(seen)
    shape = list(module.normalized_shape)  # type: ignore[arg-type] # a tuple of ints
    if rule == "layer norm":
        bare = functional.layer_norm(seen.read, shape, None, None, module.eps)  # type: ignore[arg-type]
    else:
        bare = functional.rms_norm(seen.read, shape, None, module.eps)  # type: ignore[arg-type]
    by_place = gradient * bare.to(gradient.dtype)
    name = f"{seen.name}.output"
    found: dict[str, Site] = {
        "weight": DenseSite(layout.gather(by_place, seen.call, len(shape), name).sum(1))
    }
    if getattr(module, "bias", None) is not None:
        found["bias"] = DenseSite(layout.gather(gradient, seen.call, len(shape), name).sum(1))
    return found
