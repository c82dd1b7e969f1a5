"""Features on a disk that fills up again and again: ``python -m tests.features.on_a_small_disk DISK STORE DICTIONARY EXPECTED``."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import garcon_jupyter as garcon
from garcon_jupyter.activation_stores import open_store
from garcon_jupyter.features import FeaturesPlan
from tests.features.conftest import LATENTS, content, made, sharded
from tests.small_disks import fill, filler

BETWEEN = 9_000_000
"""Bytes between the passes, more or less."""


def main(disk: Path, store: str, dictionary: Path, expected: str) -> None:
    acts = open_store(store)
    four = sharded(acts, LATENTS, 2, 2, 2)
    four = replace(four, written=four.written + BETWEEN)
    for name, plan in (("four", four), ("one", None)):
        lives = filled_up(acts, disk / name, dictionary, plan, expected)
        print(name, lives)


def filled_up(
    acts: garcon.ActivationStore, out: Path, path: Path, plan: FeaturesPlan | None, expected: str
) -> int:
    """How often the disk was full before they were made; each time there is room for another task, and for a part of the next."""
    for life in itertools.count():
        with filler(out.parent) as file:
            lines = itertools.count(1)

            def told(line: str, file: Path = file, life: int = life) -> None:
                if next(lines) == 1 + life:  # noqa: B023 - of this life
                    fill(file, (0, 9000, 60_000, 300_000)[life % 4])

            try:
                atlas = made(acts, out, path, plan, progress=told)
            except garcon.DoesNotFit as error:
                assert "are missing" in str(error) and "goes on" in str(error), error
                assert not list(out.rglob("*.writing")), "half a file was left"
                assert not (out / "atlas.json").exists()
            else:
                assert content(atlas) == expected and not (out / ".between").exists()
                return life
        assert life < 40
    raise AssertionError


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
