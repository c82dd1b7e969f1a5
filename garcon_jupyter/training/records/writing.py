"""Writing a record, step by step: what a step's line of the journal says, and the numbers beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from garcon_jupyter.errors import BadData, BadRequest
from garcon_jupyter.training.records import chunks
from garcon_jupyter.training.records.chunks import Forms
from garcon_jupyter.training.records.files import (
    FORMAT,
    JOURNAL,
    MANIFEST,
    Line,
    RecordFiles,
    WritingLock,
    cut,
    line_of,
    lines_in,
    manifest_of,
    replace,
)

DATA = "data.jsonl"
"""The side table: tokens of each datum, in the form of a journal."""

Array = np.ndarray[Any, Any]


class RecordWriter:
    """Appends steps to a record.

    Args:
        path: its directory.
        manifest: what ``record.json`` says, without the format.
        forms: of the outliers.
        steps: how many steps a chunk has.
        start: the first step that will be written; what is there of it and of later ones is given up.

    Raises:
        BadData: there is a record already and no step was given, or of something else.
    """

    def __init__(
        self, path: Path, manifest: Line, forms: Forms, steps: int, start: int | None
    ) -> None:
        self.path, self.forms, self.steps = path, forms, steps
        self.manifest = {"format": FORMAT, **manifest, "steps": steps}
        self._lines: list[Line] = []
        self._known: dict[int, list[int]] = {}
        self.files = RecordFiles(path)
        there = (path / MANIFEST).exists()
        if not there:
            self._begin(start)
        self._lock = WritingLock(path)
        if there:
            try:
                self._go_on(start)
            except BaseException:
                self._lock.release()
                raise

    def _begin(self, start: int | None) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            other = any(self.path.iterdir())
        except OSError as error:
            raise BadData(f"{self.path} cannot be written: {error}.", "Give another.") from None
        if other:
            raise BadData(f"{self.path} holds something else.", "Give a new directory.")
        if start:
            raise BadData(
                f"{self.path} holds no record that step {start} could follow.",
                "Leave step out, or give the directory that was recorded in.",
            )
        replace(self.path / MANIFEST, json.dumps(self.manifest, indent=1).encode())

    def _go_on(self, start: int | None) -> None:
        told = manifest_of(self.path)
        if start is None:
            raise BadData(
                f"{self.path} holds a record already.",
                "Give step=… to go on from the trainer's checkpoint, or a new directory.",
            )
        differing = [
            key for key in {*told, *self.manifest} if told.get(key) != self.manifest.get(key)
        ]
        if differing:
            raise BadData(
                f"The record in {self.path} was made with other settings: {', '.join(sorted(differing))}.",
                "Go on with the same model and arguments, or in a new directory.",
            )
        kept, sealed = self._kept_before(start)
        self._restore(start, kept, sealed)

    def _kept_before(self, start: int) -> tuple[list[Line], dict[int, Line]]:
        lines = [content for content, _ in lines_in(self.path / JOURNAL)]
        steps = [line["step"] for line in lines if line["kind"] == "step"]
        following = max(steps, default=-1) + 1
        if start > following:
            raise BadData(
                f"The record in {self.path} ends before step {following}, and {start} would follow.",
                f"Go on from a checkpoint of the trainer at step {following} or before.",
            )
        kept = [line for line in lines if line["kind"] != "chunk" and line["step"] < start]
        return kept, {line["chunk"]: line for line in lines if line["kind"] == "chunk"}

    def _restore(self, start: int, kept: list[Line], sealed: dict[int, Line]) -> None:
        """Bring the files to where they were before a step."""
        at = start // self.steps
        still = {number: line for number, line in sealed.items() if number < at}
        ours = [
            line for line in kept if line["kind"] == "step" and line["step"] // self.steps == at
        ]
        if at in sealed and ours:
            content = chunks.unseal(self.path, self.forms, sealed[at], ours)
            replace(self.path / chunks.opened(at), content)
        journal: list[Line] = []
        for line in kept:  # a complete chunk's line stands behind those of its steps
            done = [n for n in still if n < line["step"] // self.steps]
            journal += [still.pop(number) for number in sorted(done)]
            journal.append(line)
        journal += [still[number] for number in sorted(still)]
        replace(self.path / JOURNAL, b"".join(line_of(line) for line in journal))
        for file in (self.path / "chunks").glob("*"):
            number = int(file.name.partition(".")[0])
            if number > at or (number == at and (file.suffix != ".open" or not ours)):
                file.unlink()
        ends: dict[str, int] = {}
        for line in kept:
            for name, (first, count, _) in line.get("streams", {}).items():
                ends[name] = first + count
        if ours:
            ends[chunks.opened(at)] = sum(ours[-1]["outliers"][:2])
        names = [file.name for file in self.path.glob("*.f4")]
        cut(self.path, [*names, *([chunks.opened(at)] if ours else [])], ends)
        self._restore_data(kept)
        stopped_in = sorted({line["step"] // self.steps for line in kept if line["kind"] == "step"})
        for number in stopped_in:  # the process died between a chunk's last step and its completion
            if number < at and number not in sealed:
                self._lines = [
                    each
                    for each in kept
                    if each["kind"] == "step" and each["step"] // self.steps == number
                ]
                self._seal()
        self._lines = ours

    def _restore_data(self, kept: Sequence[Line]) -> None:
        """Keep the tokens of the data that steps before have named, in their order."""
        named = {each for line in kept for each in line.get("data", ())}
        lines = [line for line, _ in lines_in(self.path / DATA) if line["id"] in named]
        replace(self.path / DATA, b"".join(line_of(line) for line in lines))
        self._known = {line["id"]: line["tokens"] for line in lines}

    # -- steps -------------------------------------------------------------------------------

    def note(self, step: int, text: str, **more: Any) -> None:
        """A line that is no step: what happened instead."""
        self.files.tell({"kind": "note", "step": step, "text": text, **more})

    def tokens(self, datum: int, tokens: list[int]) -> bool:
        """Keep the tokens of a datum, once.

        Returns:
            Whether they are those that it had before.
        """
        if datum in self._known:
            return self._known[datum] == tokens
        self._known[datum] = tokens
        self.files.append(DATA, line_of({"id": datum, "tokens": tokens}))
        return True

    def step(
        self,
        step: int,
        data: Sequence[int],
        outliers: Sequence[Array],
        streams: Mapping[str, Array],
        facts: Line,
    ) -> None:
        """Write a step, whole or not at all.

        Args:
            step: its number; it is above those of all that are there.
            data: ids.
            outliers: of each datum, in the form of an open chunk.
            streams: other numbers by the name of their stream.
            facts: what else the journal says.

        Raises:
            BadData: there is no room, or the step is there.
        """
        number = step // self.steps
        if self._lines and self._lines[-1]["step"] >= step:
            raise BadRequest(
                f"Step {step} does not follow {self._lines[-1]['step']}.",
                "Steps are recorded in their order.",
            )
        if self._lines and self._lines[-1]["step"] // self.steps != number:
            self._seal()
        written = {
            name: self.files.append(name, np.ascontiguousarray(array, "<f4").tobytes())
            for name, array in streams.items()
        }
        content = b"".join(each.tobytes() for each in outliers)
        line: Line = {
            "kind": "step",
            "step": step,
            "data": list(data),
            "counts": [len(each) for each in outliers],
            "outliers": self.files.append(chunks.opened(number), content),
            "streams": written,
            **facts,
        }
        self.files.tell(line)
        self._lines.append(line)
        if (step + 1) % self.steps == 0:
            self._seal()

    def _seal(self) -> None:
        number = self._lines[0]["step"] // self.steps
        self.files.tell(chunks.seal(self.files, self.forms, number, self._lines))
        self.files.forget(chunks.opened(number))
        self._lines = []

    def close(self) -> None:
        """Close the files; a chunk that is not complete stays open."""
        self.files.close()
        self._lock.release()
