"""The options of a launch, declared once: magics, command line and module have the same words."""

from __future__ import annotations

import argparse
from typing import Any

LAUNCH_WORDS = ("name", "tp", "pp", "dp", "dtype", "device", "idle_timeout", "loader")


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


def launch_options(given: argparse.Namespace) -> dict[str, Any]:
    """The options as keywords of :func:`garcon_jupyter.launch`."""
    return {word: getattr(given, word) for word in LAUNCH_WORDS}
