"""The tokens of the data that moved a neuron, against those of all data.

Two ways to choose. :func:`by_frequency` is that of the post (`Training Process Transparency through Gradient Interpretability
<https://www.lesswrong.com/posts/DtkA5jysFZGv7W4qP>`_): of tokens with at least 20 occurrences the 200 of the largest relative frequency, and of these the five commonest; its
constants were chosen for 28,000 words, and scale with the vocabulary here. :func:`by_distinct_data` needs no constants: how many different data that
moved the neuron hold the token, where n of N data are drawn of which K hold it (hypergeometric), with the share of
false discoveries over all neurons and tokens that were asked (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.neurons import of_side
from garcon_jupyter.training.records import StoredRecord
from garcon_jupyter.training.tables import SIDES

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]

SEED_VOCABULARY = 28_000
"""The number of words for which the post chose its constants."""


@dataclass(frozen=True)
class NotableToken:
    """A token, in the data that moved a neuron.

    Attributes:
        unit: name of the weight.
        neuron: the neuron's number.
        token: the token's number.
        count: how often it occurs in the data that moved the neuron, each as often as it did.
        frequency: that, of all tokens there.
        relative: that frequency, over the one in all different data.
        data: how many different data that moved the neuron hold it.
        of: how many different data moved the neuron.
        expected: how many would hold it by chance.
        z: data − expected, in standard deviations of the hypergeometric distribution.
        p: the probability of as many, or more, by chance.
        q: the share of false discoveries among those with as small a p, over all that were asked.
    """

    unit: str
    neuron: int
    token: int
    count: int
    frequency: float
    relative: float
    data: int
    of: int
    expected: float
    z: float
    p: float
    q: float


@dataclass(frozen=True, repr=False)
class NotableTable:
    """Tokens of neurons.

    Attributes:
        side: "hidden unit" or "residual channel".
        tokens: of neuron after neuron, the most notable of each first.
        tests: how many pairs of neuron and token were asked.
        texts: of the tokens, where they are known.
    """

    side: str
    tokens: list[NotableToken]
    tests: int
    texts: Mapping[int, str]

    def __len__(self) -> int:
        return len(self.tokens)

    def to_frame(self) -> pd.DataFrame:
        """A row for each."""
        import pandas as pd

        names = list(NotableToken.__dataclass_fields__)
        found = pd.DataFrame([asdict(each) for each in self.tokens], columns=names)
        if self.texts:
            found.insert(3, "text", [self.texts.get(token, "") for token in found["token"]])
        return found

    def __repr__(self) -> str:
        return f"<{len(self)} notable tokens of {self.side}s, {self.tests:,} pairs asked>"


class _Corpus:
    """The tokens of a record's data, counted."""

    def __init__(self, record: StoredRecord, data: Mapping[int, int] | None) -> None:
        self.tokens = record.tokens
        ids = sorted({each for line in record.steps.values() for each in line["data"]})
        if not ids or not any(self.tokens.get(each) for each in ids):
            raise BadRequest(
                "The record knows no tokens of its data.",
                "Give the model token ids while it is recorded.",
            )
        self.moved_to = data or {}
        self.number = {each: at for at, each in enumerate(ids)}
        rows = [np.asarray(self.tokens.get(each, []), np.int64) for each in ids]
        self.size = 1 + max(int(row.max(initial=0)) for row in rows)
        self.rows, self.sets = rows, [np.unique(row) for row in rows]
        self.total = np.bincount(np.concatenate(rows), minlength=self.size)
        self.holding = np.bincount(np.concatenate(self.sets), minlength=self.size)

    def at(self, datum: int) -> int:
        return self.number[self.moved_to.get(datum, datum)]


def _asked(
    record: StoredRecord,
    pattern: str,
    side: str,
    group: int,
    at_least: int,
    shuffled: int | None,
) -> tuple[_Corpus, dict[tuple[str, int], Array]]:
    """The corpus, and the (step, datum) pairs of each neuron with enough data, as numbers of data, each as often as it came."""
    named: dict[int, int] | None = None
    if shuffled is not None:
        ids = sorted({each for line in record.steps.values() for each in line["data"]})
        others = np.random.default_rng(shuffled).permutation(ids).tolist()
        named = dict(zip(ids, others, strict=True))
    corpus = _Corpus(record, named)
    found: dict[tuple[str, int], Array] = {}
    for unit in record.select(pattern):
        table, numbers = of_side(record, unit, side, group)
        rows = np.unique(np.stack([numbers, table.steps, table.data], 1), axis=0)
        for neuron in np.unique(rows[:, 0]).tolist():
            data = rows[rows[:, 0] == neuron, 2]
            if len(np.unique(data)) >= at_least:
                found[unit, neuron] = np.array([corpus.at(each) for each in data.tolist()])
    return corpus, found


def by_distinct_data(
    record: StoredRecord,
    pattern: str = "*",
    *,
    side: str = SIDES[0],
    group: int = 1,
    at_least: int = 20,
    false_discoveries: float = 0.05,
    texts: Mapping[int, str] | None = None,
    shuffled: int | None = None,
) -> NotableTable:
    """Tokens that the data which moved a neuron hold more often than chance has it.

    Args:
        record: a record.
        pattern: of names of weights, or the name of a module.
        side: "hidden unit" or "residual channel".
        group: join so many neighbours into one, such as the dimensions of a head.
        at_least: how many different data must have moved a neuron.
        false_discoveries: their share at most, among all tokens that are named; with 1 all tokens are.
        texts: of the tokens.
        shuffled: a seed, by which data exchange their tokens: a control, in which nothing is to be found.

    Raises:
        BadRequest: the record knows no tokens.
        UnknownName: there is no such weight.
    """
    corpus, asked = _asked(record, pattern, side, group, at_least, shuffled)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(corpus.rows) + 1)))])
    found: list[NotableToken] = []
    tests = len(asked) * int((corpus.holding > 0).sum())
    for (unit, neuron), rows in asked.items():
        found += _statistics(corpus, unit, neuron, rows, logs)
    found = _corrected(found, tests)
    whole = false_discoveries >= 1
    kept = [each for each in found if whole or (each.q <= false_discoveries and each.z > 0)]
    order = {key: number for number, key in enumerate(asked)}
    kept.sort(key=lambda each: (order[each.unit, each.neuron], each.p, -each.z))
    return NotableTable(side, kept, tests, texts or {})


def by_frequency(
    record: StoredRecord,
    pattern: str = "*",
    *,
    side: str = SIDES[0],
    group: int = 1,
    count: int = 20,
    relative: int | None = None,
    named: int = 5,
    texts: Mapping[int, str] | None = None,
    shuffled: int | None = None,
) -> NotableTable:
    """The post's choice: of tokens that are common enough, those of the largest relative frequency, and of these the commonest.

    Args:
        record: a record.
        pattern: of names of weights, or the name of a module.
        side: "hidden unit" or "residual channel".
        group: join so many neighbours into one.
        count: how often a token must occur.
        relative: how many tokens of the largest relative frequency are looked at; by default 200 for 28,000 words, and of fewer as much less.
        named: how many of them are named.
        texts: of the tokens.
        shuffled: a seed of a control.

    Raises:
        BadRequest: the record knows no tokens.
        UnknownName: there is no such weight.
    """
    corpus, asked = _asked(record, pattern, side, group, 1, shuffled)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(corpus.rows) + 1)))])
    words = int((corpus.total > 0).sum())
    near = relative or max(named, round(200 * words / SEED_VOCABULARY))
    kept: list[NotableToken] = []
    for (unit, neuron), rows in asked.items():
        common = [t for t in _statistics(corpus, unit, neuron, rows, logs) if t.count >= count]
        common.sort(key=lambda each: (-each.relative, each.token))
        best = sorted(common[:near], key=lambda each: (-each.count, each.token))
        kept += best[:named]
    tests = len(asked) * words
    return NotableTable(side, _corrected(kept, tests, keep_order=True), tests, texts or {})


def _statistics(
    corpus: _Corpus, unit: str, neuron: int, rows: Array, logs: Array
) -> list[NotableToken]:
    """Of each token of a neuron's data."""
    counts = np.bincount(np.concatenate([corpus.rows[at] for at in rows]), minlength=corpus.size)
    drawn = np.unique(rows)
    data = np.bincount(np.concatenate([corpus.sets[at] for at in drawn]), minlength=corpus.size)
    tokens = np.flatnonzero(counts)
    all_data, n, holding = len(corpus.rows), len(drawn), corpus.holding[tokens]
    expected = n * holding / all_data
    spread = expected * (1 - holding / all_data) * (all_data - n) / max(1, all_data - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(spread > 0, (data[tokens] - expected) / np.sqrt(spread), 0.0)
    p = np.exp(_tails(data[tokens], n, holding, all_data, logs))
    frequency = counts[tokens] / counts.sum()
    relative = frequency / (corpus.total[tokens] / corpus.total.sum())
    columns = (tokens, counts[tokens], frequency, relative, data[tokens], expected, z, p)
    return [
        NotableToken(
            unit,
            neuron,
            int(t),
            int(c),
            float(f),
            float(r),
            int(d),
            n,
            float(e),
            float(s),
            float(w),
            1.0,
        )
        for t, c, f, r, d, e, s, w in zip(*columns, strict=True)
    ]


def _tails(found: Array, n: int, holding: Array, total: int, logs: Array) -> Array:
    """log P(X ≥ found) for hypergeometric X: n drawn of `total`, of which `holding` count."""
    whole = logs[total] - logs[n] - logs[total - n]
    result = np.full(len(found), -np.inf)
    most = np.minimum(n, holding)
    for more in range(int((most - found).max(initial=0)) + 1):
        k = found + more
        at = (k <= most) & (holding - k >= 0) & (total - holding - (n - k) >= 0)
        kk, hh = k[at], holding[at]
        ways = logs[hh] - logs[kk] - logs[hh - kk]
        rest = logs[total - hh] - logs[n - kk] - logs[total - hh - n + kk]
        term = ways + rest - whole
        before = result[at]
        result[at] = np.logaddexp(before, term)
        if len(term) == 0 or (term < result[at] - 40).all():
            break
    limited: Array = np.minimum(result, 0.0)
    return limited


def _corrected(
    found: Sequence[NotableToken], tests: int, keep_order: bool = False
) -> list[NotableToken]:
    """With shares of false discoveries over all tests; those that are not in the list count as if their p were 1."""
    order = sorted(range(len(found)), key=lambda at: found[at].p)
    shares, least = [1.0] * len(found), 1.0
    for rank in range(len(order), 0, -1):
        least = min(least, found[order[rank - 1]].p * tests / rank)
        shares[order[rank - 1]] = least
    made = [
        NotableToken(**{**asdict(each), "q": share})
        for each, share in zip(found, shares, strict=True)
    ]
    return made if keep_order else [made[at] for at in order]
