"""``%garcon training``: what a record of a training says, while it is written and after."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.magics.parser import Parser
from garcon_jupyter.training.records.tables import SIDES

if TYPE_CHECKING:
    from garcon_jupyter.magics.current import Current

VARIABLE = "found"
"""The notebook's variable that a record is put into."""


def parser() -> Parser:
    """What can follow the word."""
    made = Parser(
        "%garcon training",
        "Show the record of a training, while it is written and after, and put it into the variable found.\n\n"
        "Alone it shows curves, and where outliers fall; with a weight and a neuron, what moved that.",
        epilog="In Python: found = training.open_record(DIR); found.show(); found.show_neuron(WEIGHT, N, texts=…)",
    )
    made.add_argument("path", metavar="DIR", help="the directory of the record, or {variable}")
    made.add_argument(
        "unit", metavar="WEIGHT", nargs="?", help="name of a recorded weight, or its end"
    )
    made.add_argument("neuron", metavar="N", nargs="?", type=int, help="number of a neuron of it")
    made.add_argument(
        "--channel",
        action="store_true",
        help="N is a channel of the residual stream, not a hidden unit",
    )
    made.add_argument(
        "--texts", metavar="NAME", help="a variable with the texts of tokens, by number"
    )
    made.add_argument("--flips", metavar="NAME", help="a variable with what training.flips found")
    return made


def training(current: Current, given: argparse.Namespace) -> None:
    """Open a record, and show it or one of its neurons."""
    from IPython.display import display

    from garcon_jupyter.training.opened import open_record

    record = open_record(given.path)
    current.variables[VARIABLE] = record
    if given.unit is None:
        display(record.show())
        if record.steps and not record.live:
            display(record.show_where())
        return
    if given.neuron is None:
        table = record.neurons(given.unit, SIDES[given.channel])
        display(table.to_frame().head(20))
        return
    found = record.select(given.unit)
    if len(found) > 1:
        raise BadRequest(
            f"{given.unit} is {len(found)} weights.", f"Give one of {', '.join(found)}."
        )
    texts = variable(current, given.texts)
    flips = variable(current, given.flips)
    side = SIDES[given.channel]
    display(record.show_neuron(found[0], given.neuron, side, texts=texts, flips=flips))


def variable(current: Current, name: str | None) -> Any:
    """A variable of the notebook by its name; None for no name.

    Raises:
        UnknownName: there is none.
    """
    if name is None:
        return None
    if name not in current.variables:
        raise UnknownName.among("variable", name, current.variables)
    return current.variables[name]
