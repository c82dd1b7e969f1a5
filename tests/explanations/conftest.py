"""Units with known values, and language models that are functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from garcon_jupyter.explanations import Excerpt, FunctionModel, UnitExcerpts, parted
from garcon_jupyter.explanations.prompts import written
from garcon_jupyter.explanations.records.excerpts import levels

LARGEST = 20.0

WORDS = ["the", "cat", "dog", "ran", "far", "red", "blue", "stone", "river", "sings"]


def made_excerpts(
    count: int, length: int = 12, seed: int = 0, strong: bool = True
) -> list[Excerpt]:
    """Texts that are all different, on whose tokens a unit has multiples of a tenth of its largest value."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        tokens = tuple(
            f" {WORDS[int(w)]}{seed}x{n}y{k}" for k, w in enumerate(rng.integers(0, 10, length))
        )
        known = rng.integers(1, 11, length) * (rng.random(length) < (0.4 if strong else 0.1))
        if strong:
            known[int(rng.integers(length))] = 10
        values = tuple((known * LARGEST / 10).tolist())
        found.append(Excerpt(tokens, values, document=n + 1000 * seed, first=0))
    return found


def made_record(
    unit: int = 0, point: str = "layers.0.mlp.post_activation", **more: int
) -> UnitExcerpts:
    """A unit whose values are exactly its levels times two."""
    seed = 10 * unit
    length = more.get("length", 12)
    top = made_excerpts(more.get("top", 20), length, seed + 1)
    sample = made_excerpts(more.get("sample", 18), length, seed + 2, strong=False)
    return parted(point, unit, top, sample, largest=LARGEST)


@pytest.fixture
def record() -> UnitExcerpts:
    """One such unit."""
    return made_record()


def known_levels(*records: UnitExcerpts) -> dict[tuple[str, ...], list[int]]:
    """The levels of all texts of units, by their tokens as they are written."""
    return {
        tuple(map(written, one.tokens)): levels(one.values, record.largest)
        for record in records
        for part in (record.train, record.calibration, record.valid, record.test)
        for one in part
    }


def asked_tokens(messages: Sequence[Any]) -> tuple[str, ...]:
    """The tokens that a prompt for JSON is about."""
    return tuple(json.loads(messages[-1]["content"].split("\nTokens: ", 1)[1]))


def asked_explanation(messages: Sequence[Any]) -> str:
    """The explanation that a prompt of a simulator is about."""
    found = re.search(r"The unit fires for: (.*)", messages[-1]["content"])
    assert found
    return found[1]


def as_reply(tokens: Sequence[str], known: Sequence[float]) -> str:
    """Levels as a model should write them."""
    rows = zip(tokens, known, strict=True)
    return json.dumps({"levels": [{"token": t, "level": level} for t, level in rows]})


def simulating(
    answer: Callable[[tuple[str, ...], str], str], name: str = "fake", **more: Any
) -> FunctionModel:
    """A model that explains by "a thing", and simulates by a function of tokens and explanation."""

    def said(messages: Sequence[Any]) -> str:
        if "\nTokens: " not in messages[-1]["content"]:
            return "a thing"
        return answer(asked_tokens(messages), asked_explanation(messages))

    return FunctionModel(said, name=name, **more)


def perfect(*records: UnitExcerpts, name: str = "perfect") -> FunctionModel:
    """A model that knows the levels of all texts of units."""
    known = known_levels(*records)
    return simulating(lambda tokens, explanation: as_reply(tokens, known[tokens]), name)


def rating(
    rate: Callable[[Sequence[str]], Sequence[Sequence[float]]], **more: Any
) -> FunctionModel:
    """A model that explains by "a thing", and rates levels by a function of the tokens: probabilities [token][level]."""

    def score(pieces: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        tokens = [piece.removesuffix("\t").removeprefix("unknown\n") for piece in pieces]
        tokens[0] = tokens[0].rsplit("\n", 1)[1]
        with np.errstate(divide="ignore"):
            return np.log(np.asarray(rate(tokens), float))

    more.setdefault("tokenize", lambda text: re.findall(r"\t|10|\d|[^\t\d]+", text))
    return FunctionModel(lambda messages: "a thing", score, **more)
