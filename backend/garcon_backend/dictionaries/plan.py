"""Where each tensor of a dictionary's form is stored: all that has to be known before its weights are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from garcon_backend.dictionaries.files import AGAIN, StoredArray
from garcon_jupyter.dictionaries import Description
from garcon_jupyter.errors import NotADictionary


@dataclass(frozen=True)
class StoredWeight:
    """A tensor of the form, in the order of axes that the form has.

    Attributes:
        stored: in the files.
        axes: a letter for each axis as it is stored: F latents, D what is read, O what is written, i inputs, j outputs; lower-case
            letters of others.
        wanted: the same letters in the order that the form has.
        function: of the numbers, once they are read; of a threshold that is stored as its logarithm, ``torch.exp``.
    """

    stored: StoredArray
    axes: str
    wanted: str
    function: Callable[[Tensor], Tensor] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """In the order of the form."""
        return tuple(self.stored.shape[self.axes.index(letter)] for letter in self.wanted)

    def read(self, latents: slice, dtype: torch.dtype) -> Tensor:
        """Its numbers, of these latents.

        Raises:
            NotADictionary: some of them are no numbers.
        """
        axis = self.axes.find("F")
        value = self.stored.read(max(axis, 0), latents if axis >= 0 else slice(None)).to(dtype)
        if self.function is not None:
            value = self.function(value)
        if not bool(torch.isfinite(value).all()):
            count = int((~torch.isfinite(value)).sum())
            raise NotADictionary(
                f"{self.stored.key} in {self.stored.file} has {count} values that are not finite.",
                AGAIN,
            )
        return value.permute([self.axes.index(letter) for letter in self.wanted]).contiguous()


@dataclass(frozen=True)
class ReadingPlan:
    """What a file holds: a description, and where each tensor is.

    Attributes:
        description: all that is known without the weights.
        weights: by the names of the form: ``encoder`` [F, D], ``encoder_bias`` [F], ``decoder`` [F, O], ``output_bias`` [O],
            ``skip`` [O, D], ``threshold`` [F], ``gate_bias``, ``gate_scale`` [F], ``glu`` [F, D], ``glu_bias`` [F]. With several
            inputs or outputs these have an axis more, in front.
        lists: tensors that are several, one for each layer: of the same names, and the decoders of a cross-layer transcoder.
            ``decoder_to`` has [j + 1, F, O] for each layer that is written to; ``decoder_from`` [F, layers - i, O] for each that is
            read; ``decoder_all`` [F, layers, O], of which the first i are none of its.
        constants: numbers that all latents share.
    """

    description: Description
    weights: dict[str, StoredWeight] = field(default_factory=dict)
    lists: dict[str, tuple[StoredWeight, ...]] = field(default_factory=dict)
    constants: dict[str, float] = field(default_factory=dict)
