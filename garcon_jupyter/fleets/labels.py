"""What a label says: a name for files and servers, and the step of a training run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from garcon_jupyter.errors import BadRequest


def name_of(label: str) -> str:
    """A label as a part of a server's or directory's name: what these cannot have becomes a dash; "" where nothing is left."""
    return re.sub(r"[^\w.@+-]+", "-", label).strip("-")


def servers(fleet: str, labels: Iterable[object]) -> Mapping[str, str]:
    """Names of the members' servers by label.

    Raises:
        BadRequest: a label is no text, or two would name one server.
    """
    found: dict[str, str] = {}
    for label in labels:
        made = name_of(label) if isinstance(label, str) else ""
        if not isinstance(label, str) or not made:
            raise BadRequest(f"{label!r} is no label.", "Give a text, such as 'step512'.")
        server = f"{fleet}.{made}"
        if server in found.values():
            other = next(each for each, taken in found.items() if taken == server)
            raise BadRequest(
                f"The labels {other!r} and {label!r} would both name the server {server}.",
                "Let them differ in letters, digits, or one of . _ - @ +.",
            )
        found[label] = server
    return found


def step_of(label: str) -> int | None:
    """The step of a training run that a label names: 512 of "step512", "checkpoint-512" and "512"; None where there is none.

    Of several numbers it is the one that follows "step", else the only one.
    """
    if named := re.search(r"step[^0-9A-Za-z]*(\d+)", label, re.IGNORECASE):
        return int(named[1])
    numbers = re.findall(r"\d+", label)
    return int(numbers[0]) if len(numbers) == 1 else None


def by_step(labels: Iterable[str]) -> list[str]:
    """Labels in the order of their steps; those without one come last, in their own order."""
    steps = {label: step_of(label) for label in labels}
    return sorted(steps, key=lambda label: (steps[label] is None, steps[label] or 0))
