"""Which modules are the user's own: those travel to the server, and installed ones are imported there by name.

A module is *own* if its file lies where nothing installs: beside the notebook, in a project's folder or its ``src``,
wherever ``sys.path`` or an editable install leads. It is *installed* if its file is of the standard library, in a
``site-packages`` or ``dist-packages``, in a folder that pip filled (``pip install --target``), or if it has no file at
all. What the server itself is made of is always installed, also where it is developed: Garçon, torch, transformers and
what they need. Any other library in an editable install is own: it is what somebody works on.

Compiled modules (``.so``, ``.pyd``) cannot travel. One that is own is imported on the server if it has the same file.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import cloudpickle

OF_THE_SERVER = frozenset(
    {
        *("garcon_jupyter", "garcon_backend", "torch", "transformers", "tokenizers", "safetensors"),
        *("accelerate", "huggingface_hub", "numpy", "gguf", "cloudpickle", "IPython", "ipykernel"),
        *("ipywidgets", "anywidget", "jupyter_client", "traitlets", "zmq", "psutil", "filelock"),
    }
)
"""Packages that never travel: the server runs on its own."""

_INSTALLED = {"site-packages", "dist-packages"}


def own(module: Any) -> types.ModuleType | None:
    """The module, if it is the user's own and can travel."""
    return module if _kind(module) == "own" else None


def compiled(module: Any) -> types.ModuleType | None:
    """The module, if it is the user's own and compiled."""
    return module if _kind(module) == "compiled" else None


def loaded(name: Any) -> Any:
    """The module of a name, if it was imported."""
    return sys.modules.get(name) if isinstance(name, str) else None


def _kind(module: Any) -> str:
    if not isinstance(module, types.ModuleType):
        return ""
    try:
        name = module.__name__
    except AttributeError:  # not made yet
        return ""
    if name.partition(".")[0] in OF_THE_SERVER or name in ("__main__", "__mp_main__"):
        return ""
    if _was_shipped(name):
        return "own"
    file = vars(module).get("__file__")
    if isinstance(file, str):
        return _kind_of_file(name, file, "__path__" in vars(module))
    places = [p for p in vars(module).get("__path__") or () if isinstance(p, str)]
    kinds = {_kind_of_file(name, f"{place}/__init__.py", True) for place in places}
    return "own" if kinds == {"own"} else ""  # a package without a file of its own


def _was_shipped(name: str) -> bool:
    """Whether a module, or a package around it, was registered by hand to travel by value."""
    registered = cloudpickle.list_registry_pickle_by_value()
    return bool(registered) and any(name == one or name.startswith(f"{one}.") for one in registered)


@lru_cache(maxsize=4096)
def _kind_of_file(name: str, file: str, package: bool) -> str:
    path = Path(file).absolute()
    if not path.suffix or _INSTALLED & set(path.parts) or ".zip" in file or ".egg" in file:
        return ""
    if any(path.is_relative_to(place) for place in _standard_library()):
        return ""
    up = name.count(".") + package
    root = path.parents[up] if up < len(path.parents) else path.parent
    if name.partition(".")[0] in _put_by_pip(root):
        return ""
    return "compiled" if path.name.endswith(tuple(EXTENSION_SUFFIXES)) else "own"


@lru_cache(maxsize=1)
def _standard_library() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")})


@lru_cache(maxsize=256)
def _put_by_pip(root: Path) -> frozenset[str]:
    """Names of the packages that pip has put into a folder, by the records that it leaves there."""
    found = set()
    for record in root.glob("*.dist-info/RECORD"):
        try:
            lines = record.read_text(errors="replace").splitlines()
        except OSError:
            continue
        found |= {line.partition(",")[0].partition("/")[0].removesuffix(".py") for line in lines}
    return frozenset(found)


# -- whether the server has the same ---------------------------------------------------------------


def fingerprint(module: types.ModuleType) -> str:
    """What two processes compare to know that they have loaded the same version of a module: of a compiled one
    its file, of another the code of its functions and classes, as loaded."""
    digest = hashlib.sha256()
    if _is_compiled_file(module):
        digest.update(Path(str(module.__file__)).read_bytes())
    else:
        for name in sorted(vars(module)):
            for code in _codes_of(vars(module)[name], module.__name__):
                digest.update(f"{name}:{_said(code)}".encode())
    return digest.hexdigest()


def _is_compiled_file(module: types.ModuleType) -> bool:
    return str(getattr(module, "__file__", "")).endswith(tuple(EXTENSION_SUFFIXES))


def _codes_of(value: Any, module: str) -> Iterator[types.CodeType]:
    """The code that a module defines under one of its names."""
    if getattr(value, "__module__", None) != module:
        return
    if isinstance(value, types.FunctionType):
        yield value.__code__
    elif isinstance(value, type):
        for name in sorted(vars(value)):
            inner = vars(value)[name]
            yield from _codes_of(getattr(inner, "__func__", inner), module)


def _said(code: types.CodeType) -> str:
    inner = [_said(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return repr((code.co_code, code.co_names, code.co_varnames, inner))
