"""A function of ``**options`` says what it takes, in its signature and in its help."""

from __future__ import annotations

import inspect
from typing import Any

import garcon_jupyter as garcon
from garcon_jupyter.servers.option_forms import told, with_options
from garcon_jupyter.servers.options import OPTIONS, Option


def test_the_options_stand_before_what_is_raised_and_the_examples_stay() -> None:
    said = inspect.getdoc(garcon.launch) or ""
    places = [said.index(word) for word in ("Args:", "Options:", "Limits:", "By Slurm:", "Raises:")]
    assert places == sorted(places)
    assert (
        '    idle_timeout: the server ends after so long without a request: seconds, "30m"' in said
    )
    assert said.count(">>> ") == 4 and max(map(len, said.splitlines())) <= 120


def test_every_function_of_options_says_the_same_of_them() -> None:
    one, other = (
        inspect.getdoc(garcon.launch) or "",
        inspect.getdoc(garcon.launch_and_connect) or "",
    )
    options = one[one.index("Options:") : one.index("Raises:")]
    assert options in other and options.count("\n") > len(OPTIONS)


def test_what_the_function_takes_itself_is_no_option() -> None:
    def function(tp: str, *, other: int = 5, **options: Any) -> None:
        """A word."""

    parameters = inspect.signature(with_options(function)).parameters
    assert list(parameters) == ["tp", "other", *(name for name in OPTIONS if name != "tp")]
    assert parameters["tp"].annotation is str and parameters["other"].default == 5
    assert (function.__doc__ or "").startswith(
        "A word.\n\nOptions:\n    name: of the server (default"
    )


def test_a_default_is_told_where_there_is_one() -> None:
    assert told(Option("of it")) == "of it"
    assert told(Option("of it", default="1h")) == "of it (default: 1h)"
    assert told(Option("of it", default="1h", unset="an hour")) == "of it (default: an hour)"
