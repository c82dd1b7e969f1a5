"""What a lens is: for each layer a map from its residual stream to what the last one will be.

Layers are counted by the stream that leaves them: layer l is ``layers.{l}.resid_post``, and −1 is the stream before the first layer,
``layers.0.resid_pre``. The last layer needs no map, and has none in any lens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

BEFORE = -1
"""The stream before the first layer."""


@dataclass(frozen=True, eq=False)
class LayerMap:
    """The map of one layer: of a stream x it makes weight · x + bias, and x beside it where it is residual.

    Attributes:
        weight: float32 [D, D], of what goes out by what comes in.
        bias: float32 [D]; None for none.
        residual: whether the stream itself is added.
    """

    weight: Tensor
    bias: Tensor | None = None
    residual: bool = False

    def __call__(self, stream: Tensor) -> Tensor:
        """Of streams [..., D] what the last ones will be."""
        made = stream @ self.weight.to(stream).T
        if self.bias is not None:
            made = made + self.bias.to(stream)
        return made + stream if self.residual else made


@dataclass(frozen=True, eq=False, repr=False)
class Lens:
    """A map for each layer that has one; any other reads its stream as it is, or is not read.

    Attributes:
        kind: "logit lens", "tuned lens" or "Jacobian lens".
        maps: by layer.
        facts: what it is of, as plain data.
    """

    kind: str
    maps: Mapping[int, LayerMap]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def reads(self, layer: int, last: int) -> bool:
        """Whether a layer can be read; the last one always can."""
        return self.kind == LOGIT.kind or layer == last or layer in self.maps

    def at(self, layer: int) -> LayerMap | None:
        """The map of a layer; None where the stream is read as it is."""
        return self.maps.get(layer)

    def check(self, rmodel: Client) -> None:
        """Refuse a model that it cannot be of.

        Raises:
            BadRequest: the width of its stream is another, or the model has no such layer.
        """
        width, layers = rmodel.catalog.sizes.get("D"), rmodel.catalog.n_layers
        for layer, one in self.maps.items():
            if one.weight.shape[0] != width:
                raise BadRequest(
                    f"This {self.kind} maps streams of {one.weight.shape[0]} numbers, and those of the model have {width}.",
                    "Give a lens of this model.",
                )
            if not BEFORE <= layer < layers - 1:
                raise BadRequest(
                    f"This {self.kind} has a map of layer {layer}, and the model's layers with one are 0 to {layers - 2}.",
                    "Give a lens of this model.",
                )

    def __repr__(self) -> str:
        layers = sorted(self.maps)
        told = f"{len(layers)} layers, {layers[0]} to {layers[-1]}" if layers else "no maps"
        width = f" of [{len(self.maps[layers[0]].weight)}]" if layers else ""
        return f"<{self.kind}: {told}{width}>"


LOGIT = Lens("logit lens", {})
"""The logit lens: every stream is read as if it were the last (nostalgebraist 2020)."""


def known_map(weight: Any, width: int, key: str, path: Any) -> Tensor:
    """A map as a file has it, in float32.

    Raises:
        BadRequest: it is no square matrix of this width, or holds what is no number.
    """
    import torch

    if not isinstance(weight, torch.Tensor) or tuple(weight.shape) != (width, width):
        shape = list(weight.shape) if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise BadRequest(
            f"{path}: {key} is {shape}, not [{width}, {width}].",
            "Give a file whose keys agree.",
        )
    if not bool(weight.isfinite().all()):
        raise BadRequest(f"{path}: {key} holds infinities or NaN.", "Fit or train it anew.")
    return weight.detach().float().contiguous()
