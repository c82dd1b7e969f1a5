"""An atlas on disk: a directory of plain arrays that are mapped, not read.

``atlas.json`` says what is in it; every other file is one NumPy array (``.npy``) whose first dimension is the *unit*,
counted over all points in their order. So opening costs the same at any size, and any program that reads .npy files
can use it.

| File | Shape | What |
|---|---|---|
| `top_values`, `top_places` | float32, int64 [units, k] | the largest values, best first; document << 32 | offset |
| `top_tokens`, `top_around` | int32, float32 [units, k, w] | tokens around each, and the unit's values there |
| `sample_values`, `sample_places`, `sample_tokens`, `sample_around` | [units, s, …] | the same of a uniform sample |
| `wide_values`, `wide_places`, `wide_tokens`, `wide_around` | [units, 10 · e, …] | the same of uniform samples of intervals of equal \
width, from 0 to the unit's largest value, e of each |
| `histogram` | int64 [units, bins] | counts; the edges of the bins are in `atlas.json` |
| `fired` | int64 [units] | tokens at which the unit was above zero |
| `moments` | float64 [units, 6] | mean, variance, skewness, kurtosis, smallest, largest |
| `correlated`, `correlations` | int32, float32 [units, c] | units of the same point, and Pearson's correlation |
| `across`, `across_correlations` | int64, float32 [units, c] | units of other points, counted over all points, and an \
estimate of the correlation, with a standard error of 1 / √sums |
| `logits_up`, `logits_up_values`, `logits_down`, `logits_down_values` | int32, float32 [units, l] | tokens that the unit's \
output makes more, and less, likely |

| `pairs`, `sketch_sums` | float32 [units, largest point], [units, sums] | all correlations within the point, and \
sketches of those between points: what merging takes |
| `sketch_signs` | int64 [points, sums] | the sums of the sketches' signs |

Slots that nothing filled have NaN as value and −1 as token or unit. `wide_…` are there where :mod:`garcon_jupyter.features` made the atlas (whose
sample is of tokens above zero alone), the last five rows where they were asked for. Documents are numbered by their position in the data, from 0 or from the `first_document` that was given; the
`parts` of ``atlas.json`` say which documents went in, as [first, how many].
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.activation_stores.addresses import need_directory
from garcon_jupyter.amounts import of_tokens
from garcon_jupyter.client import display_hooks
from garcon_jupyter.errors import BadData, UnknownName
from garcon_jupyter.wire.token_parts import plain, whole

if TYPE_CHECKING:
    from garcon_jupyter.client.client import Client

FORMAT = 1
INDEX = "atlas.json"
VOCABULARY = "vocabulary.json"
NOWHERE = (1 << 63) - 1


@dataclass(frozen=True)
class Example:
    """A unit on a stretch of text.

    Attributes:
        tokens: the texts of the tokens.
        ids: their numbers.
        values: the unit's value at each.
        at: which of them the example is about.
        value: the value there.
        document: number of the document.
        offset: place of that token in it.
    """

    tokens: list[str]
    ids: list[int]
    values: list[float]
    at: int
    value: float
    document: int
    offset: int

    def __repr__(self) -> str:
        shown = [f"[{t}]" if n == self.at else t for n, t in enumerate(self.tokens)]
        return f"<{self.value:.3g}: {''.join(shown)!r}>"


class Record:
    """What the atlas knows of one unit.

    Attributes:
        point: name of the point.
        unit: number of the unit in it.
    """

    def __init__(self, atlas: Atlas, point: str, unit: int) -> None:
        self._atlas, self.point, self.unit = atlas, point, unit
        self._row = atlas.first[point] + unit

    def array(self, name: str) -> np.ndarray:
        """The unit's row of an array of the atlas.

        Raises:
            UnknownName: the atlas has no such array.
        """
        row: np.ndarray = self._atlas.array(name)[self._row]
        return row

    @property
    def label(self) -> str:
        """What the unit is called: as was said, or by its number."""
        labels = self._atlas.index.get("labels") or ()
        return labels[self.unit] if self.unit < len(labels) else f"unit {self.unit}"

    @property
    def of(self) -> str:
        """Name of the function of the point's tensor whose value the unit is; "" for one of the point itself."""
        return str(self._atlas.index.get("of", ""))

    @property
    def examples(self) -> list[Example]:
        """Where the unit was largest, best first."""
        return self._examples("top", range(self._atlas.index["k"]))

    @property
    def sample(self) -> list[Example]:
        """A uniform sample, the smallest value first."""
        values = self.array("sample_values")
        return self._examples("sample", np.argsort(values, kind="stable").tolist())

    @property
    def intervals(self) -> list[list[Example]]:
        """The sample in intervals that hold equally many of the unit's values, the lowest first."""
        sample = self.sample
        parts = self._atlas.index["intervals"]
        each = len(sample) // parts
        return [sample[n * each : (n + 1) * each] for n in range(parts)]

    @property
    def equal_width(self) -> list[list[Example]]:
        """Uniform samples of intervals of equal width, from 0 to the unit's largest value; the lowest interval first.

        Most of a unit's values are in the lowest, so that few of :attr:`sample` are in the others.

        Raises:
            UnknownName: the atlas was made of a run, whose recorders do not draw them: :meth:`garcon_jupyter.RemoteModel.features` does.
        """
        slots = self.array("wide_values").shape[0]
        parts = self._atlas.index["wide_intervals"]
        each = slots // parts
        return [self._examples("wide", range(n * each, (n + 1) * each)) for n in range(parts)]

    def _examples(self, kind: str, slots: Sequence[int]) -> list[Example]:
        names = ("values", "places", "tokens", "around")
        values, places, tokens, around = (self.array(f"{kind}_{name}") for name in names)
        before = self._atlas.index["before"]
        found = []
        for slot in slots:
            if places[slot] == NOWHERE:
                continue
            real = tokens[slot] >= 0
            ids = tokens[slot][real].tolist()
            found.append(
                Example(
                    self._atlas.texts(ids),
                    ids,
                    around[slot][real].tolist(),
                    int(real[:before].sum()),
                    float(values[slot]),
                    int(places[slot] >> 32),
                    int(places[slot] & 0xFFFFFFFF),
                )
            )
        return found

    @property
    def rate(self) -> float:
        """The fraction of tokens at which the unit was above zero."""
        return int(self.array("fired")) / max(1, self._atlas.tokens)

    @property
    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """(counts [bins], edges [bins + 1]) of all values."""
        return self.array("histogram"), self._atlas.edges

    @property
    def moments(self) -> dict[str, float]:
        """Mean, variance, skewness, kurtosis, smallest and largest value."""
        names = ("mean", "variance", "skewness", "kurtosis", "low", "high")
        return dict(zip(names, self.array("moments").tolist(), strict=True))

    @property
    def correlated(self) -> list[tuple[int, float]]:
        """Units of the same point, and their correlation, the strongest first."""
        pairs = zip(self.array("correlated"), self.array("correlations"), strict=True)
        return [(int(unit), float(value)) for unit, value in pairs if unit >= 0]

    @property
    def across(self) -> list[tuple[str, int, float]]:
        """(point, unit, correlation) of units of other points, the strongest first; those beyond chance only."""
        pairs = zip(self.array("across"), self.array("across_correlations"), strict=True)
        found = [(self._atlas.at(int(row)), float(value)) for row, value in pairs if row >= 0]
        return [(record.point, record.unit, value) for record, value in found]

    def logits(self, down: bool = False) -> list[tuple[str, float]]:
        """Tokens that the unit's output makes most likely, or `down`, least likely, by its direct way to the
        logits."""
        name = "logits_down" if down else "logits_up"
        pairs = zip(self.array(name), self.array(f"{name}_values"), strict=True)
        return [(self._atlas.text(int(token)), float(value)) for token, value in pairs]

    def show(self, rmodel: Client | None = None, text: str = "", connectome: Any = None) -> Any:
        """Its dashboard; with a model, also on texts of your own.

        Args:
            connectome: whose connections are shown with it (``garcon.open_connectome``); by default that of the same model
                which lies beside the atlas, in the same folder, if there is one.
        """
        return display_hooks.drawn(self, "show", rmodel, text, connectome)

    def probe_cell(self, text: str = "") -> str:
        """A ``%%probe`` cell on this unit, which runs on a text of yours; in a notebook it is put below.

        Args:
            text: what to run; by default the text around the unit's largest value.
        """
        return str(display_hooks.drawn(self, "probe_cell", text))

    def __repr__(self) -> str:
        best = self.examples[:1]
        fires = of_tokens(self.rate, self._atlas.tokens)
        of = f"{self.of} at {self.point}" if self.of else self.point
        return f"<{self.label} of {of}: {fires}; {best[0] if best else 'dead'}>"


class Atlas:
    """An atlas, opened.

    Attributes:
        path: its directory.
        index: the content of ``atlas.json``.
        points: names of its points.
        first: number of the first unit of each point.
        tokens: how many tokens it was made from.
        edges: of the bins of the histograms, float64 [bins + 1].
    """

    def __init__(self, path: Path, index: dict[str, Any]) -> None:
        self.path, self.index = path, index
        self.units: dict[str, int] = index["points"]
        self.points = list(self.units)
        starts = np.cumsum([0, *self.units.values()]).tolist()
        self.first: dict[str, int] = dict(zip(self.points, starts, strict=False))
        self.tokens: int = index["tokens"]
        self.edges = np.asarray([float(edge) for edge in index["edges"]], dtype=np.float64)
        self._arrays: dict[str, np.ndarray] = {}
        self._vocabulary: list[str] | None = None

    @property
    def parts(self) -> list[list[int]]:
        """Which documents of the data went in: [first, how many] of each part."""
        return self.index.get("parts") or [[0, self.index["documents"]]]

    def array(self, name: str) -> np.ndarray:
        """An array of all units, mapped.

        Raises:
            UnknownName: there is none of this name.
        """
        if name not in self._arrays:
            if name not in self.index["arrays"]:
                raise UnknownName.among(
                    "array", name, self.index["arrays"], "It was not asked for."
                )
            self._arrays[name] = np.load(self.path / f"{name}.npy", mmap_mode="r")
        return self._arrays[name]

    @property
    def vocabulary(self) -> list[str]:
        """The texts of all tokens; empty where the model came without a tokenizer. Part of a character is its bytes
        (:mod:`garcon_jupyter.wire.token_parts`)."""
        if self._vocabulary is None:
            self._vocabulary = json.loads((self.path / VOCABULARY).read_text())
        return self._vocabulary

    def text(self, token: int) -> str:
        """The text of a token; its number where the model came without a tokenizer."""
        return plain(self._part(token))

    def texts(self, tokens: Sequence[int]) -> list[str]:
        """The texts of tokens that stand beside each other: joined, they are the text."""
        return whole([self._part(token) for token in tokens])

    def _part(self, token: int) -> str:
        vocabulary = self.vocabulary
        return vocabulary[token] if token < len(vocabulary) else f"<{token}>"

    def __getitem__(self, key: tuple[str, int]) -> Record:
        point, unit = key
        if point not in self.units:
            raise UnknownName.among("point", point, self.points, "It is not in this atlas.")
        if not 0 <= unit < self.units[point]:
            raise UnknownName(f"{point} has no unit {unit}.", f"It has {self.units[point]}.")
        return Record(self, point, int(unit))

    def __len__(self) -> int:
        return sum(self.units.values())

    def __iter__(self) -> Iterator[Record]:
        return (
            Record(self, point, unit) for point in self.points for unit in range(self.units[point])
        )

    def search(self, token: str, at_least: float = 0.5) -> list[Record]:
        """Units whose largest values are at a token.

        Args:
            token: its text, as an example shows it; spaces around it do not count.
            at_least: at what fraction of the examples.

        Returns:
            Those with the largest fraction first.
        """
        wanted = token.strip()
        ids = [n for n, text in enumerate(self.vocabulary) if text.strip() == wanted]
        own = self.array("top_tokens")[:, :, self.index["before"]]
        hits = np.isin(own, ids)
        # The first token of a character that several make is shown as the character, the others as nothing.
        parts = self._parts_of_characters() if wanted else []
        for row, slot in zip(*np.nonzero(np.isin(own, parts)), strict=True):
            hits[row, slot] = self._shown(row, slot) == wanted
        share = hits.sum(1) / np.maximum(1, (own >= 0).sum(1))
        rows = np.argsort(-share, kind="stable")
        return [self.at(int(row)) for row in rows[: int((share >= at_least).sum())]]

    def _parts_of_characters(self) -> list[int]:
        """Tokens that are no text by themselves."""
        return [
            n
            for n, text in enumerate(self.vocabulary)
            if not text.isascii() and plain(text) != text
        ]

    def _shown(self, row: int, slot: int) -> str:
        """What an example shows at the token that it is about."""
        tokens, before = self.array("top_tokens")[row, slot], self.index["before"]
        real = tokens >= 0
        return self.texts(tokens[real].tolist())[int(real[:before].sum())].strip()

    def browse(self, rmodel: Client | None = None, connectome: Any = None) -> Any:
        """A page to pick units on, by number or by token; with a model, also to try texts of your own.

        Args:
            connectome: as of :meth:`Record.show`; its connections lead from unit to unit.
        """
        return display_hooks.drawn(self, "browse", rmodel, connectome)

    def at(self, row: int) -> Record:
        """The unit of a row of the arrays."""
        point = self.points[bisect_right(list(self.first.values()), row) - 1]
        return Record(self, point, row - self.first[point])

    def __repr__(self) -> str:
        return f"<atlas of {len(self):,} units at {len(self.points)} points, {self.tokens:,} tokens: {self.path}>"


def open_atlas(path: str | Path) -> Atlas:
    """An atlas from disk; needs no server.

    Raises:
        BadData: there is none, or of a newer format.
        BadRequest: this is an address; its files are mapped, which takes a disk.
    """
    path = need_directory(
        path, "An atlas", "Copy its files to a directory, as with fsspec's get, and open that."
    )
    try:
        index = json.loads((path / INDEX).read_text())
        newer = index["format"] > FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} holds no atlas: {error}.", "rmodel.atlas() makes one.") from None
    if newer:
        raise BadData(f"{path} is of format {index['format']}.", "Install a newer garcon-jupyter.")
    return Atlas(path, index)
