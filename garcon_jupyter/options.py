"""The options of a launch, declared once: magics, command line and module have the same words."""

from __future__ import annotations

import argparse
from typing import Any

from garcon_jupyter.hosts import Several
from garcon_jupyter.limits import LimitWords

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
    add("--device", choices=("cpu", "cuda"), help="default: the GPUs, where there are some")
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
    """Add the words of :class:`garcon_jupyter.limits.LimitWords`."""
    add = parser.add_argument_group("limits").add_argument
    add("--memory", metavar="BYTES", help="of a host, beside the model, e.g. 8GiB (default: 90 %%)")
    add("--keep", metavar="BYTES", help="of recordings on a host (default: half of what is free)")
    add("--forget", metavar="TIME", help="of a session without name and client (default: 1h)")


def _add_hosts_options(parser: argparse.ArgumentParser) -> None:
    """Add the words of :class:`garcon_jupyter.hosts.Several`."""
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


def launch_options(given: argparse.Namespace) -> dict[str, Any]:
    """The options as keywords of :func:`garcon_jupyter.launch`."""
    return {word: getattr(given, word) for word in (*LAUNCH_WORDS, *LIMIT_WORDS, *HOSTS_WORDS)}
