"""Maps of tokens or units as figures: each dot with the text behind it."""

from __future__ import annotations

from typing import Any

from garcon_jupyter.experiments.result import ExperimentResult


def layout(found: ExperimentResult) -> Any:
    """A map; tokens are shaded by their norm."""
    from garcon_jupyter.widgets.dots import dots

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
    return dots(found.values, facts["texts"], names, facts["point"], said, shades)
