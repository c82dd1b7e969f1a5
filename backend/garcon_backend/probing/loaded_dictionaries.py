"""The dictionaries that a rank holds beside its part of the model."""

from __future__ import annotations

from dataclasses import dataclass, field

from garcon_backend.dictionaries import Dictionary
from garcon_backend.distributed.collectives import Layout
from garcon_jupyter.dictionaries import Description
from garcon_jupyter.points import DictionaryPoints

LATENT_DIM = 2
"""Which dimension of [b, p, F] the latents are."""


@dataclass(frozen=True)
class LoadedDictionary:
    """A dictionary on one rank.

    Attributes:
        points: what the model has by it.
        description: what its files say.
        here: the part that this rank holds; None where another stage has its points.
        parts: into how many its latents are cut over the tensor-parallel ranks; 1 where each holds all.
    """

    points: DictionaryPoints
    description: Description
    here: Dictionary | None
    parts: int = 1

    @property
    def layout(self) -> Layout:
        """How latents lie on the tensor-parallel ranks."""
        return Layout(LATENT_DIM, self.parts) if self.parts > 1 else Layout()

    @property
    def nbytes(self) -> int:
        """That it takes in this rank's memory."""
        return 0 if self.here is None else self.here.nbytes


@dataclass
class LoadedDictionaries:
    """All of them, by name."""

    by_name: dict[str, LoadedDictionary] = field(default_factory=dict)

    def __getitem__(self, name: str) -> LoadedDictionary:
        return self.by_name[name]

    def put(self, loaded: LoadedDictionary) -> None:
        """Hold one, by the name that its points have."""
        self.by_name[loaded.points.name] = loaded

    def let_go(self, name: str) -> None:
        """Hold it no more."""
        self.by_name.pop(name, None)
