"""The tokens of the data that moved a neuron, against those of all data.

Two ways to choose. :func:`by_frequency` is that of the post (`Training Process Transparency through Gradient Interpretability
<https://www.lesswrong.com/posts/DtkA5jysFZGv7W4qP>`_): of tokens with at least 20 occurrences the 200 of the largest relative frequency, and of these the five commonest; its
constants were chosen for 28,000 words, and scale with the vocabulary here. :func:`by_distinct_data` needs no constants: how many different data that
moved the neuron hold the token, where n of N data are drawn of which K hold it (hypergeometric), with the share of
false discoveries over all neurons and tokens that were asked (Benjamini and Hochberg 1995).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.questions.neurons import of_side
from garcon_jupyter.training.records.journal import StoredRecord
from garcon_jupyter.training.records.tables import SIDES

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


@dataclass(frozen=True, eq=False)
class _Counts:
    """What is counted of one neuron: a column for each of a token's numbers, in the order of :class:`NotableToken`.

    Attributes:
        unit: name of the weight.
        neuron: the neuron's number.
        of: how many different data moved it.
        columns: token, count, frequency, relative, data, expected, z, p.
    """

    unit: str
    neuron: int
    of: int
    columns: Mapping[str, Array]

    def where(self, kept: Array) -> _Counts:
        """Some of its tokens, by a mask or their places."""
        some = {name: each[kept] for name, each in self.columns.items()}
        return _Counts(self.unit, self.neuron, self.of, some)


class _Reading:
    """What both ways to choose read of a record: of neuron after neuron, what is counted of each token.

    Args:
        record: a record.
        pattern: of names of weights.
        side: "hidden unit" or "residual channel".
        group: join so many neighbours into one.
        at_least: how many different data must have moved a neuron.
        shuffled: a seed, by which data exchange their tokens.
        largest: so many of each step are counted.
        neurons: numbers of those that are asked; None for all.

    Attributes:
        corpus: the tokens of all data.
        tests: how many pairs of neuron and token were asked, once all are read.
    """

    def __init__(
        self,
        record: StoredRecord,
        pattern: str,
        side: str,
        group: int,
        at_least: int,
        shuffled: int | None,
        largest: int | None,
        neurons: Sequence[int] | None = None,
    ) -> None:
        self._largest, self._neurons = largest, neurons
        self._record, self._side, self._group, self._at_least = record, side, group, at_least
        self._units = record.select(pattern)
        named: dict[int, int] | None = None
        if shuffled is not None:
            ids = sorted({each for line in record.steps.values() for each in line["data"]})
            others = np.random.default_rng(shuffled).permutation(ids).tolist()
            named = dict(zip(ids, others, strict=True))
        self.corpus, self.tests = _Corpus(record, named), 0

    def counts(self, tokens: Sequence[int] | None = None) -> Iterator[_Counts]:
        """Neuron after neuron; of some tokens, or of all that its data hold."""
        corpus = self.corpus
        logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(corpus.rows) + 1)))])
        asked = corpus.holding > 0
        if tokens is not None:
            asked = asked & np.isin(np.arange(corpus.size), tokens)
        for unit in self._units:
            table, numbers = of_side(self._record, unit, self._side, self._group, self._largest)
            rows = np.stack([numbers, table.steps, table.data], 1)
            if self._neurons is not None:
                rows = rows[np.isin(numbers, self._neurons)]
            rows = np.unique(rows, axis=0)
            starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1))
            for start, end in zip(starts, [*starts[1:], len(rows)], strict=False):
                data = rows[start:end, 2]
                if len(np.unique(data)) >= self._at_least:
                    at = np.array([corpus.at(each) for each in data.tolist()])
                    self.tests += int(asked.sum())
                    yield _counted(corpus, unit, int(rows[start, 0]), at, logs, asked)


def by_distinct_data(
    record: StoredRecord,
    pattern: str = "*",
    *,
    side: str = SIDES[0],
    group: int = 1,
    at_least: int = 20,
    false_discoveries: float = 0.05,
    tokens: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
    texts: Mapping[int, str] | None = None,
    shuffled: int | None = None,
    largest: int | None = None,
) -> NotableTable:
    """Tokens that the data which moved a neuron hold more often than chance has it.

    Args:
        record: a record.
        pattern: of names of weights, or the name of a module.
        side: "hidden unit" or "residual channel".
        group: join so many neighbours into one, such as the dimensions of a head.
        at_least: how many different data must have moved a neuron.
        false_discoveries: their share at most, among all tokens that are named; with 1 all tokens are.
        tokens: numbers of those that are asked; by default all.
        neurons: numbers of those that are asked; by default all.
        texts: of the tokens.
        shuffled: a seed, by which data exchange their tokens: a control, in which nothing is to be found.
        largest: count so many outliers of each step, over all of its data, as the post has 1,000; by default all that were recorded.

    Raises:
        BadRequest: the record knows no tokens.
        UnknownName: there is no such weight.
    """
    reading = _Reading(record, pattern, side, group, at_least, shuffled, largest, neurons)
    whole = false_discoveries >= 1
    found = []
    for each in reading.counts(
        tokens
    ):  # a share is no smaller than p, so that what is left out changes none
        likely = (each.columns["p"] <= false_discoveries) & (each.columns["z"] > 0)
        kept = each if whole else each.where(likely)
        order = np.lexsort((-kept.columns["z"], kept.columns["p"]))
        found.append(kept.where(order))
    made = _named(found, reading.tests)
    kept_ = [each for each in made if whole or each.q <= false_discoveries]
    return NotableTable(side, kept_, reading.tests, texts or {})


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
    largest: int | None = None,
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
        largest: count so many outliers of each step; by default all.

    Raises:
        BadRequest: the record knows no tokens.
        UnknownName: there is no such weight.
    """
    reading = _Reading(record, pattern, side, group, 1, shuffled, largest)
    words = int((reading.corpus.total > 0).sum())
    near = relative or max(named, round(200 * words / SEED_VOCABULARY))
    kept = []
    for each in reading.counts():
        common = each.where(each.columns["count"] >= count)
        numbers = common.columns
        best = common.where(np.lexsort((numbers["token"], -numbers["relative"]))[:near])
        numbers = best.columns
        kept.append(best.where(np.lexsort((numbers["token"], -numbers["count"]))[:named]))
    return NotableTable(side, _named(kept, reading.tests), reading.tests, texts or {})


def _counted(
    corpus: _Corpus, unit: str, neuron: int, rows: Array, logs: Array, asked: Array
) -> _Counts:
    """Of each token that is asked, and that a neuron's data hold."""
    counts = np.bincount(np.concatenate([corpus.rows[at] for at in rows]), minlength=corpus.size)
    drawn = np.unique(rows)
    data = np.bincount(np.concatenate([corpus.sets[at] for at in drawn]), minlength=corpus.size)
    tokens = np.flatnonzero((counts > 0) & asked)
    all_data, n, holding = len(corpus.rows), len(drawn), corpus.holding[tokens]
    expected = n * holding / all_data
    spread = expected * (1 - holding / all_data) * (all_data - n) / max(1, all_data - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(spread > 0, (data[tokens] - expected) / np.sqrt(spread), 0.0)
    frequency = counts[tokens] / counts.sum()
    return _Counts(
        unit,
        neuron,
        n,
        {
            "token": tokens,
            "count": counts[tokens],
            "frequency": frequency,
            "relative": frequency / (corpus.total[tokens] / corpus.total.sum()),
            "data": data[tokens],
            "expected": expected,
            "z": z,
            "p": _tails(data[tokens], n, holding, all_data, logs),
        },
    )


def _tails(found: Array, n: int, holding: Array, total: int, logs: Array) -> Array:
    """P(X ≥ found) for hypergeometric X: n drawn of `total`, of which `holding` count.

    Summed away from the mean: above it the terms from `found` on, below it one less those before, so that a few dozen terms are enough.
    """
    above = found * total >= n * holding
    step = np.where(above, 1, -1)
    summed = np.full(len(found), -np.inf)
    whole = logs[total] - logs[n] - logs[total - n]
    places = np.arange(len(found))
    k = np.where(above, found, found - 1)
    while len(places):
        hold, at = holding[places], k[places]
        there = (at >= 0) & (at <= np.minimum(n, hold)) & (total - hold >= n - at)
        places, hold, at = places[there], hold[there], at[there]
        ways = logs[hold] - logs[at] - logs[hold - at]
        rest = logs[total - hold] - logs[n - at] - logs[total - hold - n + at]
        term = ways + rest - whole
        summed[places] = np.logaddexp(summed[places], term)
        places = places[term > summed[places] - 40]
        k = k + step
    part = np.exp(np.minimum(summed, 0.0))
    result: Array = np.where(above, part, 1 - part)
    return result


def _named(found: Sequence[_Counts], tests: int) -> list[NotableToken]:
    """Tokens with their shares of false discoveries over all tests (those that are not here count as if their p were 1)."""
    p = np.concatenate([np.empty(0), *(each.columns["p"] for each in found)])
    order = np.argsort(p, kind="stable")
    ranked = p[order] * tests / np.arange(1, len(p) + 1)
    q = np.empty(len(p))
    q[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    shares, made = iter(q.tolist()), []
    for each in found:
        columns = {name: column.tolist() for name, column in each.columns.items()}
        for t, c, f, r, d, e, z, w in zip(*columns.values(), strict=True):
            numbers = (each.unit, each.neuron, t, c, f, r, d, each.of, e, z, w)
            made.append(NotableToken(*numbers, next(shares)))
    return made
