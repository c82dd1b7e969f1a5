"""By whose function a model attends: the house's, or its own. This is the one place that decides.

The house's function (:mod:`garcon_backend.hook_sites.attention`) is where scores, patterns and rotated queries
and keys can be seen and edited. It computes what the mapped families compute, and each of them is held against
plain transformers. Other architectures have more in their attention than a function of this signature is told:
sinks beside the keys, indices of the few keys that a query reads, biases by position. Some mask by themselves what
is not allowed to be missing, some choose a class by the name of the implementation. Nothing of an architecture that
no family file maps can be probed inside its attention, so nothing is gained by standing there: it runs as
transformers runs it.

What a mapped family hands over beyond what the house's function knows is a matter of that function, which never
drops it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from garcon_backend.hook_sites.attention import NAME as HOUSE
from garcon_backend.hook_sites.sites import InAttention
from garcon_backend.libraries.transformers_internals import hands_attention_over
from garcon_backend.models.families import FAMILIES


@dataclass(frozen=True)
class Attending:
    """How the attention of one model is computed.

    Attributes:
        implementation: the name by which transformers is asked for it; None for what it takes by itself.
        reason: why it is this one, for a person.
    """

    implementation: str | None
    reason: str

    @property
    def by_house(self) -> bool:
        """Whether it is the function that probes can look into."""
        return self.implementation == HOUSE


def attending(model_class: Any, config: Any) -> Attending:
    """How a model of this class is to be loaded.

    Its own implementation is what transformers takes by itself, torch's kernel mostly, where the class hands its
    attention over to a function by name. Where it has code for each name instead, only the eager one is the
    reference: Falcon's for torch's kernel adds ALiBi without the scale that the other gives it.
    """
    family = FAMILIES.get(getattr(config, "model_type", ""))
    if not hands_attention_over(model_class):
        return Attending("eager", "its own: its class takes no other")
    if family is None:
        return Attending(None, "its own: no family file maps this architecture")
    if not any(isinstance(site, InAttention) for site in family.points.values()):
        return Attending(None, f"its own: {family.name} has no points inside it")
    return Attending(HOUSE, f"the house's: points of {family.name} are inside it")
