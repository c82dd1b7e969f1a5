"""``%garcon explain``: a language model says what units fire for, and what it says is scored."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.magics.parser import Parser

if TYPE_CHECKING:
    from garcon_jupyter.explanations import LanguageModel
    from garcon_jupyter.magics.current import Current

VARIABLE = "explained"
"""The notebook's variable that explanations are put into."""

METHODS = ("auto", "all-at-once", "token-by-token", "json")


def parser() -> Parser:
    """What can follow the word."""
    made = Parser(
        "%garcon explain",
        "Have a language model say what units of an atlas fire for, and score what it says.\n"
        "The model is the current one, or one at an address. Results go into the variable explained, and beside the atlas. Given again it goes on.",
        epilog="In Python: from garcon_jupyter import explanations; explanations.explain(ATLAS, UNITS, with_=MODEL, …)",
    )
    made.add_argument("atlas", metavar="ATLAS", help="its directory, or {variable}")
    made.add_argument("point", metavar="POINT", nargs="?", help="name of a point of it")
    made.add_argument("units", metavar="N", nargs="*", type=int, help="numbers of units")
    made.add_argument("--search", metavar="WORDS", help="list the explanations that say this")
    made.add_argument("--at", metavar="URL", help="an address that speaks OpenAI's protocol")
    made.add_argument("--model", metavar="NAME", help="the model's name there")
    made.add_argument(
        "--key", metavar="VARIABLE", default="", help="environment variable with the key"
    )
    made.add_argument("--method", default="auto", choices=METHODS, help="to simulate")
    made.add_argument("--top", type=int, help="highest level (default: 10; the current model: 9)")
    made.add_argument(
        "--calibration",
        default="linear",
        choices=("none", "linear", "percentile"),
        help="(default: linear)",
    )
    made.add_argument(
        "--score",
        default="simulation,detection",
        metavar="KINDS",
        help="of simulation,detection,fuzzing,intruder (default: the first two)",
    )
    made.add_argument(
        "--controls", type=int, default=1, metavar="N", help="others' explanations (default: 1)"
    )
    made.add_argument("--cost", action="store_true", help="say what it would ask, and ask nothing")
    return made


def explain(current: Current, given: argparse.Namespace) -> None:
    """Explain units with the current model, or one at an address."""
    from IPython.display import display

    from garcon_jupyter import explanations
    from garcon_jupyter.atlas import open_atlas

    if given.search is not None:
        found = explanations.open_explanations(open_atlas(given.atlas)).search(given.search)
        print("\n".join(map(str, found)) or "None says that.")
        return
    model = _model(current, given)
    if given.point is None or not given.units:
        raise BadRequest("No units were given.", "Usage: %garcon explain ATLAS POINT N …")
    atlas = open_atlas(given.atlas)
    chosen = {
        "with_": model,
        "method": given.method,
        "top": given.top or (10 if given.at else 9),
        "calibration": given.calibration,
        "score": tuple(given.score.split(",")),
        "controls": given.controls,
    }
    units = [(given.point, unit) for unit in given.units]
    if given.cost:
        print(explanations.plan_explanations(atlas, units, **chosen))
        return
    explained = explanations.explain(atlas, units, **chosen)
    current.variables[VARIABLE] = explained
    display(explained)


def _model(current: Current, given: argparse.Namespace) -> LanguageModel:
    from garcon_jupyter.explanations import OpenAICompatible, ServedModel

    if given.at is None:
        return ServedModel(current.model())
    if given.model is None:
        raise BadRequest("The model at that address has no name.", "Give --model NAME.")
    return OpenAICompatible(given.at, given.model, given.key)
