"""Explanations as a unit's page says them, and as a table."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from garcon_jupyter.atlas.files import Atlas, Record
from garcon_jupyter.display.html import STYLE
from garcon_jupyter.explanations.keeping import FOLDER, SCORED, ExplanationStore, open_explanations
from garcon_jupyter.explanations.results import ExplainedUnits, Explanation, ScoredExplanation
from garcon_jupyter.explanations.scoring.scores import Score

SHOWN = ("correlation", "detection", "fuzzing", "intruder", "pairs")
"""Scores that a unit's page has room for."""

_read: dict[Path, tuple[float, ExplanationStore]] = {}
"""Explanations by their directory, with when the file was written: pages are turned, and the file is read once."""


def kept(atlas: Atlas) -> ExplanationStore | None:
    """The explanations that lie beside an atlas; None where there are none."""
    file = atlas.path / FOLDER / SCORED
    try:
        when = file.stat().st_mtime_ns
    except OSError:
        return None
    found = _read.get(file)
    if found is None or found[0] != when:
        found = (when, open_explanations(atlas))
        _read[file] = found
    return found[1]


def of_unit(record: Record) -> list[dict[str, str]]:
    """What a unit's page says of it: the newest explanation first."""
    store = kept(record._atlas)
    if store is None:
        return []
    return [
        {"text": one.explanation.text, "by": one.explanation.model, "scores": in_words(one)}
        for one in store.of(record.point, record.unit)
    ]


def search(atlas: Atlas, words: str) -> list[Explanation]:
    """Explanations of units of an atlas that say these words."""
    store = kept(atlas)
    found = [] if store is None else [one.explanation for one in store.search(words)]
    return [one for one in found if one.unit < atlas.units.get(one.point, 0)]


def in_words(one: ScoredExplanation) -> str:
    """The scores of an explanation, each beside those of other units' explanations."""
    told = []
    for name, score in one.scores.items():
        if name in SHOWN:
            told.append(f"{name} {_with_others(one, name, score)}")
    return ", ".join(told)


def _with_others(one: ScoredExplanation, name: str, score: Score) -> str:
    if score.value is None:
        return "undefined"
    values = [control.scores[name].value for control in one.controls if name in control.scores]
    others = ", ".join("undefined" if value is None else f"{value:.2f}" for value in values)
    return f"{score.value:.2f} (others' {others})" if others else f"{score.value:.2f}"


def html(found: ExplainedUnits) -> str:
    """What a run came to, as a table."""
    rows = []
    for one in found.scored:
        said = one.explanation
        failed = [a for a in _attempts(one) if a]
        rows.append([f"{said.point} {said.unit}", said.text, in_words(one), "; ".join(failed)])
    rows += [[f"{one.point} {one.unit}", "", one.reason, ""] for one in found.unexplained]
    names = ("unit", "fires for", "scores, and others'", "failed")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    asked = f'<div class="soft">Asked: {escape(str(found.cost))}.</div>'
    return f'{STYLE}<div class="garcon-table">{table}{asked}</div>'


def _attempts(one: ScoredExplanation) -> list[str]:
    known: dict[str, Any] = {kind: j.attempts for kind, j in one.judgements.items()}
    if one.simulation:
        known["simulation"] = one.simulation.attempts
    return [f"{kind}: {told}" for kind, told in known.items() if told.failed]
