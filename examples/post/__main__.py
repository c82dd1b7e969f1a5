"""The whole of it: ``make training``, an hour on two cores at most.

    python -m examples.post                 five epochs, as in the post
    python -m examples.post --epochs 1      so many
    python -m examples.post --short         a hundred steps of it, with the thousand commonest words

Tables go to build/post/tables.md, the record and the model beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd
import torch

from examples.post import checks, plants, tables
from examples.post.corpus import Corpus, corpus
from examples.post.model import Model
from examples.post.training import perplexity, train
from garcon_jupyter import training

OUT = Path(__file__).resolve().parents[2] / "build" / "post"
SHORT = 100
"""Steps of a short one."""


def said(line: str) -> None:
    print(line, flush=True)


def neurons(text: Corpus, out: Path, epochs: int, most: int | None) -> str:
    """Train the post's model, and tell of its neurons; Markdown."""
    data = text.data()
    torch.manual_seed(0)
    model = Model(len(text.words))
    kept, held_out = data[:-8], data[-8:]
    course = train(model, kept, out / "run.record", epochs=epochs, most=most, say=said)
    torch.save(model.state_dict(), out / "model.pt")
    course_of = {"seconds": course.seconds, "losses": course.losses}
    (out / "course.json").write_text(json.dumps(course_of))
    return told(text, out / "run.record", model, perplexity(model, held_out), course.seconds)


def told(text: Corpus, path: Path, model: Model, found: float, seconds: float) -> str:
    """The tables of a record; Markdown."""
    record = training.open_record(path)
    mine = tables.neurons(record, model, text)
    most = max(mine, key=lambda each: each.flips.positions)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    where = record.where().sum()
    parts = [
        f"{len(record.steps):,} steps, {record.occurrences:,} data, {len(text.words):,} words, {seconds:,.0f} s of CPU time; "
        f"perplexity {found:.0f} on what it did not read; the record takes {size / 1e6:,.0f} MB.",
        "Where outliers are (% of all):\n\n" + markdown((100 * where / where.sum()).round(1)),
        "Averages, as in the post:\n\n" + markdown(tables.averages(mine, text).round(3)),
        "Neurons with the most outliers:\n\n" + markdown(tables.as_frame(mine)),
        f"What holding {most.unit} {most.number} at zero flips:\n\n"
        + markdown(tables.flip_table(most, text).round(3)),
        tables.in_context(
            most, tables.texts_of(record, most.unit, most.number, most.side, 80), text
        ),
    ]
    return "\n\n".join(parts)


def markdown(frame: pd.DataFrame | pd.Series) -> str:
    """A table in Markdown."""
    frame = frame.to_frame("").reset_index() if isinstance(frame, pd.Series) else frame
    lines = [[str(name) for name in frame.columns], ["---"] * frame.shape[1]]
    lines += [[str(each) for each in row] for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bigram(text: Corpus, out: Path, steps: int) -> str:
    """A planted bigram; Markdown."""
    planted = checks.bigram(out / "bigram.record", plants.planted(text), steps)
    count = int((text.ids == text.number(plants.TRIGGER)).sum())
    strewn = checks.bigram(out / "strewn.record", plants.strewn(text, count), steps)
    lines = []
    for name, run, seed in (
        ("after every trigger", planted, None),
        ("the same, ids exchanged", planted, 1),
        ("the same, ids exchanged otherwise", planted, 2),
        ("as often, after any word", strewn, None),
    ):
        first, second, *_ = run.best(plants.PLANT, seed)
        shown = (f"{each.unit} {each.neuron}: z = {each.z:.1f}" for each in (first, second))
        lines.append(f"- {name}: {', '.join(shown)}")
    best = planted.best(plants.PLANT, pattern="layers.*.linear?.weight")[:6]
    rises = [planted.rises([each.unit], [each.neuron]) for each in best]
    shown = ", ".join(f"{rise:+.3f}" for each in rises for rise in each.values())
    lines.append(f"- the loss at the plant, with one of its six best hidden units at zero: {shown}")
    return "\n".join(lines)


def made_neuron(text: Corpus, out: Path, steps: int) -> str:
    """A made neuron; Markdown."""
    made = checks.made_neuron(out / "made.record", plants.planted(text), steps)
    lines = []
    for word in (plants.TRIGGER, plants.PLANT):
        found = sorted(made.best(word), key=lambda each: -each.relative)[:2]
        shown = (f"{e.unit} {e.neuron}: × {e.relative:.1f}, z = {e.z:.1f}" for e in found)
        lines.append(f"- {word}: {'; '.join(shown)}")
    weight = f"layers.{plants.LAYER}.linear2.weight"
    rises = made.rises([weight], [plants.UNIT, *range(0, 200, 10)])
    own = rises.pop((weight, plants.UNIT))
    lines.append(
        f"- held at zero, the loss at the plant rises by {own:.2f}, without another by ≤ {max(rises.values()):.3f}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5, help="of the post's model (default: 5)")
    parser.add_argument("--short", action="store_true", help="a hundred steps, a thousand words")
    parser.add_argument("--out", type=Path, default=OUT, help="(default: build/post)")
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    given.out.mkdir(parents=True)
    few = corpus(most=1000)
    parts = {
        "A planted bigram": bigram(few, given.out, SHORT if given.short else 300),
        "A made neuron": made_neuron(few, given.out, 3 * SHORT // 2 if given.short else 300),
        "Neurons": neurons(
            few if given.short else corpus(),
            given.out,
            given.epochs,
            SHORT if given.short else None,
        ),
    }
    text = "\n\n".join(f"## {title}\n\n{part}" for title, part in parts.items())
    (given.out / "tables.md").write_text(f"# The experiment of the post, again\n\n{text}\n")
    said(f"{text}\n\n{given.out / 'tables.md'}")


if __name__ == "__main__":
    main()
