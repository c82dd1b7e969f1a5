"""The formats of dictionaries, as the table that reads them has them."""

from __future__ import annotations

from docs.tables import table
from garcon_backend.dictionaries.formats import FORMATS, Format
from garcon_jupyter.dictionaries import formula


def section() -> str:
    """What of each format is read, with its formula, and what is not."""
    return "\n".join(["## Formats\n", *map(of_format, FORMATS)])


def of_format(of: Format) -> str:
    """One format: its files, its classes, and what each computes where its configuration says nothing else."""
    rows = [(f"`{kind}`", f"`{_cell(formula(form, 'D'))}`") for kind, form in of.kinds.items()]
    parts = [
        f"### {of.name}\n",
        f"{of.files}. Held against {of.library}.\n",
        table(("Class", "Formula"), rows),
    ]
    if of.refused:
        parts.append(
            table(("Not read", "Why"), [(f"`{kind}`", why) for kind, why in of.refused.items()])
        )
    return "\n".join(parts)


def _cell(text: str) -> str:
    """A bar would end the cell of a table."""
    return text.replace("|", "\\|")
