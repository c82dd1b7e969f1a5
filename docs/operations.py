"""The operations as the page on HTTP tells them: read from their table."""

from __future__ import annotations

from docs.tables import table
from garcon_jupyter.operations.edits import KINDS
from garcon_jupyter.operations.failures import STATUSES
from garcon_jupyter.operations.openapi import COMMON
from garcon_jupyter.operations.readings import REDUCTIONS
from garcon_jupyter.operations.table import SUBJECTS


def section() -> str:
    """All operations by subject, what can be read and edited, and what errors there are."""
    parts = []
    for subject, several in SUBJECTS.items():
        rows = [(f"`{each.name}`", each.what, f"{each.cost}{_notes(each)}") for each in several]
        parts.append(f"### {subject}\n\n" + table(("Operation", "What it does", "Cost"), rows))
    kinds = [(f"`{kind}`", what) for kind, what in KINDS.items()]
    parts.append("### What an edit does\n\n" + table(("`kind`", "The value becomes"), kinds))
    reductions = [(f"`{name}`", what) for name, what in REDUCTIONS.items()]
    parts.append("### What a read answers\n\n" + table(("`reduce`", "Of the value"), reductions))
    parts.append(
        "### Statuses\n\n" + table(("Status", "When", "Errors"), sorted(map(_status, COMMON)))
    )
    return "\n".join(parts)


def _notes(each: object) -> str:
    said = [f"streams {each.streams}"] * bool(each.streams)  # type: ignore[attr-defined]
    said += ["steers what others began"] * (each.permission == "steer")  # type: ignore[attr-defined]
    return f" ({'; '.join(said)})" if said else ""


def _status(status: int) -> tuple[str, str, str]:
    kinds = [f"`{kind.__name__}`" for kind, code in STATUSES.items() if code == status]
    return str(status), COMMON[status], ", ".join(kinds)
