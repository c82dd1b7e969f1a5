"""What chance would have found, beside what was found.

The strongest of many numbers looks strong by chance alone, and who looks often finds something. So each table of effects comes with what random
units of the same layers do at the same places, and each patch and attribution with what the same cells do when what they are
given is of an unrelated text.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from garcon_jupyter.agents.estimates import CONTROL_UNITS
from garcon_jupyter.agents.kept_arrays import number, statistics
from garcon_jupyter.errors import BadRequest
from garcon_jupyter.experiments.unit_effects.ablations import ablated
from garcon_jupyter.experiments.unit_effects.gradient_pass import PlacedUnit
from garcon_jupyter.experiments.unit_effects.writers import UnitWriter, writers_of
from garcon_jupyter.operations import analyses
from garcon_jupyter.operations.analyses import ResultAnswer
from garcon_jupyter.operations.operation import Door
from garcon_jupyter.operations.passes import spliced
from garcon_jupyter.operations.prompts import read_one, single_ids

TRIES = 5
"""Random texts that are tried until one has an answer of its own."""


def control(at: Door, name: str, asked: Any, found: ResultAnswer, seed: int) -> dict[str, Any]:
    """The control of an answer, of an operation that has one.

    Args:
        seed: of what is drawn.
    """
    return {"seed": seed, **CONTROLS[name](at, asked, found, seed)}


def _random_units(at: Door, asked: Any, found: ResultAnswer, seed: int) -> dict[str, Any]:
    """Units of the same layers, drawn, set to 0 at the positions of the strongest: exact total effects."""
    draw, writers = random.Random(seed), writers_of(at.model, asked.of)
    names, total = found.axes["unit"], np.abs(found.more["total effect"].numpy())
    places = np.argwhere(np.isfinite(total))
    places = places[np.argsort(-total[tuple(places.T)], kind="stable")][:CONTROL_UNITS]
    drawn, words = [], []
    for row, position in places.tolist():
        writer = _writer(writers, str(names[row]))
        size = at.model.catalog.shape(at.model.catalog.point(writers[writer].point))[2]
        taken = {str(name) for name in names}
        label = writers[writer].label
        free = [n for n in range(int(size)) if f"{label}{n}" not in taken] or [*range(int(size))]
        unit = draw.choice(free)
        drawn.append(PlacedUnit(writer, position, unit, 0, 0, 0, 0))
        words.append({"unit": f"{label}{unit}", "position": position})
    tokens = read_one(at, asked.prompt)
    with spliced(at, asked.splice):
        lost, _ = ablated(at.model, tokens, _metric(at, asked, found, tokens), writers, drawn)
    effects = [number(value) for value in lost.tolist()]
    return {
        "what": "total effect of random units of the same layers, which are not among those told, each set to 0 at the position of one that is",
        "units": [
            {**word, "total effect": value} for word, value in zip(words, effects, strict=True)
        ],
        "largest": number(np.abs(lost.numpy()).max()),
        "largest found": number(np.nanmax(total)),
    }


def _writer(writers: list[UnitWriter], name: str) -> int:
    """The number of the writer that a unit is of."""
    fitting = [n for n, each in enumerate(writers) if name.startswith(each.label)]
    return max(fitting, key=lambda n: len(writers[n].label))


def _metric(at: Door, asked: Any, found: ResultAnswer, tokens: Any) -> Callable[[Any], Any]:
    """What was measured: of each row of logits [row, p, V]."""
    if asked.targets:
        targets, others = (
            single_ids(at, given, tokens) for given in (asked.targets, asked.distractors)
        )
    else:
        targets, others = found.facts["answers"][:1], found.facts["answers"][1:]

    def metric(logits: Any) -> Any:
        last = logits[:, -1].float()
        value = last[:, targets].mean(1)
        return value - last[:, others].mean(1) if others else value

    return metric


def _unrelated(at: Door, asked: Any, found: ResultAnswer, seed: int) -> dict[str, Any]:
    """The same cells, given values of random tokens: as shares of what was measured."""
    ids = at.model.encode(asked.clean) if isinstance(asked.clean, str) else asked.clean
    first, *others = np.asarray(ids).ravel().tolist()
    given = "clean" if getattr(asked, "denoise", True) else "corrupted"
    other = asked.corrupted if given == "clean" else asked.clean
    clean, corrupted = (float(found.more[end].numpy()) for end in ("clean", "corrupted"))
    answers = asked.answers or [word for pair in found.facts["answers"] for word in pair]
    for attempt in range(TRIES):
        draw = random.Random(f"{seed} {attempt}")
        size = at.model.catalog.sizes["V"]
        drawn = [first, *(draw.randrange(size) for _ in others)]
        request = asked.model_copy(
            update={given: drawn, "answers": answers, "form": "base64", **_no_check(asked)}
        )
        try:
            made = _run(at, found.experiment, request)
        except BadRequest:  # the texts have the same answer, so that there are no shares
            continue
        if "metric" in made.more:
            metric = made.more["metric"].numpy()
            shares = (metric - corrupted) / (clean - corrupted)
        else:
            ends = [float(made.more[end].numpy()) for end in ("clean", "corrupted")]
            shares = made.values.numpy() * (ends[0] - ends[1]) / (clean - corrupted)
        words = at.model.token_strings([drawn])[0]
        rest = 0.0 if given == "clean" else 1.0
        strongest = np.nanmax(np.abs(shares - rest)) if np.isfinite(shares).any() else None
        return {
            "what": f"the same cells, given what they are in an unrelated text in place of the {given} one; shares of the same difference",
            "text": "".join(words),
            "statistics": statistics(shares),
            "largest": number(strongest),
            "largest found": number(np.nanmax(np.abs(found.values.numpy() - rest))),
            "other text": other if isinstance(other, str) else "as given",
        }
    return {"what": "none: random texts have the same answer as the given ones"}


def _no_check(asked: Any) -> dict[str, Any]:
    return {"check": 0} if "check" in type(asked).model_fields else {}


def _run(at: Door, name: str, asked: Any) -> ResultAnswer:
    return analyses.patch.work(at, asked) if name == "patch" else analyses.attribute.work(at, asked)


CONTROLS: dict[str, Callable[[Door, Any, ResultAnswer, int], dict[str, Any]]] = {
    "effects": _random_units,
    "patch": _unrelated,
    "attribute": _unrelated,
}
"""Of each operation that has one."""
