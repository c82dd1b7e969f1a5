"""``%garcon store``, ``shuffle`` and ``features``: activations on disk, and what is found in them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from garcon_jupyter.connection import progress
from garcon_jupyter.magics.parser import Parser

if TYPE_CHECKING:
    from garcon_jupyter.magics.current import Current


def store_parser() -> Parser:
    """What can follow the word store."""
    parser = Parser(
        "%garcon store",
        "Store the activations of a point on disk while data streams past.\n"
        "The store is put into the variable store. Given again it goes on.",
        epilog="In Python: store = rmodel.store(POINT, DATA, DIR, …); mixed = garcon.shuffle(DIR, …)",
    )
    parser.add_argument("point", metavar="POINT", help="a name, or layers.*.resid_post")
    parser.add_argument("data", metavar="DATA", help="a file on the server's host, or {variable}")
    parser.add_argument("directory", metavar="DIR", help="a new directory")
    parser.add_argument("--dtype", help="bfloat16, float16, float32 or int8 (default: 16 bits)")
    parser.add_argument("--tokens", type=int, metavar="N", help="so many at most (default: all)")
    return parser


def shuffle_parser() -> Parser:
    """What can follow the word shuffle."""
    parser = Parser(
        "%garcon shuffle",
        "Put the rows of a store of activations in an order drawn from all.\n"
        "The result is put into the variable mixed. Given again it goes on.",
        epilog='In Python: mixed = garcon.shuffle(SRC, DST, seed=0, memory="1 GB", …)',
    )
    parser.add_argument("src", metavar="SRC", help="directory of a store")
    parser.add_argument("dst", metavar="DST", help="a new directory")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: 0)")
    _add_engine(parser, "1GB")
    return parser


def features_parser() -> Parser:
    """What can follow the word features."""
    parser = Parser(
        "%garcon features",
        "Find what latents of a dictionary, or units of a point, fire on.\n"
        "The atlas is put into the variable features, and shown. Given again it goes on.",
        epilog="In Python: features = rmodel.features(WHAT, DATA, DIR, k=20, sample=200, …)",
    )
    parser.add_argument("what", metavar="WHAT", help="a dictionary, its files, or a point")
    parser.add_argument("data", metavar="DATA", help="a store that is not shuffled, or {variable}")
    parser.add_argument("directory", metavar="DIR", help="a new directory")
    parser.add_argument("-k", type=int, default=20, help="strongest tokens (default: 20)")
    parser.add_argument("--sample", type=int, default=200, help="sampled tokens (default: 200)")
    parser.add_argument("--without-first", action="store_true", help="leave out first tokens")
    _add_engine(parser, "2GB")
    return parser


def jobs_parser() -> Parser:
    """What can follow the word jobs."""
    parser = Parser(
        "%garcon jobs",
        "List what takes long, or pause, resume or cancel it.\n"
        "Stores, shuffles, features, trainings and runs, whoever began them; also when the notebook is gone.",
        epilog="In Python: garcon.jobs(); garcon.jobs()[NAME].pause()",
    )
    parser.add_argument("what", metavar="pause|resume|cancel", nargs="?", help="default: list all")
    parser.add_argument("name", metavar="JOB", nargs="?", help="as it is listed, or its end")
    return parser


def _add_engine(parser: Parser, memory: str) -> None:
    parser.add_argument("--memory", default=memory, help=f"for all processes (default: {memory})")
    parser.add_argument("--engine", default="local", help="what runs its tasks: local, ray, dask")
    parser.add_argument("--workers", type=int, help="tasks at a time (default: the cores)")
    parser.add_argument("--work", metavar="DIR", help="where it is made, if DST is an address")


def store(current: Current, given: argparse.Namespace) -> None:
    """Store activations of the current model."""
    model = current.model()
    found = model.store(
        given.point, given.data, given.directory, dtype=given.dtype, most_tokens=given.tokens
    )
    current.variables["store"] = found
    print(found if found is not None else f"Stored in {given.directory}, on the server's host.")


def shuffle(current: Current, given: argparse.Namespace) -> None:
    """Shuffle a store; it takes no model."""
    from garcon_jupyter import exchanges

    line = progress.Line()
    mixed = exchanges.shuffle(
        given.src,
        given.dst,
        given.seed,
        given.memory,
        given.engine,
        given.workers,
        progress=line.show,
        work=given.work,
    )
    line.end(str(mixed))
    current.variables["mixed"] = mixed


def features(current: Current, given: argparse.Namespace) -> None:
    """Features of a dictionary or a point of the current model."""
    from IPython.display import display

    found = current.model().features(
        given.what,
        given.data,
        given.directory,
        given.k,
        given.sample,
        without=["first"] if given.without_first else [],
        memory=given.memory,
        engine=given.engine,
        workers=given.workers,
        work=given.work,
    )
    current.variables["features"] = found
    display(found.browse(current.model()))


def jobs(current: Current, given: argparse.Namespace) -> None:
    """List or steer jobs; it takes no model."""
    from garcon_jupyter.client import jobs as of_all

    print(of_all.jobs() if given.what is None else of_all.steered(given.what, given.name))
