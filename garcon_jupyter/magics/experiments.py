"""The experiments as words after ``%garcon``: each is a thin line over the function of its name.

One is added by a parser that declares its arguments, a function that calls the experiment with them, and a row of :data:`EXPERIMENTS`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.magics.parser import Parser

if TYPE_CHECKING:
    from garcon_jupyter.magics.current import Current
    from garcon_jupyter.model import RemoteModel

VARIABLE = "found"
"""The notebook's variable that what was found is put into."""


@dataclass(frozen=True)
class ExperimentWord:
    """An experiment as a word after ``%garcon``.

    Attributes:
        parser: its word, its arguments and their help.
        run: calls it.
    """

    parser: Parser
    run: Callable[[RemoteModel, argparse.Namespace], Any]

    @property
    def word(self) -> str:
        """What is written after ``%garcon``."""
        return self.parser.prog.removeprefix("%garcon ")

    def __call__(self, current: Current, given: argparse.Namespace) -> None:
        """Run it on the current model, show what it found, and put it into the variable ``found``."""
        from IPython.display import display

        found = self.run(current.model(), given)
        current.variables[VARIABLE] = found
        display(found.show())


def _composition() -> Parser:
    parser = Parser(
        "%garcon composition",
        "Show how much each head reads of what each earlier head writes, from the weights alone,\n"
        "and put it into the variable found.",
        epilog="In Python: found = rmodel.experiments.composition(KIND)",
    )
    parser.add_argument(
        "kind",
        metavar="KIND",
        nargs="?",
        default="K",
        choices=("Q", "K", "V"),
        help="with its queries, keys or values: Q, K or V (default: K)",
    )
    return parser


EXPERIMENTS: tuple[ExperimentWord, ...] = (
    ExperimentWord(_composition(), lambda model, given: model.experiments.composition(given.kind)),
)
"""All of them, in the order of their help."""
