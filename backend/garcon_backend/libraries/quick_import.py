"""transformers imported without what only takes time: a sixth of the time until a rank can be forked.

- To know what its model files define it reads all of them at each import, some 1,600 in 550 folders, and does so twice, for
  the second time finds no more than the last 128 folders in a cache of that size. Here the cache holds all.
- The losses of object detection import scipy, where it is installed, for a single function. Here it is imported when that
  is called.

What is imported is the same as ever, and nothing of it is changed afterwards.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import ModuleType
from typing import Any

SCIPY = "scipy.optimize"


def import_transformers() -> None:
    """Import transformers, the names of its models, and its losses; nothing where it was imported already."""
    if "transformers" in sys.modules:
        return
    with _caches_that_hold_all("transformers."):
        importlib.import_module("transformers")
        importlib.import_module("transformers.models")
    with _scipy_when_called(), suppress(ModuleNotFoundError):  # nothing here needs the losses
        importlib.import_module("transformers.loss.loss_utils")


def prepare_loading() -> None:
    """Let transformers make its table of how the weights of all architectures are renamed, which it keeps once it is made."""
    with suppress(Exception):  # it makes it by itself, later
        conversions = importlib.import_module("transformers.conversion_mapping")
        conversions.get_checkpoint_conversion_mapping("llama")


@contextmanager
def _caches_that_hold_all(package: str) -> Iterator[None]:
    """While this lasts, functions of a package that are cached without a size have a cache of any size."""
    bounded: Any = functools.lru_cache

    def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
        if callable(maxsize) and maxsize.__module__.startswith(package):
            return bounded(maxsize=None)(maxsize)
        return bounded(maxsize, typed)

    functools.lru_cache = lru_cache
    try:
        yield
    finally:
        functools.lru_cache = bounded


@contextmanager
def _scipy_when_called() -> Iterator[None]:
    """While this lasts, modules that import scipy's functions for optimisation have ones that import it when they are called."""
    if SCIPY in sys.modules or find_spec("scipy") is None:
        yield
        return
    sys.modules[SCIPY] = _Later(SCIPY)
    try:
        yield
    finally:
        del sys.modules[SCIPY]


class _Later(ModuleType):
    """A module whose functions import it."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def function(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return function
