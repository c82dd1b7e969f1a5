"""What writes to the residual stream and what reads it, and how each is seen from the stream: through the norms between.

Of a norm n = x / scale, with a gain w, the Jacobian at a run takes d to w ⊙ (d − n · mean(n ⊙ d)) / scale; a LayerNorm first takes the mean
of d away. A reader's gradient comes to the stream by the transpose of its pre-norm's Jacobian. What a head writes comes to it by the
Jacobian of its post-norm, where there is one (Gemma 2 and 3, OLMo 2), or times what the model multiplies it with (Granite).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from garcon_jupyter.points import fill

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

ENTERS = "layers.0.resid_pre"
LAST_NORM = "final_norm"

Seen = Mapping[tuple[str, str], "Tensor"]
"""(point, "difference" | "score" | "gradient" | "value") → what was kept there; gradients and values of each row of a path, [row, …]."""


@dataclass(frozen=True)
class StreamEnds:
    """Writers and readers of a model's residual stream.

    Attributes:
        writers: their names, in order: the embedding, and of each layer its heads and its MLP.
        written: where in the order of the pass each writes: twice the layer, and one more for an MLP; -1 for the embedding.
        readers: their names: of each layer queries, keys, values and the MLP; the logits.
        read: as `written`; a reader reads all that was written at earlier places.
    """

    rmodel: Client
    writers: tuple[str, ...]
    written: tuple[int, ...]
    readers: tuple[str, ...]
    read: tuple[int, ...]
    _gains: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, rmodel: Client) -> StreamEnds:
        """Those of a model."""
        catalog, layers = rmodel.catalog, rmodel.catalog.n_layers
        writers, written = ["embedding"], [-1]
        readers: list[str] = []
        read: list[int] = []
        parallel = "layers.{i}.resid_mid" in catalog.refused
        for layer in range(layers):
            sizes = {
                x: int(catalog.shape(catalog.point(f"layers.{layer}.attn.{x}"))[2]) for x in "qkv"
            }
            heads = sizes["q"]
            writers += [*(f"head {layer}.{head}" for head in range(heads)), f"mlp {layer}"]
            written += [*[2 * layer] * heads, 2 * layer + 1]
            own = [f"{x} {layer}.{head}" for x, size in sizes.items() for head in range(size)]
            readers += [*own, f"mlp {layer}"]
            read += [*[2 * layer] * len(own), 2 * layer + (not parallel)]
        return cls(
            rmodel,
            tuple(writers),
            tuple(written),
            (*readers, "logits"),
            (*read, 2 * layers),
        )

    # -- what must be seen -------------------------------------------------------------------

    def points_written(self) -> list[str]:
        """The points of writers, in order."""
        halves = ("layers.{i}.attn.head_out", "layers.{i}.mlp.contribution")
        layers = range(self.rmodel.catalog.n_layers)
        return [ENTERS, *(fill(half, layer) for layer in layers for half in halves)]

    def norms(self) -> list[str]:
        """The norms through which the stream is read, of those that the model has."""
        catalog = self.rmodel.catalog
        named = [
            fill(f"layers.{{i}}.{half}.norm", layer)
            for layer in range(catalog.n_layers)
            for half in ("attn", "mlp")
            if layer in catalog.layers.get(f"layers.{{i}}.{half}.norm.scale", ())
        ]
        return [*named, LAST_NORM]

    def between(self) -> list[int]:
        """The layers of which it must be seen what comes between heads and stream: all that have a post-norm; else the first, for
        what all multiply with."""
        layers = range(self.rmodel.catalog.n_layers)
        normed = [layer for layer in layers if self._post_norm(layer) is not None]
        return normed or [0]

    def _post_norm(self, layer: int) -> str | None:
        name = f"layers.{layer}.attn.post_norm"
        try:
            self.rmodel.catalog.parameter(f"{name}.weight")
        except LookupError:
            return None
        return name

    # -- as it is in the stream --------------------------------------------------------------

    def differences(self, seen: Seen, rows: int) -> Tensor:
        """What each writer adds to the stream in the clean run and not in the corrupted one, [row or 1, writer, p, D]."""
        import torch

        found: list[Tensor] = []
        scaled = self._multiplier(seen)
        for point in self.points_written():
            change = seen[point, "difference"]
            if change.dim() == 2:
                found.append(change[None, None])
                continue
            change = change.transpose(0, 1)[None]  # [1, head, p, D]
            layer = int(point.split(".")[1])
            norm = self._post_norm(layer)
            found.append(
                change * scaled if norm is None else self._after(norm, layer, change, seen)
            )
        deep = rows if any(len(each) > 1 for each in found) else 1
        return torch.cat([each.expand(deep, -1, -1, -1) for each in found], 1)

    def gradients(self, seen: Seen) -> Tensor:
        """The gradient at what each reader sees of the stream, [row, reader, p, D]."""
        import torch

        found: list[Tensor] = []
        parallel = "layers.{i}.resid_mid" in self.rmodel.catalog.refused
        for layer in range(self.rmodel.catalog.n_layers):
            heads = [seen[f"layers.{layer}.attn.{x}", "gradient"] for x in "qkv"]
            norm = f"layers.{layer}.attn.norm"
            found.append(self._before(norm, torch.cat(heads, 1), seen))
            own = f"layers.{layer}.mlp.norm"
            if parallel and (f"{own}.scale", "value") not in seen:  # one norm for both halves
                own = norm
            mlp = seen[f"layers.{layer}.mlp.in", "gradient"]
            found.append(self._before(own, mlp[:, None], seen))
        found.append(self._before(LAST_NORM, seen[f"{LAST_NORM}.out", "gradient"][:, None], seen))
        return torch.cat(found, 1)

    def _before(self, norm: str, gradient: Tensor, seen: Seen) -> Tensor:
        """Gradients [row, reader, p, D] at what a norm puts out, as they are at what it reads."""
        if (f"{norm}.scale", "value") not in seen:
            return gradient
        scale, normalized = (
            seen[f"{norm}.{part}", "value"][:, None] for part in ("scale", "normalized")
        )
        if f"{norm}.weight" in self.rmodel.catalog.parameters:
            gradient = gradient * self._gain(norm)
        return _less(gradient, normalized) / scale

    def _after(self, norm: str, layer: int, change: Tensor, seen: Seen) -> Tensor:
        """Changes [1, head, p, D] of what heads write, as they come out of the norm after attention, [row, head, p, D]."""
        out, added = self._out_and_added(layer, seen)
        gain = self._gain(norm)
        # What the norm divides by is no point; it is told by what enters and what comes out.
        scale = (gain * out * added).sum(-1, keepdim=True) / added.pow(2).sum(-1, keepdim=True)
        return gain * _less(change, out / scale) / scale

    def _multiplier(self, seen: Seen) -> float:
        """What the model multiplies with what attention puts out, where no norm comes after it."""
        if self._post_norm(layer := self.between()[0]) is not None:
            return 1.0
        out, added = self._out_and_added(layer, seen)
        times = float((out * added).sum() / out.pow(2).sum())
        return 1.0 if abs(times - 1) < 1e-3 else times

    def _out_and_added(self, layer: int, seen: Seen) -> Sequence[Tensor]:
        return [seen[f"layers.{layer}.attn.{x}", "value"][:, None] for x in ("out", "contribution")]

    def _gain(self, norm: str) -> Tensor:
        if norm not in self._gains:
            self._gains[norm] = self.rmodel.get_parameter(f"{norm}.weight").float()
        return self._gains[norm]


def _less(change: Tensor, normalized: Tensor) -> Tensor:
    """A change less what a norm takes away of it: its part along n, and its mean where n has none."""
    along = (normalized * change).mean(-1, keepdim=True)
    if float(normalized.mean(-1).abs().max()) < 1e-4:  # a LayerNorm
        change = change - change.mean(-1, keepdim=True)
    return change - normalized * along
