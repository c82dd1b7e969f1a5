"""Lines to words, variables in braces, and parsers that end nothing."""

from __future__ import annotations

import pytest

from garcon_jupyter.errors import BadRequest, UnknownName
from garcon_jupyter.magics import arguments


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("layers.{4,8}.resid_post", ["layers.{4,8}.resid_post"]),
        ('a --on "The capital of France is"', ["a", "--on", "The capital of France is"]),
        ("a --on='two words' b", ["a", "--on=two words", "b"]),
        (r'"she said \"hi\" \\ $HOME \n"', ['she said "hi" \\ $HOME \\n']),
        ('--source recs["layers.1.mlp.out"]', ["--source", 'recs["layers.1.mlp.out"]']),
        ("--source recs['a', 'b c']", ["--source", "recs['a',", "'b c']"]),
        ("", []),
    ],
)
def test_words(line: str, expected: list[str]) -> None:
    assert arguments.words(line) == expected


def test_an_open_quote_is_refused() -> None:
    with pytest.raises(BadRequest, match="quote is not closed"):
        arguments.words('layers.1.mlp.out --on "The capital')


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("layers.{4,8}.mlp.out", "layers.{4,8}.mlp.out"),
        ("layers.{i}.mlp.out", "layers.3.mlp.out"),
        ("layers.{some}.mlp.out", "layers.{1,2}.mlp.out"),
        ("layers.{span}.mlp.out", "layers.{0,1,2}.mlp.out"),
        ("{path}/snapshot", "/models/big/snapshot"),
        ("layers.{missing}.mlp.out", "layers.{missing}.mlp.out"),
        ("$i.$path", "$i.$path"),
    ],
)
def test_variables_in_braces(word: str, expected: str) -> None:
    variables = {"i": 3, "some": [1, 2], "span": range(3), "path": "/models/big"}
    assert arguments.expanded(word, variables) == expected


def test_a_missing_variable_is_named() -> None:
    arguments.check_expanded(["layers.{4,8}.mlp.out", "layers.4-7.attn.z"])
    with pytest.raises(BadRequest, match="needs a variable 'layer'"):
        arguments.check_expanded(["layers.{layer}.mlp.out"])


def test_wrong_usage_is_an_error_and_not_an_exit() -> None:
    with pytest.raises(BadRequest, match=r"%garcon launch: .* PATH\. Usage: %garcon launch"):
        arguments.PARSERS["launch"].parse_args([])
    with pytest.raises(BadRequest, match="invalid int value"):
        arguments.PARSERS["launch"].parse_args(["smollm2", "--tp", "three"])
    with pytest.raises(UnknownName, match="Did you mean points"):
        arguments.parser_of("poitns")


def test_options_are_not_abbreviated() -> None:
    with pytest.raises(BadRequest, match="--forc"):
        arguments.PARSERS["stop"].parse_args(["--forc"])


def test_launch_has_the_words_of_the_function() -> None:
    import inspect

    from garcon_jupyter.api import launch_and_connect

    words = set(inspect.signature(launch_and_connect).parameters) - {"progress"}
    assert {a.dest for a in arguments.PARSERS["launch"]._actions} - {"help"} == words


def test_probe_has_the_words_of_the_method() -> None:
    import inspect

    from garcon_jupyter.client.probes import ProbePoint

    words = set(inspect.signature(ProbePoint.probe).parameters) - {"self", "fn"}
    own = {"help", "points", "once", "on", "adapter", "show", "record", "without"}
    assert {action.dest for action in arguments.PROBE._actions} - own == words


@pytest.mark.parametrize("word", arguments.PARSERS)
def test_every_word_has_help_and_a_command(word: str) -> None:
    from garcon_jupyter.magics.garcon import COMMANDS

    assert set(COMMANDS) == set(arguments.PARSERS)
    text = arguments.PARSERS[word].format_help()
    assert text.startswith(f"usage: %garcon {word}")
    assert f"%garcon {word}" in arguments.overview()
