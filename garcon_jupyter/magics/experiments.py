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


def _connectome() -> Parser:
    parser = Parser(
        "%garcon connectome",
        "Write the strongest connections of every neuron and head, from the weights alone, into a directory,\n"
        "and show how much of all connections they are. What was interrupted goes on.",
        epilog="In Python: found = rmodel.experiments.connectome(PATH, k=K, layers=LAYERS, tokens=True)",
    )
    parser.add_argument("path", metavar="PATH", help="the directory")
    parser.add_argument(
        "--k",
        type=int,
        default=8,
        metavar="K",
        help="connections of each unit of each kind (default: 8)",
    )
    parser.add_argument(
        "--layers", type=_numbers, metavar="LAYERS", help="such as 0,1,2 (default: all)"
    )
    parser.add_argument(
        "--no-tokens", action="store_true", help="without tokens, which take longest"
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


def _attribute() -> Parser:
    parser = Parser(
        "%garcon attribute",
        "Show what each cell would restore of the clean answer, by gradients: all cells in two passes.",
        epilog="In Python: found = rmodel.experiments.attribute(CLEAN, CORRUPTED, POINTS, by=AXES, …)",
    )
    _pair(parser)
    parser.add_argument("points", metavar="POINTS", help="a pattern, such as layers.*.attn.z")
    parser.add_argument(
        "--by",
        type=_names,
        default=("layer", "head"),
        metavar="AXES",
        help="axes of cells: layer, position, head, unit (default: layer,head)",
    )
    parser.add_argument(
        "--method",
        default="corrupted",
        choices=("corrupted", "clean", "mean", "integrated", "layer"),
        help="where the gradient is taken (default: corrupted)",
    )
    parser.add_argument(
        "--check", type=int, default=0, metavar="N", help="patch so many cells exactly beside it"
    )
    return parser


def _attribute_edges() -> Parser:
    parser = Parser(
        "%garcon attribute-edges",
        "Show what each edge from a writer to a reader would restore of the clean answer, by gradients.",
        epilog="In Python: found = rmodel.experiments.attribute_edges(CLEAN, CORRUPTED, …)",
    )
    _pair(parser)
    return parser


def _direct_logit_attribution() -> Parser:
    parser = Parser(
        "%garcon direct-logit-attribution",
        "Show what each part of the model writes to a difference of logits, by its direct way.",
        epilog="In Python: found = rmodel.experiments.direct_logit_attribution(TEXT, answers=…, by=…)",
    )
    parser.add_argument("text", metavar="TEXT", help="in quotes")
    parser.add_argument(
        "--answers",
        metavar=("A", "B"),
        nargs=2,
        help="the tokens whose difference is told (default: the two likeliest)",
    )
    parser.add_argument(
        "--by",
        default="component",
        choices=("component", "layer", "head", "neuron", "position"),
        help="what a part is (default: component)",
    )
    return parser


def _head_scores() -> Parser:
    parser = Parser(
        "%garcon head-scores",
        "Show how much each head attends to the token before, to earlier copies, and to what followed them.",
        epilog="In Python: found = rmodel.experiments.head_scores(rows=N)",
    )
    parser.add_argument(
        "--rows", type=int, default=8, metavar="N", help="texts that repeat (default: 8)"
    )
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


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


def _run_attribute(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.attribute(
        given.clean,
        given.corrupted,
        given.points,
        by=given.by,
        answers=given.answers,
        method=given.method,
        check=given.check,
    )


def _run_connectome(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.connectome(
        given.path, k=given.k, layers=given.layers, tokens=not given.no_tokens
    )


def _run_attribute_edges(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.attribute_edges(given.clean, given.corrupted, answers=given.answers)


def _run_direct_logit_attribution(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.direct_logit_attribution(
        given.text, answers=given.answers, by=given.by
    )


EXPERIMENTS: tuple[ExperimentWord, ...] = (
    ExperimentWord(_patch(), _run_patch),
    ExperimentWord(_path_patch(), _run_path_patch),
    ExperimentWord(_attribute(), _run_attribute),
    ExperimentWord(_attribute_edges(), _run_attribute_edges),
    ExperimentWord(_direct_logit_attribution(), _run_direct_logit_attribution),
    ExperimentWord(_head_scores(), lambda model, given: model.experiments.head_scores(given.rows)),
    ExperimentWord(_composition(), lambda model, given: model.experiments.composition(given.kind)),
    ExperimentWord(_connectome(), _run_connectome),
)
"""All of them, in the order of their help."""
