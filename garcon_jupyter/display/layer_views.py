"""Maps of tokens or units as pictures: each dot with the text behind it."""

from __future__ import annotations

from garcon_jupyter.experiments.result import ExperimentResult
from garcon_jupyter.widgets import DotsWidget


def layout(found: ExperimentResult) -> DotsWidget:
    """A map; tokens are shaded by their norm."""
    facts = found.facts
    kind = facts["of"].removesuffix("s")
    names = [f"{kind} {label}" for label in found.axes["dot"]]
    if "place" in found.more:
        names = [f"text {text}, position {at}" for text, at in found.more["place"].tolist()]
    count = facts["massive tokens"]
    massive = f"{count} massive token{'s' if count != 1 else ''} {facts['massive tokens are']}"
    said = (
        f"{len(names):,} {facts['of']} by {facts['method']}, seed {facts['seed']} · "
        f"trustworthiness {facts['trustworthiness']:.3f} ({facts['neighbours']} neighbours) · {massive}"
    )
    shades = found.more.get("norm")
    return DotsWidget(found.values, facts["texts"], names, facts["point"], said, shades)
