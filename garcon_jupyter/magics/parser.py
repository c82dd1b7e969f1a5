"""A parser of the words of a magic, which is the notebook's and not a program's."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from garcon_jupyter.errors import BadRequest


class HelpShown(Exception):
    """The help was asked for, and shown."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are the notebook's, and which ends nothing."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        super().__init__(
            prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        """Refuse the words, with the usage in a line, where argparse would end the kernel.

        Raises:
            BadRequest: always.
        """
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise BadRequest(f"{self.prog}: {message}.", f"Usage: {usage}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave the command after its help was shown, where argparse would end the kernel.

        Raises:
            HelpShown: always.
        """
        raise HelpShown
