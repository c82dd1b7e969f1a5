"""An option of a launch is declared once: whatever names the options has them from there, and one more as soon as it is."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict, Unpack, get_args, get_type_hints

import pytest
from IPython.core.completer import CompletionContext, provisionalcompleter

import garcon_jupyter as garcon
from docs import generate
from garcon_jupyter import errors
from garcon_jupyter.cli import app
from garcon_jupyter.magics import arguments
from garcon_jupyter.magics.completion import matcher
from garcon_jupyter.magics.current import Current
from garcon_jupyter.server_extension import launch_form
from garcon_jupyter.servers.option_checks import check_words
from garcon_jupyter.servers.option_forms import launch_options, with_options
from garcon_jupyter.servers.options import (
    GROUPS,
    OPTIONS,
    Field,
    LaunchOptions,
    LimitOptions,
    ModelOptions,
    NameOption,
    Option,
    Several,
    declared,
    part,
)
from garcon_jupyter.servers.settings import Settings
from garcon_jupyter.wire.launch_spec import Limits


class Painted(TypedDict, total=False):
    """Options that nobody carries out."""

    wall_colour: Annotated[
        int | None,
        Option("of the walls, 100 % of it", unset="white", metavar="N", field=Field("Walls")),
    ]


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more option is declared, and what was made of the table before is made again."""
    for option in declared("", Painted):
        monkeypatch.setitem(OPTIONS, option.name, option)
    monkeypatch.setitem(arguments.PARSERS, "launch", arguments._launch())


def called() -> Callable[..., None]:
    """A function of a path, a name and all options, made now."""

    def function(path: str, name: str | None = None, **options: Unpack[LaunchOptions]) -> None:
        """Call.

        Raises:
            ValueError: never.
        """

    return with_options(function)


def parsed(*words: str) -> dict[str, Any]:
    """What the command line and the magic read, which is the same, as keywords."""
    both = [
        launch_options(app._parser().parse_args(["launch", "x", *words])),
        launch_options(arguments.PARSERS["launch"].parse_args(["x", *words])),
    ]
    assert both[0] == both[1]
    return both[0]


def offered(text: str) -> list[str]:
    """What tab offers at the end of a line with a magic, in a notebook without a variable."""
    complete = matcher(Current(SimpleNamespace(user_ns={}, user_ns_hidden={})))
    with provisionalcompleter():
        told = complete(CompletionContext(text.split()[-1], text, len(text), 0, None))
        return [each.text for each in told["completions"]]


# What each reader of the table has: the names of the options, as it writes them.
READERS: dict[str, Callable[[], list[str]]] = {
    "signature": lambda: list(inspect.signature(called()).parameters)[1:],
    "help": lambda: re.findall(r"^    (\w+): ", called().__doc__ or "", re.M)[:-1],
    "command line and magic": lambda: list(parsed()),
    "completion": lambda: [
        option.removeprefix("--").replace("-", "_")
        for option in offered("%garcon launch smollm2 --")
        if option not in ("--help", "--session") and not option.startswith("--no-")
    ],
    "documentation": lambda: re.findall(r"^\| `(\w+)` \| `--", generate.options(), re.M),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_has_every_option_of_the_table_and_no_other(reader: str) -> None:
    assert READERS[reader]() == list(OPTIONS) and len(OPTIONS) >= 25


@pytest.mark.usefixtures("painted")
@pytest.mark.parametrize("reader", READERS)
def test_one_more_option_is_in_every_reader(reader: str) -> None:
    found = READERS[reader]()
    assert sorted(found) == sorted(OPTIONS) and "wall_colour" in found and len(found) >= 26


@pytest.mark.parametrize("function", [garcon.launch, garcon.launch_and_connect])
def test_both_functions_have_every_option_with_its_type_and_default(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    own = {"path", "progress", "session"} & set(parameters)
    assert set(parameters) - own == set(OPTIONS)
    for name, option in OPTIONS.items():
        assert parameters[name].annotation == option.type
        assert parameters[name].default == ("1h" if name == "idle_timeout" else None)
    positional = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["path", "name"]  # as ever: nothing else stands without its word
    assert not [p for p in parameters.values() if p.kind is p.VAR_KEYWORD]


def test_type_checkers_read_the_same_declaration() -> None:
    hints = get_type_hints(garcon.launch)
    assert get_args(hints["options"])[0] is LaunchOptions
    known = set(LaunchOptions.__annotations__) | set(NameOption.__annotations__)
    assert known == set(OPTIONS)
    declarations = [one for several in GROUPS.values() for one in several]
    assert sum(len(one.__annotations__) for one in declarations) == len(OPTIONS)  # each once


def test_what_carries_them_out_has_each() -> None:
    """An option of the model that :class:`Settings` lacks would be lost between a launch and its server."""
    assert {f.name for f in dataclasses.fields(Settings)} == {"path", *ModelOptions.__annotations__}
    assert {f.name for f in dataclasses.fields(Limits)} == set(LimitOptions.__annotations__)


def test_options_by_their_declaration() -> None:
    options = {"tp": 2, "memory": "8GiB", "nnodes": None, "nodes": 3}
    assert part(options, ModelOptions) == {"tp": 2}
    assert part(options, LimitOptions) == {"memory": "8GiB"}
    assert part(options, Several) == {"nnodes": None, "nodes": 3}


def test_values_are_read_by_their_types() -> None:
    given = parsed(
        *("--tp", "2", "--dtype", "bfloat16", "--idle-timeout", "30m", "--no-is-host"),
        *("--sbatch=--account=lab", "--sbatch=--qos=low", "--launcher", "slurm", "--time", "30"),
    )
    said = {word: value for word, value in given.items() if value is not None}
    assert said == {
        "tp": 2,
        "dtype": "bfloat16",
        "idle_timeout": "30m",
        "is_host": False,
        "sbatch": ["--account=lab", "--qos=low"],
        "launcher": "slurm",
        "time": "30",
    }
    for wrong in (
        ["--tp", "two"],
        ["--device", "gpu"],
        ["--launcher", "mpi"],
        ["--wall-colour", "1"],
    ):
        with pytest.raises(errors.BadRequest):
            arguments.PARSERS["launch"].parse_args(["x", *wrong])


@pytest.mark.usefixtures("painted")
def test_one_more_option_is_read_checked_explained_and_asked_for() -> None:
    assert parsed("--wall-colour", "3")["wall_colour"] == 3 and parsed()["wall_colour"] is None
    for parser in (arguments.PARSERS["launch"], _command_line()):
        assert "of the walls, 100 % of it (default: white)" in " ".join(
            parser.format_help().split()
        )
    check_words("x", {"wall_colour": 3})
    with pytest.raises(errors.BadRequest, match="wall_colour='red' is no whole number"):
        check_words("x", {"wall_colour": "red"})
    with pytest.raises(errors.UnknownName, match="Did you mean wall_colour"):
        check_words("x", {"wall_color": 3})
    assert offered("%garcon launch smollm2 --wa") == ["--wall-colour"]
    row = "| `wall_colour` | `--wall-colour N` | of the walls, 100 % of it | white | Walls |"
    assert row in generate.options()
    assert launch_form.fields()[-1] == {
        "word": "wall_colour",
        "label": "Walls",
        "meaning": "of the walls, 100 % of it (default: white)",
        "kind": "number",
        "initial": "",
        "unset": "chosen",
        "choices": [],
    }
    assert launch_form.checked({"path": "x", "wall_colour": 3}) == {"path": "x", "wall_colour": 3}


def test_an_option_that_is_not_declared_is_in_no_reader() -> None:
    assert "wall_colour" not in inspect.signature(garcon.launch).parameters
    with pytest.raises(errors.UnknownName, match="'wall_colour'"):
        check_words("x", {"wall_colour": 3})
    with pytest.raises(errors.UnknownName, match="'wall_colour'"):
        garcon.launch("x", wall_colour=3)  # type: ignore[call-arg]
    with pytest.raises(errors.BadRequest, match="takes no 'wall_colour'"):
        launch_form.checked({"path": "x", "wall_colour": 3})
    assert "colour" not in generate.options() and not offered("%garcon launch smollm2 --wa")


def _command_line() -> argparse.ArgumentParser:
    """The parser of ``garcon launch``."""
    (commands,) = (a for a in app._parser()._actions if isinstance(a, argparse._SubParsersAction))
    return commands.choices["launch"]
