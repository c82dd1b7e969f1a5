"""``%garcon dictionary``: dictionaries on the current model's server, loaded, listed and let go of."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.magics.parser import Parser

if TYPE_CHECKING:
    from garcon_jupyter.magics.current import Current

VARIABLE = "sae"
"""The notebook's variable that a dictionary is put into."""

WORDS = ("add", "list", "remove")
"""What can be done with them."""


def parser() -> Parser:
    """What can follow the word."""
    made = Parser(
        "%garcon dictionary",
        "Load a dictionary on the server, list those that are loaded, or let go of one.\n\n"
        "Latents of one that is loaded (a sparse autoencoder, a transcoder) are points; it is put into the variable sae.",
        epilog="In Python: sae = rmodel.dictionaries.load(PATH, NAME, at=POINT)",
    )
    made.add_argument("what", metavar="add|list|remove", help="add PATH, list, or remove NAME")
    made.add_argument("path", metavar="PATH", nargs="?", help="of its files, a hub id, or a name")
    made.add_argument("--name", default="", help="by which its points are called")
    made.add_argument(
        "--at",
        metavar="POINT",
        nargs="+",
        default=[],
        help="the point that it reads (and the one that it writes), where its files do not say it",
    )
    return made


def dictionary(current: Current, given: argparse.Namespace) -> None:
    """Do it with the dictionaries of the current model."""
    model = current.model()
    if given.what not in WORDS:
        raise UnknownName.among("word", given.what, WORDS, f"There are {', '.join(WORDS)}.")
    if given.what == "list":
        print(model.dictionaries)
        return
    if given.path is None:
        raise BadRequest(
            f"%garcon dictionary {given.what} of what is not said.",
            "Give a PATH."
            if given.what == "add"
            else "Give a NAME; %garcon dictionary list has them.",
        )
    if given.what == "remove":
        model.dictionaries.unload(given.path)
    else:
        sae = model.dictionaries.load(given.path, given.name, given.at)
        current.variables[VARIABLE] = sae
        print(f"Its latents are {sae.latents.name}")
