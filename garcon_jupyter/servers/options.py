"""The options of a launch, declared once: magics, command line and module have the same words."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from garcon_jupyter.errors import BadDegrees, BadRequest, UnknownName
from garcon_jupyter.servers.hosts import Several
from garcon_jupyter.servers.limits import LimitWords

DEVICES = ("cpu", "cuda")

LAUNCH_WORDS = ("name", "tp", "pp", "dp", "dtype", "device", "idle_timeout", "loader")
LIMIT_WORDS = tuple(LimitWords.__annotations__)
HOSTS_WORDS = tuple(Several.__annotations__)


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Add the keywords of :func:`garcon_jupyter.launch` as options."""
    add = parser.add_argument
    add("--name", help="of the server (default: the model's name and a short hash of its path)")
    add("--tp", type=int, metavar="N", help="degree of tensor parallelism (default: chosen)")
    add("--pp", type=int, metavar="N", help="degree of pipeline parallelism (default: 1)")
    add("--dp", type=int, metavar="N", help="degree of data parallelism (default: 1)")
    add("--dtype", help="to load in, e.g. bfloat16 (default: the checkpoint's)")
    add("--device", choices=DEVICES, help="default: the GPUs, where there are some")
    add(
        "--idle-timeout",
        default="1h",
        metavar="TIME",
        help='end after so long without a request: seconds, "30m", "1h", "never" (default: 1h)',
    )
    add("--loader", metavar="PACKAGE.MODULE:FUNCTION", help="makes a torch.nn.Module of your own")
    _add_limit_options(parser)
    _add_hosts_options(parser)


def _add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add the words of :class:`garcon_jupyter.servers.limits.LimitWords`."""
    add = parser.add_argument_group("limits").add_argument
    add("--memory", metavar="BYTES", help="of a host, beside the model, e.g. 8GiB (default: 90 %%)")
    add("--keep", metavar="BYTES", help="of recordings on a host (default: half of what is free)")
    add("--forget", metavar="TIME", help="of a session without name and client (default: 1h)")


def _add_hosts_options(parser: argparse.ArgumentParser) -> None:
    """Add the words of :class:`garcon_jupyter.servers.hosts.Several`."""
    add = parser.add_argument_group("several hosts, the same command on each").add_argument
    add("--nnodes", type=int, metavar="N", help="number of hosts")
    add("--rdzv-endpoint", metavar="HOST:PORT", help="where they meet: one of them, a free port")
    add("--nproc-per-node", type=int, metavar="N", help="ranks on each (default: as many as fit)")
    add("--node-rank", type=int, metavar="N", help="place of this one (default: first at HOST)")
    add(
        "--is-host",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether HOST is this one (default: by its addresses)",
    )
    add("--local-addr", metavar="ADDRESS", help="of this one, for the others (default: found)")
    add("--secret-file", metavar="FILE", help="that all share, 0600 (default: $GARCON_SECRET)")
    add = parser.add_argument_group("by Slurm").add_argument
    add("--launcher", choices=("slurm",), help="submit a job instead")
    add("--nodes", type=int, metavar="N", help="of the job (default: 1)")
    add("--gpus-per-node", type=int, metavar="N", help="of the job (default: none)")
    add("--partition", metavar="NAME", help="of the job")
    add("--time", metavar="TIME", help="limit of the job, as sbatch takes it")
    add("--sbatch", action="append", metavar="OPTION", help="another option of sbatch; repeatable")


DEGREES = ("tp", "pp", "dp")

TEXTS = ("name", "dtype", "device", "loader")


def check_words(path: Any, words: Mapping[str, Any]) -> None:
    """Refuse what a launch cannot be asked for, in a sentence, before anything is begun.

    What a word's value means is checked by whoever reads it; here, that it is of the right kind.

    Raises:
        UnknownName: there is no such word; names the nearest.
        BadRequest, BadDegrees: a value is of the wrong kind.
    """
    known = (*LAUNCH_WORDS, *LIMIT_WORDS, *HOSTS_WORDS)
    given = isinstance(path, (str, os.PathLike)) and (os.fspath(path) or words.get("loader"))
    if not given:
        raise BadRequest(
            f"{path!r} is no path of a model.", "Give smollm2, a directory, or a hub id, as a text."
        )
    for word, value in words.items():
        if word not in known:
            raise UnknownName.among("option of a launch", word, known, "help(garcon.launch)")
        if value is None and word != "idle_timeout":
            continue
        if word in DEGREES and (not isinstance(value, int) or isinstance(value, bool)):
            raise BadDegrees(f"{word}={value!r} is no degree.", "Degrees are whole numbers from 1.")
        if word in TEXTS and (not isinstance(value, str) or not value):
            how = 'Write "package.module:function".' if word == "loader" else "Give it as a text."
            raise BadRequest(f"{word}={value!r} is no text.", how)
        if word == "loader":
            _check_loader(value)
        if word == "device" and value not in DEVICES:
            raise BadRequest(f"There is no device {value!r}.", f"Use {' or '.join(DEVICES)}.")


def _check_loader(loader: str) -> None:
    """Refuse what cannot be the name of a function in a module.

    Raises:
        BadRequest: says how it is written.
    """
    module, _, function = loader.partition(":")
    if module.endswith(".py") or "/" in module:
        name = module.rpartition("/")[2].removesuffix(".py")
        raise BadRequest(
            f"loader={loader!r} names a file, and a module is wanted.",
            f"Write {name}:{function or 'function'}, with the directory of {name}.py on PYTHONPATH or beside the notebook.",
        )
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise BadRequest(f"{loader!r} names no loader.", "Write package.module:function.")


def launch_options(given: argparse.Namespace) -> dict[str, Any]:
    """The options as keywords of :func:`garcon_jupyter.launch`."""
    return {word: getattr(given, word) for word in (*LAUNCH_WORDS, *LIMIT_WORDS, *HOSTS_WORDS)}
