"""Prompt pairs of one length as a batch: all clean texts, all corrupted ones, and the corrupted ones again, for runs between.

batch = PairBatch(pairs, (0, 2), between=5)
batch.ids()                      # [7 · 2, p]
batch.by_role(tensor)            # [role, pair, …]: role 0 is the clean run, 1 the corrupted one, then those between
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.activation_patching.measures import Measure, Metric
from garcon_jupyter.experiments.activation_patching.pairs import Pairs

if TYPE_CHECKING:
    from torch import Tensor

    from garcon_jupyter.client.client import Client

CLEAN, CORRUPTED = 0, 1
"""Roles of rows."""

ENDS = 2
"""Roles that are runs as they are; those after them are between."""


@dataclass(frozen=True)
class PairBatch:
    """Some pairs of one length.

    Attributes:
        pairs: of which they are.
        numbers: which.
        between: how many rows of each stand beside its two texts.
    """

    pairs: Pairs
    numbers: tuple[int, ...]
    between: int = 0

    @property
    def length(self) -> int:
        """Tokens of a text."""
        return self.pairs.lengths[self.numbers[0]]

    @property
    def roles(self) -> int:
        """Rows of each pair."""
        return ENDS + self.between

    def ids(self) -> Tensor:
        """Token ids, [role · pair, p]."""
        import torch

        both = [
            [side[n] for n in self.numbers] for side in (self.pairs.clean, self.pairs.corrupted)
        ]
        return torch.tensor([*both[0], *both[1] * (1 + self.between)])

    def metric(self, measure: Measure) -> Metric:
        """What is measured of each row."""
        return measure.of_rows([*self.numbers] * self.roles)

    def ends(self, measured: Tensor) -> tuple[Tensor, Tensor]:
        """The metric of the corrupted and of the clean run of each pair, [pair], of what was measured of each row.

        Raises:
            BadRequest: of a pair they are the same, or no numbers: nothing can be told in shares of their difference.
        """
        high, low = measured.double().cpu().view(self.roles, -1)[:ENDS]
        for number, one, other in zip(self.numbers, low.tolist(), high.tolist(), strict=True):
            if not 0 < abs(other - one) < float("inf"):
                told = "" if len(self.pairs) == 1 else f" of pair {number}"
                raise BadRequest(
                    f"The metric is {other:.4g} on the clean and {one:.4g} on the corrupted text{told}: there is nothing to restore.",
                    "Choose other answers, or texts that the model answers differently.",
                )
        return low, high


def by_length(pairs: Pairs) -> Iterator[list[int]]:
    """Numbers of pairs, those of one length together."""
    lengths = pairs.lengths
    for length in sorted(set(lengths)):
        yield [number for number, own in enumerate(lengths) if own == length]


def told(rmodel: Client, pairs: Pairs, measure: Measure) -> dict[str, Any]:
    """What a result says of its pairs, as plain data: of several, of each."""
    words = [
        [rmodel.token_strings([[*text]])[0] for text in side]
        for side in (pairs.clean, pairs.corrupted)
    ]
    answers = [[*two] for two in measure.answers or ()]
    clean, corrupted = words
    alone = len(pairs) == 1
    return {
        "model": rmodel.facts["name"],
        "clean": clean[0] if alone else clean,
        "corrupted": corrupted[0] if alone else corrupted,
        "answers": answers[0] if alone and answers else answers,
        "metric": measure.name,
    }
