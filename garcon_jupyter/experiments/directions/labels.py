"""Texts with one of two labels, and how they are split into those that are fitted and those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from garcon_jupyter.errors import BadRequest

Mask = NDArray[np.bool_]

FEWEST = 2
"""Texts of each label: one to fit, one to hold out."""


@dataclass(frozen=True)
class Labelled:
    """Labels of texts, of two kinds.

    Attributes:
        kinds: the two labels; a direction leads from the first to the second.
        second: bool [text], which texts have the second.
    """

    kinds: tuple[Any, Any]
    second: Mask

    @property
    def larger_share(self) -> float:
        """Share of the label that most texts have: what an answer that knows nothing gets right."""
        share = float(self.second.mean())
        return max(share, 1 - share)

    def splits(self, count: int, held_out: float, seed: int) -> tuple[Mask, Mask, Mask]:
        """Stratified splits, drawn by a seed.

        Returns:
            Three of bool [split, text]: which texts are held out; the control's labels, those of the texts shuffled; and which
            texts are held out there.
        """
        held, shuffled, shuffled_held = [], [], []
        for split in range(count):
            draw = np.random.default_rng([seed, split])
            held.append(_stratified(self.second, held_out, draw))
            shuffled.append(draw.permutation(self.second))
            shuffled_held.append(_stratified(shuffled[-1], held_out, draw))
        return np.stack(held), np.stack(shuffled), np.stack(shuffled_held)


def labelled(labels: Sequence[Any], texts: int, towards: Any = None) -> Labelled:
    """Labels as a user gave them.

    Args:
        towards: the label that is the second; by default the larger one.

    Raises:
        BadRequest: another number than of texts; not two kinds; too few of one.
    """
    given = [_plain(label) for label in labels]
    if len(given) != texts:
        raise BadRequest(
            f"There are {len(given)} labels for {texts} texts.", "Give each text a label."
        )
    try:
        kinds = sorted(set(given))
    except TypeError as error:
        raise BadRequest(f"These labels cannot be sorted: {error}.", "Give two kinds.") from None
    if len(kinds) != 2:
        told = ", ".join(map(repr, kinds[:6]))
        remedy = "Give texts of two; of several, ask for one against the rest."
        raise BadRequest(f"There are {len(kinds)} kinds of labels: {told}.", remedy)
    if towards is not None:
        if towards not in kinds:
            raise BadRequest(
                f"No text has the label {towards!r}.", f"There are {kinds[0]!r} and {kinds[1]!r}."
            )
        kinds = [kind for kind in kinds if kind != towards] + [towards]
    second = np.array([label == kinds[1] for label in given])
    for kind, count in ((kinds[1], int(second.sum())), (kinds[0], int((~second).sum()))):
        if count < FEWEST:
            raise BadRequest(
                f"{count} text has the label {kind!r}.",
                f"Give at least {FEWEST} of each: some are held out.",
            )
    return Labelled((kinds[0], kinds[1]), second)


def _plain(label: Any) -> Any:
    """A label of numpy or torch as a number of Python."""
    return label.item() if hasattr(label, "item") and not getattr(label, "shape", ()) else label


def _stratified(second: Mask, held_out: float, draw: np.random.Generator) -> Mask:
    """Which texts are held out: of each label the same share, at least one text, and not all."""
    held = np.zeros(len(second), dtype=bool)
    for kind in (False, True):
        texts = draw.permutation(np.flatnonzero(second == kind))
        held[texts[: min(max(round(held_out * len(texts)), 1), len(texts) - 1)]] = True
    return held
