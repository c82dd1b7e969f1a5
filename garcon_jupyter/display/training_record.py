"""Pictures of a record of a training: how it goes and where outliers fall, and what moved a neuron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.training.opened import TrainingRecord, open_record
from garcon_jupyter.widgets import Flip, GridWidget, MovesWidget, NeuronMoves, RunWidget, Sheet, svg
from garcon_jupyter.widgets.curves import NamedCurve, curves

if TYPE_CHECKING:
    from garcon_jupyter.training.questions.ablation import FlipTable

MOST_COLUMNS = 40
"""Stretches of time of a picture."""

TOKENS, FLIPS, PLACES = 12, 12, 4
"""Tokens of a neuron, flips, and places of each that are shown."""


def overview(record: TrainingRecord) -> RunWidget:
    """How a training goes: its curves, and where outliers fall; it follows a training that goes on."""
    path = record.path

    def poll() -> dict[str, Any]:
        now = open_record(path)
        steps = f"{len(now.steps):,} steps, {now.occurrences:,} data"
        state = "running" if now.live else "done"
        words = f"{steps}, goes on" if now.live else steps
        return {
            "state": state,
            "fraction": None if now.live else 1,
            "over": not now.live,
            "words": words,
        }

    def draw() -> str:
        now = open_record(path)
        return _curves(now) + (where(now).still() if now.steps else "")

    widget = RunWidget(poll, None, draw, f"training {path.name}")
    widget.drawn = draw()
    return widget


def _curves(record: TrainingRecord) -> str:
    lines = list(record.steps.values())
    steps = [line["step"] for line in lines]

    def of(name: str, number: Any) -> NamedCurve:
        return NamedCurve(name, steps, [number(line) for line in lines])

    nan = float("nan")
    kinds = [
        of("learning rate", lambda line: (line.get("lr") or [nan])[0]),
        of("factor of clipping", lambda line: nan if line["factor"] is None else line["factor"]),
        of("data of a step", lambda line: len(line["data"])),
    ]
    if any(line.get("losses") for line in lines):
        kinds.insert(0, of("loss", lambda line: float(np.mean(line.get("losses") or nan))))
    title, said = f"training {record.path.name}", f"{len(lines):,} steps"
    return svg.figure(curves(kinds, title, said, "steps"), title, said)


def where(record: TrainingRecord) -> GridWidget:
    """Where outliers fall: weight × time; a selected cell tells the neurons that moved most then."""
    weights, stretches, counts = _counted(record)
    totals = counts.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(totals > 0, counts / totals, np.nan)
    columns = [f"{first:,}" for first, _ in stretches]
    sheets = [
        Sheet(name, values, weights, columns, "weight", "period", "positive")
        for name, values in (("share of the step's outliers", shares), ("outliers", counts))
    ]
    widget = GridWidget(
        sheets,
        f"where outliers fall, {record.path.name}, by the first step of each period",
        hint="Point at a cell; a click tells the neurons that moved most; m for the next sheet.",
    )

    def tell(_change: Any) -> None:
        row, column = widget.selected_row, widget.selected_column
        widget.detail = (
            {} if min(row, column) < 0 else _detail(record, weights[row], stretches[column])
        )

    widget.observe(tell, ["selected_row", "selected_column"])
    return widget


def _counted(
    record: TrainingRecord,
) -> tuple[list[str], list[tuple[int, int]], np.ndarray[Any, Any]]:
    """Weights, stretches of steps (first, last), and the outliers of each, [weight, stretch]."""
    frame = record.where()
    size = record.manifest["steps"]
    joined = -(-len(frame) // MOST_COLUMNS) or 1
    numbers = frame.to_numpy(np.float32)
    starts = [int(first) for first in frame.index]
    groups = range(0, len(starts), joined)
    counts = np.stack([numbers[at : at + joined].sum(0) for at in groups], 1)
    ends = [min(at + joined, len(starts)) - 1 for at in groups]
    stretches = [(starts[at], starts[end] + size - 1) for at, end in zip(groups, ends, strict=True)]
    return [str(name) for name in frame.columns], stretches, counts


def _detail(record: TrainingRecord, unit: str, stretch: tuple[int, int]) -> dict[str, Any]:
    first, last = stretch
    table = record.of_unit(unit)
    table = table.where((table.steps >= first) & (table.steps <= last) & (table.values != 0))
    numbers = table.rows if record.axis(unit, "hidden unit") == 0 else table.columns
    neurons, counts = np.unique(numbers, return_counts=True)
    best = np.argsort(-counts, kind="stable")[:8]
    said = ", ".join(f"{neurons[at]} ({counts[at]:,})" for at in best)
    data = len(np.unique(table.data))
    text = f"{len(table):,} outliers of {data:,} data; hidden units with most: {said or 'none'}"
    return {"title": f"{unit}, steps {first:,} to {last:,}", "text": text}


def neuron(
    record: TrainingRecord,
    unit: str,
    number: int,
    side: str,
    texts: Mapping[int, str],
    flips: FlipTable | None,
    options: Mapping[str, Any],
) -> MovesWidget:
    """What moved a neuron; it follows a training that goes on."""
    if flips is not None and (flips.unit, flips.neuron) != (unit, number):
        raise BadRequest(
            f"The flips are of {flips.unit} {flips.neuron}, and the neuron is {unit} {number}.",
            "Give those of the neuron.",
        )
    path = record.path

    def load(now: TrainingRecord) -> NeuronMoves:
        return moves_of(now, unit, number, side, texts, flips, options)

    title = f"{unit} · {side} {number}"
    return MovesWidget(load(record), title, lambda: load(open_record(path)))


def moves_of(
    record: TrainingRecord,
    unit: str,
    number: int,
    side: str,
    texts: Mapping[int, str],
    flips: FlipTable | None,
    options: Mapping[str, Any],
) -> NeuronMoves:
    """A neuron's moves, of each datum in each step the largest; with tokens and flips."""
    table = record.of_neuron(unit, number, side)
    table = table.where(table.values != 0)
    order = np.lexsort((-np.abs(table.values), table.data, table.steps))
    table = table.where(order)
    pairs = np.stack([table.steps, table.data], 1)
    first = np.flatnonzero(np.any(np.diff(pairs, axis=0, prepend=-1), axis=1))
    best = table.where(first)
    data = best.data.tolist()
    known = record.tokens
    words = {each: [_word(token, texts) for token in known.get(each, ())] for each in set(data)}
    distinct = len(words)
    said = f"{len(table):,} outliers of {distinct:,} data in {len(np.unique(best.steps)):,} steps"
    named = _tokens(record, unit, number, side, texts, options)
    moves = np.column_stack([best.steps, best.values]) if len(best) else np.zeros((0, 2))
    shown = () if flips is None else _flips(flips, texts)
    return NeuronMoves(moves, data, words, named, shown, said, record.live)


def _word(token: int, texts: Mapping[int, str]) -> str:
    return texts.get(token, str(token))


def _tokens(
    record: TrainingRecord,
    unit: str,
    number: int,
    side: str,
    texts: Mapping[int, str],
    options: Mapping[str, Any],
) -> list[tuple[str, float, str]]:
    if not any(record.tokens.values()):
        return []
    found = record.notable_tokens(unit, side=side, **{"neurons": [number], **options}).tokens
    return [
        (
            _word(each.token, texts),
            each.relative,
            f"{each.data} of {each.of} data, z = {each.z:.1f}",
        )
        for each in found[:TOKENS]
    ]


def _flips(flips: FlipTable, texts: Mapping[int, str]) -> list[Flip]:
    found = sorted(flips.tokens, key=lambda each: (-each.flips, each.token))
    made = []
    for each in found[:FLIPS]:
        places = [
            tuple(
                " ".join(_word(token, texts) for token in part)
                if isinstance(part, list)
                else _word(part, texts)
                for part in place
            )
            for place in flips.places(each.token, PLACES)
        ]
        said = f"{each.flips} of {each.predicted}"
        made.append(Flip(_word(each.token, texts), said, places))  # type: ignore[arg-type] # four texts
    return made
