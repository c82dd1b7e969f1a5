"""What an attention head does: pairs of tokens, of which one attends to the other, for explaining and scoring.

An atlas keeps values of tokens, and a head has one for each pair. So its pairs are read from patterns, of texts that are given:
the strongest of each text, in turn for explaining and for scoring, and random ones from which the head takes little.
After the Transformer Debugger (Mossing et al. 2024): an explanation is scored by whether a language model tells the strongest
pairs from random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadData
from garcon_jupyter.explanations.records.excerpts import QUIET, digest_of

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

EACH = 5
"""Pairs of each kind: strongest for explaining, strongest for scoring, and random ones."""


@dataclass(frozen=True)
class TokenPair:
    """Two tokens of a text, and how much the head takes from one at the other.

    Attributes:
        tokens: of the whole text.
        query: the place that attends.
        key: the place that it attends to.
        value: how much, from 0 to 1.
    """

    tokens: tuple[str, ...]
    query: int
    key: int
    value: float

    @cached_property
    def digest(self) -> str:
        """Of all of it."""
        return digest_of(asdict(self))


@dataclass(frozen=True)
class HeadPairs:
    """What a head attends to: the *record* that it is explained from.

    Attributes:
        point: name of the point, such as "layers.4.attn.pattern".
        unit: number of the head.
        largest: the strongest of all pairs.
        train: the strongest pairs, of one half of the texts.
        test: those of the other half.
        quiet: random pairs of that half, each below a tenth of `largest`.
    """

    point: str
    unit: int
    largest: float
    train: tuple[TokenPair, ...]
    test: tuple[TokenPair, ...]
    quiet: tuple[TokenPair, ...]

    @cached_property
    def digest(self) -> str:
        """Of all that is in it."""
        return digest_of(asdict(self))

    @property
    def name(self) -> str:
        """Point and head, as they are shown."""
        return f"{self.point} {self.unit}"


def of_patterns(
    point: str,
    head: int,
    texts: Sequence[Sequence[str]],
    patterns: Sequence[Any],
    each: int = EACH,
    first: bool = False,
    seed: int = 0,
) -> HeadPairs:
    """Pairs of a head from its patterns.

    Args:
        point, head: which it is.
        texts: the tokens of each.
        patterns: of each, [query, key], in the same order.
        each: pairs of each kind.
        first: whether pairs whose key is the first token count; most heads rest there when they have nothing to do.
        seed: of the random pairs.

    Raises:
        BadData: there are too few texts, or the head attends to nothing in them.
    """
    strongest: list[TokenPair] = []
    weights = [np.array(pattern, np.float64) for pattern in patterns]
    for tokens, whole in zip(texts, weights, strict=True):
        if not first and whole.size:
            whole[:, 0] = 0.0
        if whole.size and whole.max() > 0:
            query, key = np.unravel_index(int(whole.argmax()), whole.shape)
            strongest.append(
                TokenPair(tuple(tokens), int(query), int(key), float(whole[query, key]))
            )
        else:
            strongest.append(TokenPair(tuple(tokens), 0, 0, 0.0))
    # A text is for explaining or for scoring, by the rank of its strongest pair, in turn.
    order = sorted(range(len(strongest)), key=lambda n: -strongest[n].value)
    train = [strongest[n] for n in order[0::2] if strongest[n].value > 0][:each]
    held = [n for n in order[1::2] if strongest[n].value > 0]
    if not train or not held:
        raise BadData(
            f"Head {head} of {point} attends to nothing in {len(texts)} texts.",
            "Give at least two texts of several tokens, each; or first=True, if it attends to the first token alone.",
        )
    largest = strongest[order[0]].value
    test = [strongest[n] for n in held][:each]
    others = _random(
        [texts[n] for n in order[1::2]], [weights[n] for n in order[1::2]], largest, each, seed
    )
    return HeadPairs(point, head, largest, tuple(train), tuple(test), others)


def _random(
    texts: Sequence[Sequence[str]],
    weights: Sequence[np.ndarray],
    largest: float,
    each: int,
    seed: int,
) -> tuple[TokenPair, ...]:
    """Pairs drawn uniformly from those of a key before its query that are below a tenth of the largest."""
    found = [
        (n, query, key)
        for n, whole in enumerate(weights)
        for query in range(1, len(whole))
        for key in range(1, query + 1)
        if whole[query, key] < QUIET * largest
    ]
    drawn = np.random.default_rng(seed).permutation(len(found))[:each]
    return tuple(
        TokenPair(tuple(texts[n]), query, key, float(weights[n][query, key]))
        for n, query, key in (found[int(at)] for at in drawn)
    )


def of_head(
    rmodel: Client,
    layer: int,
    head: int,
    texts: Sequence[str],
    each: int = EACH,
    first: bool = False,
    seed: int = 0,
) -> HeadPairs:
    """Pairs of a head from a served model: one pass for each text, in which its layer's pattern is read.

    Args:
        texts: at least two; 4 · `each` give it something to choose from.
        each, first, seed: as for :func:`of_patterns`.

    Raises:
        BadData: the head attends to nothing in them.
        UnknownPoint: there is no such layer.
    """
    from garcon_jupyter.experiments.attention import PATTERN, layer_pattern
    from garcon_jupyter.points import fill

    strings, patterns = [], []
    for text in texts:
        tokens = rmodel.encode(text)
        pattern = layer_pattern(rmodel, tokens, layer)
        if not 0 <= head < pattern.shape[1]:
            raise BadData(f"Layer {layer} has no head {head}.", f"It has {pattern.shape[1]}.")
        strings.append(rmodel.token_strings(tokens)[0])
        patterns.append(pattern[0, head].float().numpy(force=True))
    return of_patterns(fill(PATTERN, layer), head, strings, patterns, each, first, seed)
