"""What is told of a function before it is shipped: calls that cannot be, and edits that are lost."""

from __future__ import annotations

import ast
import functools
import textwrap
from typing import Any

import pytest
import torch
from torch import Tensor

from garcon_jupyter import BadProbe
from garcon_jupyter.client import function_checks
from garcon_jupyter.client.function_checks import check_call, hint_at_lost_edit, lost_edit

LOST = {
    "plain": "tensor = tensor + v",
    "by a function": "tensor = torch.relu(tensor)",
    "twice": "tensor = tensor * 2\ntensor = tensor + v",
    "after saving": "save_ctx.before = tensor\ntensor = tensor + v",
    "in a branch": "if save_ctx.here.layer == 3:\n    tensor = tensor + v",
    "in a loop": "for v in vectors:\n    tensor = tensor + v",
    "returns None": "tensor = tensor + v\nreturn None",
    "an inner function returns": "f = lambda x: x\ndef g(x):\n    return x\ntensor = g(tensor)",
}

FINE = {
    "returned": "tensor = tensor + v\nreturn tensor",
    "saved afterwards": "tensor = tensor.float()\nsave_ctx.mean = tensor.mean(1)",
    "used afterwards": "tensor = tensor.float()\nprint(tensor.norm())",
    "used in a loop": "for n in range(3):\n    save_ctx.n = tensor.sum()\n    tensor = tensor * 2",
    "in place": "tensor += v",
    "in place by index": "tensor[:, 5] = 0\ntensor = tensor.float()",
    "in place by a method": "tensor.mul_(2)\ntensor = tensor.float()",
    "in place of a view": "tensor[:, 0].zero_()\ntensor = tensor + 1",
    "in place of data": "tensor.data[:] = 0\ntensor = tensor + 1",
    "only saved": "save_ctx.tensor = tensor",
    "another name": "other = tensor + v",
    "another value": "tensor = None",
    "a loop's variable": "for tensor in rows: pass",
    "a default": "tensor = vectors[0]",
    "kept by a function": "tensor = tensor.float()\nsave_ctx.f = lambda: tensor",
    "returned in a branch": "if v:\n    return tensor\ntensor = tensor + 1",
    "an inner function": "def inner(tensor):\n    tensor = tensor + 1\n    return tensor\nsave_ctx.x = inner(tensor)",
    "nothing": "pass",
}


@pytest.mark.parametrize("body", LOST.values(), ids=LOST)
def test_an_edit_that_is_lost(body: str) -> None:
    line = lost_edit(ast.parse(body).body, "tensor")
    assert line is not None and "tensor = " in body.splitlines()[line - 1]


@pytest.mark.parametrize("body", FINE.values(), ids=FINE)
def test_no_false_alarm(body: str) -> None:
    assert lost_edit(ast.parse(body).body, "tensor") is None


def steers(save_ctx: Any, value: Tensor) -> None:
    save_ctx.before = value
    value = value + 1  # lost


class Steers:
    def __call__(self, save_ctx: Any, tensor: Tensor) -> None:
        tensor = tensor + 1


def test_it_is_told_once_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    function_checks._told.discard(steers.__code__)
    for _ in range(3):
        hint_at_lost_edit(steers)
    told = capsys.readouterr().err
    line = steers.__code__.co_firstlineno + 2
    assert told.count("[garcon]") == 1
    assert f"test_function_checks.py\", line {line}: steers gives 'value' a new value" in told
    assert "`return value` replaces it; `value[:] = …` changes it in place." in told


def test_a_body_without_a_source_is_told_of_by_its_tree(capsys: pytest.CaptureFixture[str]) -> None:
    source = "def cell_5(save_ctx, tensor):\n    tensor = tensor + 1\n"
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<nowhere>", "exec"), scope)
    hint_at_lost_edit(scope["cell_5"])
    assert capsys.readouterr().err == ""  # nothing is known of it
    hint_at_lost_edit(scope["cell_5"], ast.parse(textwrap.dedent(source)).body[0].body)  # type: ignore[attr-defined]
    assert '"<nowhere>", line 2: cell_5 gives' in capsys.readouterr().err


def test_what_can_be_called() -> None:
    def probe(save_ctx: Any, tensor: Tensor, scale: float = 1.0) -> None: ...

    def anything(*args: Any) -> None: ...

    def bound(scale: float, save_ctx: Any, tensor: Tensor) -> None: ...

    for fine in (
        probe,
        anything,
        functools.partial(bound, 1.0),
        Steers(),
        Steers().__call__,
        torch.add,
    ):
        check_call(fine, "probe", "save_ctx", "tensor")


@pytest.mark.parametrize(
    "wrong",
    [lambda: 0, lambda tensor: 0, lambda a, b, c: 0, lambda a, b, *, c: 0, torch.nn.Linear(2, 2)],
    ids=["none", "one", "three", "a keyword", "a module"],
)
def test_what_cannot(wrong: Any) -> None:
    with pytest.raises(BadProbe, match=r"cannot be a probe function.*called as fn\(save_ctx, ten"):
        check_call(wrong, "probe", "save_ctx", "tensor")
