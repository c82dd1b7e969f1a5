"""The body of a cell as a function: what it sees, what it is called, where its lines are."""

from __future__ import annotations

import linecache
import sys
import traceback
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
import torch

from garcon_jupyter.client.shipping import captured, pack
from garcon_jupyter.errors import BadProbe
from garcon_jupyter.magics import cells
from garcon_jupyter.magics.cells import Cell
from tests.magics.conftest import Notebook


def cell(body: str, notebook: Notebook) -> Cell:
    return Cell.of(notebook.shell, "probe", "layers.0.mlp.out", body)


def made(body: str, notebook: Notebook) -> Any:
    shell = notebook.shell
    return cells.function(cell(body, notebook), shell.user_ns, shell.user_ns_hidden)


def test_the_body_is_the_function(notebook: Notebook) -> None:
    notebook["scale"] = 3.0
    function = made(
        "save_ctx.sum = tensor.sum()\ndoubled = tensor * 2\nreturn doubled * scale", notebook
    )
    save_ctx, tensor = SimpleNamespace(), torch.arange(4.0)
    assert function(save_ctx, tensor).tolist() == [0.0, 6.0, 12.0, 18.0]
    assert save_ctx.sum == 6.0
    assert made("tensor[0] = 9", notebook)(save_ctx, tensor) is None
    assert tensor.tolist() == [9.0, 1.0, 2.0, 3.0]


def test_an_indented_body_is_a_body(notebook: Notebook) -> None:
    assert made("    if True:\n        return tensor + 1", notebook)(None, 1) == 2


def test_variables_are_those_used_as_they_are_now(notebook: Notebook) -> None:
    notebook["scale"], notebook["mean"], notebook["unused"] = 3.0, "no variable here", object()
    function = made("return tensor.mean() * scale", notebook)
    assert captured(function) == {"scale": 3.0}
    notebook["scale"] = 100.0
    assert function(None, torch.ones(2)) == 3.0
    assert dict(pack(function).captured).keys() == {"scale"}


def test_what_ipython_puts_there_stays_here(notebook: Notebook) -> None:
    function = made("print(get_ipython); exit()", notebook)
    assert "get_ipython" not in function.__globals__
    assert "exit" not in function.__globals__
    cloudpickle.loads(pack(function).payload)
    notebook["exit"] = 3  # the user's own
    assert made("return exit", notebook)(None, None) == 3


def test_lines_and_file_are_those_of_the_cell(notebook: Notebook) -> None:
    function = cloudpickle.loads(pack(made("x = 1\n\nreturn x / 0", notebook)).payload)
    try:
        function(None, None)
    except ZeroDivisionError:
        frame = traceback.extract_tb(sys.exc_info()[2])[-1]
    number = notebook.shell.execution_count
    assert (frame.lineno, frame.name) == (4, f"cell_{number}")
    assert linecache.getline(frame.filename, 4) == "return x / 0\n"
    assert linecache.getline(frame.filename, 1) == "%%probe layers.0.mlp.out\n"
    assert notebook.shell.compile.format_code_name(frame.filename) == ("Cell", f"In[{number}]")


def test_syntax_errors_show_the_line(notebook: Notebook) -> None:
    with pytest.raises(BadProbe) as caught:
        made("x = 1\nfor y in x\n    pass", notebook)
    text = str(caught.value)
    assert "does not compile: expected ':'" in text
    assert "line 3" in text
    assert "\n    for y in x\n              ^" in text


def test_errors_that_only_compiling_finds(notebook: Notebook) -> None:
    with pytest.raises(BadProbe, match="does not compile: no binding for nonlocal 'k'"):
        made("def f():\n    nonlocal k", notebook)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("yield tensor", "line 2: a probe cannot yield"),
        ("await tensor", "line 2: a probe cannot await"),
        ("pass\nglobal n", "line 3: a probe cannot use `global`"),
        ("pass\nn += 1", "line 3: the probe assigns to 'n'.*use save_ctx.n"),
        ("# nothing", "no statements"),
    ],
)
def test_refused(body: str, sentence: str, notebook: Notebook) -> None:
    notebook["n"] = 0
    with pytest.raises(BadProbe, match=sentence):
        made(body, notebook)


def test_a_local_name_may_be_that_of_a_variable(notebook: Notebook) -> None:
    notebook["n"] = 0
    assert made("n = 5\nn += 1\nreturn n", notebook)(None, None) == 6
    assert notebook["n"] == 0
