"""What the identities of a dictionary read: its points, the points that it reads and writes, and its weights, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from garcon_jupyter.certificate.values import MOST_NUMBERS, Missing

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.dictionaries import Description, Form

_ROWS = 1024
"""Rows of a weight that are read at a time, where all are needed but once."""

_EDGE = 1e-4
"""How near a threshold a pre-activation must be for rounding to decide whether it passes, relative to the largest."""


@dataclass
class DictionaryValues:
    """One dictionary on a text.

    Attributes:
        description: of it.
        parts: values of its points by their last word, float64 [b, p, …].
        x: what it reads, units side by side, float64 [b, p, D].
        y: what is at the point that it writes, float64 [b, p, O].
        read: a weight by name, first latent, and last but one.
    """

    description: Description
    parts: Mapping[str, Tensor]
    x: Tensor
    y: Tensor
    read: Callable[[str, int, int | None], Tensor]
    _kept: dict[str, Tensor] = field(default_factory=dict)

    @property
    def form(self) -> Form:
        """What it computes."""
        return self.description.form

    def __getitem__(self, word: str) -> Tensor:
        if word not in self.parts:
            raise Missing(word)
        return self.parts[word].flatten(2)

    @property
    def sampled(self) -> range:
        """Latents whose encoder rows are read: of a large dictionary as many of the last as there may be numbers."""
        latents = self.description.latents
        return range(latents - min(latents, max(1, MOST_NUMBERS // self.description.d_in)), latents)

    def rows(self, name: str, latents: range) -> Tensor:
        """Rows of a weight."""
        return self.read(name, latents.start, latents.stop).double()

    def weight(self, name: str) -> Tensor:
        """A weight that is small, whole."""
        if name not in self._kept:
            self._kept[name] = self.read(name, 0, None).double()
        return self._kept[name]

    def optional(self, name: str) -> Tensor | None:
        """A weight that some forms lack."""
        from garcon_jupyter.errors import UnknownName

        try:
            return self.weight(name)
        except UnknownName:
            return None

    @cached_property
    def decoder_norms(self) -> Tensor:
        """The norm of each row of the decoder, [F]."""
        import torch

        return torch.cat([rows.norm(dim=-1) for _, rows in self._decoder()])

    @cached_property
    def threshold(self) -> Tensor:
        """Above which latents pass, [F], of what the form calls pre."""
        if not self.form.gated:
            found = self.weight("threshold")
            return found
        # relu(e^r·(zW) + b_mag) where zW + b_gate > 0.
        scale = self.weight("gate_scale").exp()
        return self.weight("encoder_bias") - scale * self.weight("gate_bias")

    def written(self, latents: Tensor) -> Tensor:
        """What latents [b, p, F] write: each times its row of the decoder."""
        total = None
        for part, rows in self._decoder((latents != 0).flatten(0, -2).any(0)):
            made = latents[..., part.start : part.stop] @ rows
            total = made if total is None else total + made
        return self.y.new_zeros(self.y.shape) if total is None else total

    def _decoder(self, on: Tensor | None = None) -> Iterator[tuple[range, Tensor]]:
        """(latents, their rows), without stretches of which none is on."""
        latents = self.description.latents
        for first in range(0, latents, _ROWS):
            part = range(first, min(first + _ROWS, latents))
            if on is None or bool(on[part.start : part.stop].any()):
                yield part, self.rows("decoder", part)

    def near_an_edge(self, scaled: Tensor, passing: Tensor) -> Tensor:
        """Pre-activations [b, p, F] for which rounding decides whether they pass."""
        import torch

        size = scaled.abs().amax(-1, keepdim=True)
        if self.form.activation.kind in ("relu", "jumprelu"):
            edge = self.threshold if self.form.activation.kind == "jumprelu" else 0.0
            near: Tensor = (scaled - edge).abs() <= _EDGE * size
            return near
        value = scaled.abs() if self.form.activation.kind == "abstopk" else scaled
        if self.form.activation.kind == "groupmax":
            groups = value.unflatten(-1, (self.form.activation.k, -1))
            close: Tensor = groups.amax(-1, keepdim=True) - groups <= _EDGE * size[..., None]
            return close.flatten(-2)
        least = torch.where(passing, value, torch.inf).amin(-1, keepdim=True)
        near = (value - least).abs() <= _EDGE * size
        return near
