"""What is left out of the import of transformers: files read twice, and scipy; what is imported is the same."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

import pytest

from garcon_backend.libraries.quick_import import _caches_that_hold_all

pytestmark = pytest.mark.processes

COUNTING = """
import collections, functools, json, sys
read = collections.Counter()
sys.addaudithook(lambda event, args: read.update([str(args[0])]) if event == "open" else None)
{imports}
import transformers
models = {{file: count for file, count in read.items() if "/transformers/models/" in file and file.endswith(".py")}}
told = {{
    "files": len(models),
    "most": max(models.values()),
    "names": len(dir(transformers.models)),
    "scipy": "scipy.optimize" in sys.modules,
    "cache": functools.lru_cache(str).cache_info().maxsize,
}}
"""
QUICKLY = (
    "from garcon_backend.libraries.quick_import import import_transformers; import_transformers()"
)
AS_IT_IS = "import transformers, transformers.models, transformers.loss.loss_utils"


def told(imports: str, then: str = "") -> dict[str, Any]:
    code = COUNTING.format(imports=imports) + then + "\nprint(json.dumps(told))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def test_each_model_file_is_read_once_and_scipy_is_not_imported() -> None:
    quick, usual = told(QUICKLY), told(AS_IT_IS)
    assert (
        quick["most"] == 1 and usual["most"] == 2
    )  # once this is 1, the half of the module can go
    assert quick["files"] == usual["files"] > 1000
    assert quick["names"] == usual["names"]
    assert (quick["scipy"], quick["cache"]) == (False, 128)


def test_a_loss_that_needs_scipy_has_it_when_it_is_computed() -> None:
    pytest.importorskip("scipy")
    then = """
import transformers.loss.loss_for_object_detection as detection
rows, columns = detection.linear_sum_assignment([[4, 1], [2, 0]])
told["pairs"] = [rows.tolist(), columns.tolist()]
told["scipy"] = [told["scipy"], "scipy.optimize" in sys.modules]
"""
    found = told(QUICKLY, then)
    assert found["pairs"] == [[0, 1], [1, 0]] and found["scipy"] == [False, True]


def test_only_caches_of_the_package_without_a_size_hold_all() -> None:
    def mine(number: int) -> int:
        return number

    def its(number: int) -> int:
        return number

    its.__module__ = "transformers.utils"
    with _caches_that_hold_all("transformers."):
        sizes = [
            functools.lru_cache(mine).cache_info().maxsize,
            functools.lru_cache(its).cache_info().maxsize,
            functools.lru_cache(maxsize=3)(its).cache_info().maxsize,
            functools.lru_cache()(mine).cache_info().maxsize,
        ]
    assert sizes == [128, None, 3, 128]
    assert functools.lru_cache(its).cache_info().maxsize == 128
