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
from garcon_backend.hook_sites.other_sites import ByKind
from garcon_backend.hook_sites.sites import HookSite, InAttention
from garcon_backend.libraries.transformers_internals import hands_attention_over
from garcon_backend.models.family import Family
from garcon_jupyter.model_files.multimodal import wrapper_of

_IN_TEXT = {"text_config": HOUSE}
"""The text part of a multimodal model attends by the house's function, its other parts by what transformers takes."""

_PADDING = "its fast one reads what is beside padding otherwise than the eager one"

EAGER_ALONE = {"blt": _PADDING}
"""Architectures whose eager implementation alone is the reference, though they take others."""


@dataclass(frozen=True)
class Attending:
    """How the attention of one model is computed.

    Attributes:
        implementation: the name by which transformers is asked for it, or names by part of a multimodal model; None
            for what it takes by itself.
        reason: why it is this one, for a person.
    """

    implementation: str | dict[str, str] | None
    reason: str

    @property
    def by_house(self) -> bool:
        """Whether it is the function that probes can look into."""
        return self.implementation in (HOUSE, _IN_TEXT)


def attending(model_class: Any, config: Any, family: Family | None) -> Attending:
    """How a model of this class, whose points `family` says, is to be loaded.

    Its own implementation is what transformers takes by itself, torch's kernel mostly, where the class hands its
    attention over to a function by name. Where it has code for each name instead, the eager one is the reference, but
    for Falcon's ALiBi.
    """
    kind = getattr(config, "model_type", "")
    if kind in EAGER_ALONE:
        return Attending("eager", f"its own: {EAGER_ALONE[kind]}")
    if not hands_attention_over(model_class):
        return Attending(own_code(config), "its own: its class takes no other")
    if family is None:
        return Attending(None, "its own: no family file maps this architecture")
    if not any(map(_is_inside, family.points.values())):
        return Attending(own_code(config), f"its own: {family.name} has no points inside it")
    name = HOUSE if wrapper_of(config) is None else _IN_TEXT
    return Attending(name, f"the house's: points of {family.name} are inside it")


def _is_inside(site: HookSite) -> bool:
    """Whether a site, in layers of some kind at least, is inside the attention function."""
    if isinstance(site, ByKind):
        return any(_is_inside(here) for _, here in site.sites)
    return isinstance(site, InAttention)


def own_code(config: Any) -> str:
    """The implementation of a class that has code for each.

    Falcon's eager code adds ALiBi to scores whose mask has it already, so twice; its code for torch's kernel adds it
    once, as the models that have it were trained (Penedo et al. 2023).
    """
    twice = getattr(config, "model_type", "") == "falcon" and getattr(config, "alibi", False)
    return "sdpa" if twice else "eager"
