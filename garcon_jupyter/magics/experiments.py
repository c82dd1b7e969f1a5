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


def _pair(parser: Parser) -> None:
    """Two texts, and what is measured of them."""
    parser.add_argument("clean", metavar="CLEAN", help="a text, in quotes")
    parser.add_argument("corrupted", metavar="CORRUPTED", help="one of equally many tokens")
    parser.add_argument(
        "--answers",
        metavar=("A", "B"),
        nargs=2,
        help='the token that answers each, as in " Mary" " John" (default: what the model predicts)',
    )


def _axes(parser: Parser, default: str) -> None:
    parser.add_argument(
        "--by",
        type=_names,
        default=_names(default),
        metavar="AXES",
        help=f"axes of cells: layer, position, head, kv_head (default: {default})",
    )
    parser.add_argument(
        "--noise", action="store_true", help="patch the clean run with the corrupted"
    )


def _patch() -> Parser:
    parser = Parser(
        "%garcon patch",
        "Patch every cell of a sweep, one at a time, and show how much of the answer it changes.",
        epilog="In Python: found = rmodel.experiments.patch(CLEAN, CORRUPTED, POINTS, by=AXES, …)",
    )
    _pair(parser)
    parser.add_argument("points", metavar="POINTS", help="a pattern, such as layers.*.attn.z")
    _axes(parser, "layer,position")
    parser.add_argument("--exact", action="store_true", help="a whole forward for each cell")
    return parser


def _path_patch() -> Parser:
    parser = Parser(
        "%garcon path-patch",
        "Patch what each sender tells a receiver directly, all between held at what it adds.",
        epilog="In Python: found = rmodel.experiments.path_patch(CLEAN, CORRUPTED, SENDERS, RECEIVER, …)",
    )
    _pair(parser)
    parser.add_argument("senders", metavar="SENDERS", help="a pattern, such as layers.*.attn.z")
    parser.add_argument(
        "--to",
        default="logits",
        type=_receiver,
        metavar="POINT[:HEADS]",
        help="such as layers.23.attn.v:1 or layers.20.mlp.in (default: logits)",
    )
    _axes(parser, "layer,head")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _receiver(text: str) -> str | dict[str, list[int]]:
    point, colon, heads = text.partition(":")
    return {point: [int(head) for head in heads.split(",")]} if colon else point


def _run_patch(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.patch(
        given.clean,
        given.corrupted,
        given.points,
        by=given.by,
        answers=given.answers,
        denoise=not given.noise,
        exact=given.exact,
    )


def _run_path_patch(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.path_patch(
        given.clean,
        given.corrupted,
        given.senders,
        given.to,
        by=given.by,
        answers=given.answers,
        denoise=not given.noise,
    )


EXPERIMENTS: tuple[ExperimentWord, ...] = (
    ExperimentWord(_patch(), _run_patch),
    ExperimentWord(_path_patch(), _run_path_patch),
    ExperimentWord(_composition(), lambda model, given: model.experiments.composition(given.kind)),
)
"""All of them, in the order of their help."""
