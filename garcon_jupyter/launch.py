"""``python -m garcon_jupyter.launch --snapshot PATH --name NAME``: the article's way to a server.

``garcon launch PATH`` is the same in fewer letters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from garcon_jupyter.cli.app import launched, reporting_errors
from garcon_jupyter.servers.option_forms import add_launch_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Launch a server and return; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m garcon_jupyter.launch",
        description="Launch a server for a model, or find the one that runs.",
        allow_abbrev=False,
    )
    parser.add_argument("--snapshot", required=True, metavar="PATH", help="the model")
    add_launch_options(parser)
    given = parser.parse_args(arguments)
    return reporting_errors(lambda: launched(given.snapshot, given))


if __name__ == "__main__":
    sys.exit(main())
