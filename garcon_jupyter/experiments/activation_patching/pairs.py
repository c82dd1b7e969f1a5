"""Prompt pairs: their tokens, the answers that tell them apart, and what each run is given of others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from garcon_jupyter.client.tokens import Tokens
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.target_tokens import one_token_each

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

Replace = Literal["patch", "mean", "resample"]

REPLACE = ("patch", "mean", "resample")

Side = tuple[int, bool]
"""A run: the number of its pair, and whether it is the clean one."""


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted texts, two by two of one length.

    Attributes:
        clean, corrupted: token ids of each text, without padding.
    """

    clean: tuple[tuple[int, ...], ...]
    corrupted: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, rmodel: Client, clean: Any, corrupted: Any) -> Pairs:
        """Pairs of texts, or of tokens.

        Raises:
            BadRequest: as many of one kind as of the other there are not; two of a pair have unequally many tokens, or the same.
        """
        pairs = cls(_rows(rmodel, clean), _rows(rmodel, corrupted))
        if len(pairs.clean) != len(pairs.corrupted):
            raise BadRequest(
                f"There are {len(pairs.clean)} clean texts and {len(pairs.corrupted)} corrupted ones.",
                "Give as many of each: they are patched two by two.",
            )
        for number, (one, other) in enumerate(zip(pairs.clean, pairs.corrupted, strict=True)):
            told = "The texts" if len(pairs) == 1 else f"The texts of pair {number}"
            if len(one) != len(other):
                raise BadRequest(
                    f"{told} have {len(one)} and {len(other)} tokens.",
                    "Patching needs equally many, so that positions correspond.",
                )
            if one == other:
                raise BadRequest(
                    f"{told} are the same tokens: there is nothing to restore.",
                    "Change at least one token in the corrupted text.",
                )
        return pairs

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each pair's texts."""
        return [len(text) for text in self.clean]

    def tokens(self, side: Side) -> tuple[int, ...]:
        """Token ids of a run."""
        pair, clean = side
        return self.clean[pair] if clean else self.corrupted[pair]

    def sources(self, denoise: bool, replace: Replace, seed: int) -> list[list[Side]]:
        """For each pair the runs whose values its patched run is given; of several, their mean.

        Raises:
            BadRequest: there is but one pair, or their lengths differ, where values of other pairs are needed.
        """
        if replace == "patch":
            return [[(pair, denoise)] for pair in range(len(self))]
        if len(self) < 2 or len(set(self.lengths)) > 1:
            raise BadRequest(
                f"replace={replace!r} takes values of other pairs at the same position; there are {len(self)} of "
                f"{' and '.join(map(str, sorted(set(self.lengths))))} tokens.",
                "Give two pairs at least, all of equally many tokens.",
            )
        if replace == "mean":
            return [[(pair, denoise) for pair in range(len(self))]] * len(self)
        order = [*range(len(self))]
        random.Random(seed).shuffle(order)
        following = dict(zip(order, order[1:] + order[:1], strict=True))
        return [[(following[pair], denoise)] for pair in range(len(self))]

    def first_difference(self, run: Side, sources: Sequence[Side]) -> int:
        """The first position at which a source has another token than a run. What a model that only looks back computes
        before it is the same in both."""
        mine = self.tokens(run)
        places = (
            position
            for source in sources
            for position, (one, other) in enumerate(zip(mine, self.tokens(source), strict=True))
            if one != other
        )
        return min(places, default=len(mine))


def answers_of(rmodel: Client, pairs: Pairs, answers: Any) -> list[tuple[int, int]]:
    """For each pair the tokens whose logits are compared: the clean answer, then the corrupted one.

    Args:
        answers: two tokens, as text or id, for all pairs; or two for each; None for what the model predicts.

    Raises:
        BadRequest: an answer of several tokens; another number of answers; the model predicts the same after both.
    """
    if answers is None:
        return _predicted(rmodel, pairs)
    given = list(answers) if isinstance(answers, (list, tuple)) else [answers]
    for_each = all(isinstance(one, (list, tuple)) for one in given)
    each = given if for_each else [given] * len(pairs)
    if len(each) != len(pairs) or any(len(two) != 2 for two in each):
        raise BadRequest(
            f"answers={answers!r} are not two tokens for {len(pairs)} pairs.",
            'Give the clean and the corrupted answer, answers=(" Mary", " John"), or a list with two for each pair.',
        )
    if for_each:
        found = [_two(rmodel, two, pairs.clean[pair]) for pair, two in enumerate(each)]
    else:
        found = [_two(rmodel, given, pairs.clean[0])] * len(pairs)
    for one, other in found:
        if one == other:
            raise BadRequest(
                f"Both answers are token {one}: their logits never differ.", "Give two tokens."
            )
    return found


def _two(rmodel: Client, answers: Sequence[Any], after: Sequence[int]) -> tuple[int, int]:
    first, second = one_token_each(rmodel, answers, after=rmodel._tokens([[*after]]))
    return first, second


def _predicted(rmodel: Client, pairs: Pairs) -> list[tuple[int, int]]:
    import torch

    width = max(pairs.lengths)
    texts = [text + (0,) * (width - len(text)) for text in (*pairs.clean, *pairs.corrupted)]
    mask = torch.arange(width) < torch.tensor(pairs.lengths * 2)[:, None]
    last = rmodel.forward(Tokens(torch.tensor(texts), mask), probes=[], logits="last")
    best = last.argmax(-1).tolist()
    found = list(zip(best[: len(pairs)], best[len(pairs) :], strict=True))
    for number, (one, other) in enumerate(found):
        if one == other:
            raise BadRequest(
                f"The model goes on with the same token after both texts of pair {number}: {rmodel.decode([one])!r}.",
                "Give answers=(clean, corrupted), or a metric.",
            )
    return found


def _rows(rmodel: Client, texts: Any) -> tuple[tuple[int, ...], ...]:
    """Token ids of each text, without padding."""
    tokens = rmodel._tokens(texts)
    rows = zip(tokens.ids.tolist(), tokens.mask.tolist(), strict=True)
    return tuple(tuple(i for i, real in zip(*row, strict=True) if real) for row in rows)
