"""Errors across the wire: the type, the two sentences, the user's own frames."""

from __future__ import annotations

import json
import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from garcon_jupyter import errors
from garcon_jupyter.errors import ERRORS, GarconError, ModelError, ProbeError, ServerError
from garcon_jupyter.user_code import source_lines
from garcon_jupyter.wire import failures

CELL = """
def probe(save_ctx, tensor):
    return helper(tensor)

def helper(tensor):
    return tensor / 0
"""


def in_a_cell(source: str, name: str) -> Callable[..., Any]:
    """A function as a notebook cell defines it."""
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell>", "exec"), scope)
    return scope[name]


def failed(function: Callable[..., Any], *args: Any) -> BaseException:
    """What a function raises, with the frames of the function alone."""
    try:
        function(*args)
    except BaseException as error:  # noqa: BLE001 - what user code raises
        assert error.__traceback__ is not None
        return error.with_traceback(error.__traceback__.tb_next)
    raise AssertionError("it should have failed")


def sent(error: BaseException, where: str = "") -> GarconError:
    """An error as the client meets it: through JSON, as in the content of a message."""
    return failures.revive(json.loads(json.dumps(failures.describe(error, where))))


@pytest.mark.parametrize("name", sorted(set(ERRORS) - {"ProbeError", "ServerError"}))
def test_every_error_of_ours_arrives_as_itself(name: str) -> None:
    error = sent(ERRORS[name]("It is wrong.", "Do this."))
    assert type(error) is ERRORS[name]
    assert str(error) == "It is wrong. Do this."


def test_user_errors_are_both_ours_and_their_own() -> None:
    error = sent(failed(in_a_cell(CELL, "probe"), None, 1), "layers.0.mlp.out [1, 4, 48] float32")
    assert isinstance(error, ProbeError)
    assert isinstance(error, ZeroDivisionError)
    assert error.original == "ZeroDivisionError"
    assert error.frames == (("<cell>", 3, "probe"), ("<cell>", 6, "helper"))
    assert "layers.0.mlp.out [1, 4, 48] float32" in str(error)
    assert "division by zero" in str(error)


def test_the_message_of_a_key_error_is_readable() -> None:
    source = "def probe(save_ctx, tensor):\n    return {}['layer 4']\n"
    error = sent(failed(in_a_cell(source, "probe"), None, None), "a point")
    assert isinstance(error, KeyError)
    assert "KeyError: 'layer 4'" in str(error)


def test_an_exception_of_the_users_own_keeps_its_attributes() -> None:
    source = (
        "class Odd(ValueError):\n"
        "    def __init__(self, layer):\n        super().__init__(f'odd {layer}')\n"
        "        self.layer = layer\n"
        "def probe(save_ctx, tensor):\n    raise Odd(3)\n"
    )
    error: Any = sent(failed(in_a_cell(source, "probe"), None, None), "a point")
    assert isinstance(error, ValueError)
    assert type(error).__name__ in ("Odd", "ProbeError")
    assert error.original == "Odd"


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "raise KeyboardInterrupt", "exit()"])
def test_leaving_is_a_failure_like_any_other(code: str) -> None:
    source = f"def probe(save_ctx, tensor):\n    {code}\n"
    error = failures.revive(
        failures.describe(failed(in_a_cell("import sys\n" + source, "probe"), None, None), "here")
    )
    assert isinstance(error, ProbeError)
    assert not isinstance(error, (SystemExit, KeyboardInterrupt))


def test_an_exception_that_cannot_be_pickled_arrives_by_its_class_and_text() -> None:
    source = (
        "import threading\n"
        "def probe(save_ctx, tensor):\n    raise ValueError('held', threading.Lock())\n"
    )
    error = sent(failed(in_a_cell(source, "probe"), None, None), "a point")
    assert isinstance(error, ProbeError) and isinstance(error, ValueError)
    assert error.original == "ValueError"
    assert "held" in str(error)


def in_a_file(source: str, name: str, file: str) -> Callable[..., Any]:
    """A function as a file has it."""
    scope: dict[str, Any] = {"__name__": "module", "torch": torch, "inner": None}
    exec(compile(source, file, "exec"), scope)
    return scope[name]


BROKEN = "def forward(*args):\n    return args[0](*args[1:])\n"
OURS = in_a_file(BROKEN, "forward", str(Path(failures.__file__).with_name("passes.py")))
MODEL = in_a_file(BROKEN, "forward", "/srv/site-packages/transformers/models/llama/modeling.py")
REMOTE = in_a_file(BROKEN, "forward", "/home/me/.cache/transformers_modules/x/modeling.py")
YOURS = in_a_file(BROKEN, "forward", "/home/me/garcon_jupyter/examples/helpers.py")


TORCH = torch.nn.Linear(3, 3)
WRONG = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("calls", "kind", "sentence"),
    [
        ((OURS, MODEL, OURS, TORCH), ServerError, "This is a bug of Garçon"),
        ((OURS, TORCH), ServerError, "This is a bug of Garçon"),
        ((OURS, MODEL, TORCH), ModelError, "it is open whose fault it is"),
        ((OURS, REMOTE, TORCH), ModelError, "it is open whose fault it is"),
        ((TORCH,), ServerError, "it is open whose fault it is"),
        ((OURS, YOURS, TORCH), ProbeError, "helpers.py"),
    ],
    ids=["ours in the model", "ours", "the model", "code of a checkpoint", "nobody", "yours"],
)
def test_whose_fault_an_error_is(calls: Any, kind: type[GarconError], sentence: str) -> None:
    first, *others = calls
    raised = failed(first, *others, WRONG)
    error = sent(raised)
    assert type(error) is kind or (kind is ProbeError and isinstance(error, ProbeError))
    assert sentence in str(error) and "mat1 and mat2" in str(error)
    assert ("bug of Garçon" in str(error)) == (kind is ServerError and first is OURS)


def test_where_in_a_pass_it_happened_and_what_was_edited_before() -> None:
    happened = failures.Happened("Llama", "model.layers.1.mlp", ("steer at layers.0.resid_post",))
    told = failures.describe(failed(OURS, MODEL, TORCH, WRONG), happened=happened)
    other = {"edited": ["ablate at layers.0.attn.z", "steer at layers.0.resid_post"]}
    error = failures.revive(failures.with_edits_of(told, [told, other]))
    assert "failed (Llama, in model.layers.1.mlp): RuntimeError: mat1" in error.problem
    assert "steer at layers.0.resid_post, ablate at layers.0.attn.z." in error.remedy
    assert "bug of Garçon" not in str(error)


def test_memory_that_ended_says_in_which_module() -> None:
    happened = failures.Happened("Llama", "model.layers.1.mlp", ())
    error = failures.revive(failures.describe(errors.OutOfMemory("It ended."), happened=happened))
    assert error.problem == "It ended. It happened in model.layers.1.mlp."


def test_a_lost_device_is_told_as_one() -> None:
    source = "def f():\n    raise RuntimeError('CUDA error: an illegal memory access')\n"
    error = sent(failed(OURS, in_a_file(source, "f", "/srv/transformers/modeling.py")))
    assert isinstance(error, ModelError) and "launch it anew" in str(error)


def test_frames_have_the_lines_as_they_were_shipped() -> None:
    source_lines.remember("<shipped>", 2, ("    return helper(tensor)",))
    function = in_a_file("def probe(tensor):\n    return helper(tensor)\n", "probe", "<shipped>")
    told = json.loads(json.dumps(failures.describe(failed(function, 1), "a point")))
    linecache.cache.pop("<shipped>")  # the client may not know it
    error: Any = failures.revive(told)
    assert error.frames == (("<shipped>", 2, "probe"),)
    assert error.sources == ("return helper(tensor)",)
    assert '<shipped>", line 2, in probe\n    return helper(tensor)' in str(error)


def test_errors_survive_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(errors.UnknownPoint("No such point.", "Look again.")))
    assert type(error) is errors.UnknownPoint
    assert error.remedy == "Look again."


def test_unknown_names_come_with_their_neighbours() -> None:
    error = errors.UnknownPoint.among("probe point", "logit", ["logits", "embed.out"])
    assert error.nearest == ("logits",)
    assert "Did you mean logits?" in str(error)
