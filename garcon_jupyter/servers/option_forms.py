"""The options of a launch as a signature of Python, as a help, and as arguments of a command line."""

from __future__ import annotations

import argparse
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from garcon_jupyter.servers.options import OPTIONS, Option, grouped

Function = TypeVar("Function", bound=Callable[..., Any])


def with_options(function: Function) -> Function:
    """A function of ``**options`` with a signature and a help that name each, for Tab and ``help()``.

    Type checkers read the function as it is written. In its docstring the options come before what it raises.
    """
    signature = inspect.signature(function, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type
        )
        for name, option in OPTIONS.items()
        if name not in signature.parameters
    ]
    function.__signature__ = signature.replace(parameters=own + options)  # type: ignore[attr-defined]
    said, raises, errors = (inspect.getdoc(function) or "").partition("Raises:\n")
    function.__doc__ = "\n\n".join(filter(None, (said.rstrip(), _help(), raises + errors)))
    return function


def _help() -> str:
    """The options in sections of a docstring."""
    lines = []
    for group, options in grouped().items():
        lines += ["", f"{group[:1].upper()}{group[1:]}:" if group else "Options:"]
        for option in options:
            said = f"{option.name}: {told(option)}."
            lines.append(
                textwrap.fill(said, 100, initial_indent=" " * 4, subsequent_indent=" " * 8)
            )
    return "\n".join(lines[1:])


def told(option: Option) -> str:
    """What an option is, and what holds where it is not given."""
    return option.meaning + (f" (default: {option.otherwise})" if option.otherwise else "")


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Add the keywords of :func:`garcon_jupyter.launch` as arguments."""
    for group, options in grouped().items():
        added = parser.add_argument_group(group) if group else parser
        for option in options:
            said = told(option) + ("; repeatable" if option.kind == "list" else "")
            helped = said.replace("%", "%%")
            added.add_argument(option.flag, default=option.default, help=helped, **_reading(option))


def _reading(option: Option) -> dict[str, Any]:
    """How the value of an option is read from a command line."""
    named = {"metavar": option.metavar} if option.metavar else {}
    match option.kind:
        case "truth":
            return {"action": argparse.BooleanOptionalAction}
        case "number":
            return {"type": int, **named}
        case "list":
            return {"action": "append", **named}
    return {"choices": option.choices} if option.choices else named


def launch_options(given: argparse.Namespace) -> dict[str, Any]:
    """The options as keywords of :func:`garcon_jupyter.launch`."""
    return {word: getattr(given, word) for word in OPTIONS}


def add_certify_options(parser: argparse.ArgumentParser) -> None:
    """The options of a certificate."""
    parser.add_argument("--anew", action="store_true", help="make one, though one is kept")
    parser.add_argument(
        "--every-layer", action="store_true", help="read all layers, not two of each kind"
    )
