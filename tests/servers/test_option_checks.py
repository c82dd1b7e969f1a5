"""What a launch cannot be asked for is refused in a sentence; what only its reader can judge goes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from garcon_jupyter.errors import BadDegrees, BadRequest, UnknownName
from garcon_jupyter.servers.option_checks import check_words


@pytest.mark.parametrize(
    ("word", "value", "kind", "says"),
    [
        ("name", 5, BadRequest, "name=5 is no text. Give it as a text."),
        ("name", "", BadRequest, "name='' is no text."),
        ("tp", True, BadDegrees, "tp=True is no degree. Degrees are whole numbers from 1."),
        ("dp", 2.0, BadDegrees, "dp=2.0 is no degree."),
        ("loader", len, BadRequest, "is no text. Write package.module:function."),
        ("loader", "mine.py:load", BadRequest, "names a file, and a module is wanted."),
        ("device", "gpu", BadRequest, "There is no device 'gpu'. Use cpu or cuda."),
        ("launcher", "mpi", BadRequest, "There is no launcher 'mpi'. Use slurm."),
        ("nnodes", "2", BadRequest, "nnodes='2' is no whole number."),
        ("node_rank", False, BadRequest, "node_rank=False is no whole number."),
        ("is_host", 1, BadRequest, "is_host=1 is no truth value. Give True or False."),
        ("sbatch", "--account=lab", BadRequest, "is no list. Give it as a list of texts."),
        ("sbatch", "", BadRequest, "sbatch='' is no list."),
        ("memry", "8GiB", UnknownName, "'memry'. Did you mean memory"),
    ],
)
def test_what_makes_no_sense_is_refused(word: str, value: Any, kind: type, says: str) -> None:
    with pytest.raises(kind) as caught:
        check_words("smollm2", {word: value})
    assert says in str(caught.value)


@pytest.mark.parametrize("path", [5, None, "", Path])
def test_a_path_is_a_path(path: Any) -> None:
    with pytest.raises(BadRequest, match="is no path of a model"):
        check_words(path, {})


def test_what_makes_sense_or_is_judged_later_goes_through() -> None:
    check_words(
        Path("here"),
        {
            **{"name": None, "tp": 2, "device": "cpu", "loader": "package.module:function"},
            **{"nnodes": None, "is_host": False, "sbatch": ["--account=lab"], "launcher": "slurm"},
            **{
                "idle_timeout": None,
                "memory": 1e9,
                "forget": [],
                "time": 30,
            },  # who reads them tells
            **{"secret_file": Path("secret")},
        },
    )
    check_words("", {"loader": "package.module:function"})
