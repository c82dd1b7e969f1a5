"""Explanations beside an atlas: kept in its directory, found by unit and by words.

``explanations/`` in the atlas's directory (or another, with ``where=``) holds two files of checked lines: ``answers.jsonl``, what language models answered, by
which a run goes on; and ``scored.jsonl``, the explanations with their scores, of which the last counts. An atlas that is made anew in the same
directory has none of them: they are of other data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from garcon_jupyter.atlas.files import Atlas
from garcon_jupyter.explanations.asking import AnswerStore
from garcon_jupyter.explanations.checked_lines import CheckedLines
from garcon_jupyter.explanations.json_values import as_json, from_json
from garcon_jupyter.explanations.records.excerpts import digest_of
from garcon_jupyter.explanations.results import ScoredExplanation

FOLDER = "explanations"
ANSWERS = "answers.jsonl"
SCORED = "scored.jsonl"


class ExplanationStore:
    """The explanations that are kept in a directory.

    Args:
        directory: where; it need not exist yet.
        atlas: digest of the atlas that they are of; "" for any.

    Attributes:
        damaged: lines that could not be read.
        stale: explanations that are of another atlas, and not shown.

    Examples:
        >>> store = open_explanations(atlas)                    # doctest: +SKIP
        >>> store.search("capital")                             # doctest: +SKIP
        >>> store.of("layers.4.mlp.post_activation", 17)[0].scores  # doctest: +SKIP
    """

    def __init__(self, directory: str | Path, atlas: str = "") -> None:
        self.directory, self.atlas = Path(directory).expanduser(), atlas
        self._file = CheckedLines(self.directory / SCORED)
        self._found: dict[tuple[object, ...], ScoredExplanation] = {}
        rows, self.damaged = self._file.read()
        self.stale = 0
        for row in rows:
            self._take(from_json(ScoredExplanation, row))

    def answers(self) -> AnswerStore:
        """What language models answered, by which a run goes on."""
        return AnswerStore(CheckedLines(self.directory / ANSWERS))

    def add(self, scored: Iterable[ScoredExplanation]) -> None:
        """Keep explanations, now.

        Raises:
            BadData: the directory cannot be written.
        """
        rows = list(scored)
        if rows:
            self._file.add(as_json(one) for one in rows)
        for one in rows:
            self._take(one)

    def _take(self, one: ScoredExplanation) -> None:
        if self.atlas and one.atlas and one.atlas != self.atlas:
            self.stale += 1
            return
        said = one.explanation
        by = (one.judge, one.simulation and one.simulation.method)
        key = (said.point, said.unit, said.text, said.model, said.prompt, by)
        self._found.pop(key, None)  # the last one counts, and stands last
        self._found[key] = one

    def all(self) -> list[ScoredExplanation]:
        """All of them, in the order in which they were kept."""
        return list(self._found.values())

    def of(self, point: str, unit: int) -> list[ScoredExplanation]:
        """Those of a unit, the newest first."""
        mine = [
            one
            for one in self._found.values()
            if (one.explanation.point, one.explanation.unit) == (point, unit)
        ]
        return mine[::-1]

    def search(self, words: str) -> list[ScoredExplanation]:
        """Explanations in which all these words occur, or words that begin so; those that say them in a row first.

        Args:
            words: with spaces between; large and small letters are alike.
        """
        wanted = words.casefold().split()
        if not wanted:
            return []
        found = [one for one in self._found.values() if _has(one.explanation.text, wanted)]
        phrase = " ".join(wanted)
        return sorted(
            found, key=lambda one: phrase not in " ".join(one.explanation.text.casefold().split())
        )

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        return f"<{len(self):,} explanations in {self.directory}>"


def _has(text: str, wanted: Sequence[str]) -> bool:
    there = "".join(c if c.isalnum() else " " for c in text.casefold()).split()
    return all(
        any(word.startswith(one.strip(".,;:!?\"'")) for word in there) or one in text.casefold()
        for one in wanted
    )


def open_explanations(atlas: Atlas, where: str | Path | None = None) -> ExplanationStore:
    """The explanations of an atlas.

    Args:
        atlas: that they are of.
        where: the directory; by default ``explanations`` in the atlas's own.
    """
    directory = atlas.path / FOLDER if where is None else where
    return ExplanationStore(directory, digest_of(atlas.index))
