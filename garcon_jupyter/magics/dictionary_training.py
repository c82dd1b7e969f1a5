"""``%garcon dictionary train``: a dictionary trained beside a layer of the current model."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from garcon_jupyter.magics.parser import Parser
from garcon_jupyter.wire.dictionary_training import KINDS

if TYPE_CHECKING:
    from garcon_jupyter.magics.current import Current

_SIDES = re.compile(r",(?![^{]*\})")
"""What stands between two sides: a comma that is not within braces."""

VARIABLE = "training"
"""The notebook's variable that a training is put into."""


def parser() -> Parser:
    """What can follow the words."""
    made = Parser(
        "%garcon dictionary train",
        "Train a dictionary on what a point has while data streams past, and show its curves.\n\n"
        "A sparse autoencoder, or a transcoder. It is put into the variable training; given again it goes on.",
        epilog="In Python: training = rmodel.train_dictionary(POINT, DATA, WIDTH, KIND, out=DIR, k=K, …)",
    )
    made.add_argument(
        "point",
        metavar="POINT",
        help="a name; READS,WRITES for a transcoder; a pattern, or two, for several points",
    )
    made.add_argument(
        "data", metavar="DATA", help="a file or store on the server's host, or {variable}"
    )
    made.add_argument("out", metavar="DIR", help="a new directory, for the dictionary")
    made.add_argument("--width", type=int, required=True, metavar="F", help="how many latents")
    made.add_argument("--kind", default="topk", choices=tuple(KINDS), help="(default: topk)")
    made.add_argument(
        "--k", type=int, default=32, help="latents that pass for a token (default: 32)"
    )
    made.add_argument("--lr", type=float, help="learning rate (default: by the width)")
    made.add_argument("--batch", type=int, default=2048, metavar="N", help="tokens of a step")
    made.add_argument("--tokens", type=int, metavar="N", help="so many at most (default: all)")
    made.add_argument("--seed", type=int, default=0, help="of weights and order (default: 0)")
    return made


def train(current: Current, given: argparse.Namespace) -> None:
    """Begin a training on the current model, and show it."""
    from IPython.display import display

    sides = _SIDES.split(given.point)
    training = current.model().train_dictionary(
        sides if len(sides) > 1 else given.point,
        given.data,
        given.width,
        given.kind,
        out=given.out,
        k=given.k,
        lr=given.lr,
        batch=given.batch,
        tokens=given.tokens,
        seed=given.seed,
        blocking=False,
    )
    current.variables[VARIABLE] = training
    display(training.show())
