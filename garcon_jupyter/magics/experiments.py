"""The experiments as words after ``%garcon``: each is a thin line over the function of its name.

One is added by a parser that declares its arguments, a function that calls the experiment with them, and a row of :data:`EXPERIMENTS`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from garcon_jupyter.errors import BadRequest
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
        run: calls it; what was given has the notebook's variables as ``variables``.
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

        given.variables = current.variables
        found = self.run(current.model(), given)
        current.variables[VARIABLE] = found
        display(found.show())


def _composition() -> Parser:
    parser = Parser(
        "%garcon composition",
        "Show how much each head reads of what each earlier head writes, from the weights alone.\n"
        "It is put into the variable found.",
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
        "Write the strongest connections of every neuron and head, from the weights, into a directory.\n"
        "How much of all connections they are is shown. What was interrupted goes on.",
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
        metavar="AXIS,…",
        help=f"axes of cells with commas between: layer, position, head, kv_head (default: {default})",
    )
    parser.add_argument(
        "--noise", action="store_true", help="patch the clean run with the corrupted"
    )


def _patch() -> Parser:
    parser = Parser(
        "%garcon patch",
        "Patch every cell of a sweep, one at a time, and show how much of the answer it changes.",
        epilog='In Python: found = rmodel.experiments.patch(CLEAN, CORRUPTED, POINTS, by=("layer", "head"), …)',
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
        epilog='In Python: found = rmodel.experiments.attribute(CLEAN, CORRUPTED, POINTS, by=("layer", "head"), …)',
    )
    _pair(parser)
    parser.add_argument("points", metavar="POINTS", help="a pattern, such as layers.*.attn.z")
    parser.add_argument(
        "--by",
        type=_names,
        default=("layer", "head"),
        metavar="AXIS,…",
        help="axes of cells with commas between: layer, position, head, kv_head, unit (default: layer,head)",
    )
    _gradients(parser, "corrupted", "clean", "mean", "integrated", "layer")
    return parser


def _gradients(parser: Parser, *methods: str) -> None:
    parser.add_argument(
        "--method",
        default=methods[0],
        choices=methods,
        help=f"where the gradient is taken (default: {methods[0]})",
    )
    parser.add_argument(
        "--check", type=int, default=0, metavar="N", help="patch so many of them exactly beside it"
    )


def _attribute_edges() -> Parser:
    parser = Parser(
        "%garcon attribute-edges",
        "Show what each edge from a writer to a reader would restore of the clean answer, by gradients.",
        epilog="In Python: found = rmodel.experiments.attribute_edges(CLEAN, CORRUPTED, …)",
    )
    _pair(parser)
    _gradients(parser, "corrupted", "clean", "mean", "integrated")
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


def _effects() -> Parser:
    parser = Parser(
        "%garcon effects",
        "Show what latents of dictionaries, heads or neurons do to an answer, one by one, at each position.",
        epilog="In Python: found = rmodel.experiments.effects(TEXT, OF, answers=…, strongest=N)",
    )
    parser.add_argument("text", metavar="TEXT", help="in quotes")
    parser.add_argument(
        "of", metavar="OF", nargs="+", help="names of dictionaries, heads, or neurons"
    )
    parser.add_argument(
        "--answers",
        metavar=("A", "B"),
        nargs=2,
        help="the tokens whose difference is told (default: the two likeliest)",
    )
    parser.add_argument(
        "--strongest", type=int, default=50, metavar="N", help="how many (default: 50)"
    )
    return parser


def _attribution_graph() -> Parser:
    parser = Parser(
        "%garcon attribution-graph",
        "Show how tokens, latents of transcoders and errors add up to the logits of a text, edge by edge.",
        epilog="In Python: found = rmodel.experiments.attribution_graph(TEXT, DICTIONARIES, …)",
    )
    parser.add_argument("text", metavar="TEXT", help="in quotes")
    parser.add_argument(
        "dictionaries", metavar="NAME", nargs="+", help="transcoders, one for each layer"
    )
    parser.add_argument(
        "--targets",
        type=int,
        default=256,
        metavar="N",
        help="latents that get edges (default: 256)",
    )
    parser.add_argument(
        "--check", type=int, default=0, metavar="N", help="set so many latents to zero beside it"
    )
    parser.add_argument("--save", metavar="PATH", help="write it for the viewers of circuit-tracer")
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


def _read_lens() -> Parser:
    parser = Parser(
        "%garcon read-lens",
        "Show what every layer would predict of a text, by the logit lens or one of a file.",
        epilog="In Python: found = rmodel.experiments.read_lens(TEXT, rmodel.experiments.load_lens(PATH))",
    )
    parser.add_argument("text", metavar="TEXT", help="in quotes")
    parser.add_argument(
        "--lens",
        metavar="PATH",
        help="a tuned or Jacobian lens: a directory, .safetensors or .pt (default: the logit lens)",
    )
    parser.add_argument(
        "--answer", metavar="TOKEN", help='whose probability and rank are told, as in " Mary"'
    )
    return parser


def _data(parser: Parser, what: str = "texts") -> None:
    parser.add_argument("point", metavar="POINT", help="such as layers.12.resid_post")
    parser.add_argument("data", metavar="DATA", help=f"a variable with {what}, or a file's path")
    parser.add_argument(
        "--massive", action="store_true", help="with the tokens of a norm above 5 times the median"
    )


def _linear_probe() -> Parser:
    parser = Parser(
        "%garcon linear-probe",
        "Show how well a linear classifier reads a label off each point, held-out texts apart.",
        epilog="In Python: found = rmodel.experiments.linear_probe(POINTS, TEXTS, LABELS, …)",
    )
    parser.add_argument("points", metavar="POINTS", help="a pattern, such as layers.*.resid_post")
    parser.add_argument("texts", metavar="TEXTS", help="a variable with texts or tokens")
    parser.add_argument("labels", metavar="LABELS", help="a variable with a label for each")
    parser.add_argument(
        "--method",
        default="logistic",
        choices=("logistic", "difference_of_means"),
        help="logistic (with scikit-learn) or difference_of_means (default: logistic)",
    )
    parser.add_argument(
        "--positions",
        default="last",
        metavar="WHICH",
        help="what stands for a text: last, mean, all or a number (default: last)",
    )
    return parser


def _pca() -> Parser:
    parser = Parser(
        "%garcon pca",
        "Show the principal components of a point, and name its massive tokens.",
        epilog="In Python: found = rmodel.experiments.pca(POINT, DATA, …)",
    )
    _data(parser)
    return parser


def _layout() -> Parser:
    parser = Parser(
        "%garcon layout",
        "Show a map of tokens, or of units, on which like ones lie near each other.",
        epilog="In Python: found = rmodel.experiments.layout(POINT, DATA, of=…, method=…)",
    )
    _data(parser)
    parser.add_argument("--of", default="tokens", choices=("tokens", "units"), help="what a dot is")
    parser.add_argument(
        "--method", default="pca", choices=("pca", "tsne", "umap"), help="(default: pca)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
    return parser


def _variable(given: argparse.Namespace, name: str) -> Any:
    """What a variable of the notebook holds."""
    if name not in given.variables:
        raise BadRequest(f"There is no variable {name}.", f"Set it in a cell: {name} = […].")
    return given.variables[name]


def _run_linear_probe(model: RemoteModel, given: argparse.Namespace) -> Any:
    number = given.positions.lstrip("-").isdigit()
    return model.experiments.linear_probe(
        given.points,
        _variable(given, given.texts),
        _variable(given, given.labels),
        method=given.method,
        positions=int(given.positions) if number else given.positions,
    )


def _of_data(given: argparse.Namespace) -> dict[str, Any]:
    """Point, data and treatment of massive tokens, as the functions take them."""
    data = given.variables.get(given.data, given.data)
    massive = "include" if given.massive else "exclude"
    return {"point": given.point, "data": data, "massive": massive}


def _run_layout(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.layout(
        **_of_data(given), of=given.of, method=given.method, seed=given.seed
    )


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
    return model.experiments.attribute_edges(
        given.clean,
        given.corrupted,
        answers=given.answers,
        method=given.method,
        check=given.check,
    )


def _run_direct_logit_attribution(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.direct_logit_attribution(
        given.text, answers=given.answers, by=given.by
    )


def _run_effects(model: RemoteModel, given: argparse.Namespace) -> Any:
    return model.experiments.effects(
        given.text, given.of, answers=given.answers, strongest=given.strongest
    )


def _run_attribution_graph(model: RemoteModel, given: argparse.Namespace) -> Any:
    from garcon_jupyter.experiments import save_graph

    found = model.experiments.attribution_graph(
        given.text, given.dictionaries, targets=given.targets, check=given.check
    )
    if given.save:
        save_graph(found, given.save)
    return found


def _run_read_lens(model: RemoteModel, given: argparse.Namespace) -> Any:
    lens = None if given.lens is None else model.experiments.load_lens(given.lens)
    return model.experiments.read_lens(given.text, lens, answer=given.answer)


EXPERIMENTS: tuple[ExperimentWord, ...] = (
    ExperimentWord(_patch(), _run_patch),
    ExperimentWord(_path_patch(), _run_path_patch),
    ExperimentWord(_attribute(), _run_attribute),
    ExperimentWord(_attribute_edges(), _run_attribute_edges),
    ExperimentWord(_direct_logit_attribution(), _run_direct_logit_attribution),
    ExperimentWord(_effects(), _run_effects),
    ExperimentWord(_attribution_graph(), _run_attribution_graph),
    ExperimentWord(_head_scores(), lambda model, given: model.experiments.head_scores(given.rows)),
    ExperimentWord(_linear_probe(), _run_linear_probe),
    ExperimentWord(_pca(), lambda model, given: model.experiments.pca(**_of_data(given))),
    ExperimentWord(_layout(), _run_layout),
    ExperimentWord(_read_lens(), _run_read_lens),
    ExperimentWord(_composition(), lambda model, given: model.experiments.composition(given.kind)),
    ExperimentWord(_connectome(), _run_connectome),
)
"""All of them, in the order of their help."""
