"""What user code prints: passed on within a limit, which is told; and that nobody answers what it asks."""

from __future__ import annotations

import pdb
import sys
from collections.abc import Callable
from typing import Any

import pytest

from garcon_backend.process.output import LIMIT, LINES, UserOutput
from garcon_jupyter.errors import BadProbe
from garcon_jupyter.wire.failures import user_frames


def printed(*functions: Callable[[], Any]) -> dict[str, str]:
    """What a request prints that calls these."""
    found = {"stdout": "", "stderr": ""}

    def emit(stream: str, text: str) -> None:
        found[stream] += text

    output = UserOutput()
    output.to(emit)
    output.begin()
    for function in functions:
        with output.captured():
            function()
    output.end()
    return found


def lines(count: int, text: str = "line") -> Callable[[], None]:
    return lambda: [print(f"{text} {n}") for n in range(count)] and None


def test_what_is_within_the_limit_is_all_there() -> None:
    found = printed(lines(LINES))
    assert found["stdout"].count("\n") == LINES and found["stderr"] == ""


def test_more_lines_are_cut_and_counted() -> None:
    found = printed(lines(LINES - 5, "first"), lines(12_350, "second"), lines(2, "third"))
    shown = found["stdout"].splitlines()
    assert len(shown) == LINES and shown[-1] == "second 4"
    assert "10,000 lines" in found["stderr"].splitlines()[1]  # at once: it may go on for long
    assert found["stderr"].endswith("\n… and 12,347 more lines were cut\n")


def test_a_long_line_is_cut_and_its_characters_counted() -> None:
    found = printed(lambda: print("x" * (LIMIT + 1000), end=""))
    assert found["stdout"] == "x" * LIMIT
    assert found["stderr"].endswith("\n… and 1,000 more characters were cut\n")


def test_the_next_request_has_a_limit_of_its_own() -> None:
    output = UserOutput()
    output.begin()
    with output.captured():
        lines(LINES + 1)()
    output.end()
    output.begin()
    found: list[str] = []
    output.to(lambda stream, text: found.append(text))
    with output.captured():
        print("again")
    output.end()
    assert "".join(found) == "again\n"


def stops() -> None:
    breakpoint()


def debugs() -> None:
    pdb.Pdb().set_trace()  # that of pytest is another
    print("next")


def asks() -> None:
    input("Which neuron? ")


def reads() -> None:
    sys.stdin.read()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (stops, "cannot stop at breakpoint.*print"),
        (debugs, "cannot stop at breakpoint.*print"),
        (asks, "cannot ask by input.*variable of the notebook"),
        (reads, "cannot ask by input.*variable of the notebook"),
    ],
)
def test_code_that_waits_for_somebody_is_told_at_its_line(
    code: Callable[[], None], sentence: str
) -> None:
    before = sys.stdin, sys.breakpointhook, sys.gettrace()
    with pytest.raises(BadProbe, match=sentence) as caught:
        printed(code)
    assert user_frames(caught.value)[-1][2] == code.__name__  # and no line of a debugger
    assert (sys.stdin, sys.breakpointhook, sys.gettrace()) == before
