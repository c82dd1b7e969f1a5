"""Code of the user's own modules where it arrives: as guests, which nobody else sees.

A guest module is a module object of one payload. It is not in ``sys.modules``, so two sessions may use two versions of
one module at a time, and the server may have a third. Functions that came in one payload share their module's names,
as they do at home, and their ``import`` statements find the guests that came with them.

Classes are the same object whenever they arrive, as last shipped, so that ``isinstance`` holds from one request to the
next. A class that comes back to where it was defined is the class that is there.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import sys
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from importlib.util import resolve_name
from typing import Any

from cloudpickle import cloudpickle

from garcon_jupyter.errors import CannotTravel, MissingModule
from garcon_jupyter.user_code import own_modules

_CLASSES: weakref.WeakSet[type] = weakref.WeakSet()
"""Classes that were made here of what came."""

_hosting = False


def host() -> None:
    """This process runs the code of others: what it could import under the name of a guest is not the guest."""
    global _hosting
    _hosting = True


def is_guest(kind: type) -> bool:
    """Whether a class was made here of what came from elsewhere."""
    return kind in _CLASSES


class GuestFamily:
    """The modules that came in one payload."""

    def __init__(self) -> None:
        self._modules: dict[str, types.ModuleType] = {}
        self._spaces: dict[int, dict[str, Any]] = {}
        self._builtins: dict[str, Any] = {}

    def module(self, name: str, facts: Mapping[str, Any] | None = None) -> types.ModuleType:
        """The guest of a name, empty at first, and the packages around it."""
        module = self._modules.get(name)
        if module is None:
            module = self._modules[name] = types.ModuleType(name)
            vars(module)["__builtins__"] = vars(builtins)
            package, _, last = name.rpartition(".")
            if package:
                vars(self.module(package)).setdefault(last, module)
        vars(module).update(facts or {})
        return module

    def names(self, space: str | int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The global names of a module, or of code that is of no module."""
        if isinstance(space, str):
            return vars(self.module(space, facts))
        if space not in self._spaces:
            self._spaces[space] = {"__builtins__": vars(builtins), **facts}
        return self._spaces[space]

    @property
    def builtins(self) -> dict[str, Any]:
        """The builtin names, with an ``import`` statement that finds the guests."""
        if not self._builtins:
            self._builtins = {**vars(builtins), "__import__": self._import}
        return self._builtins

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Any = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        full = name
        if level:
            package = (globals or {}).get("__package__") or (globals or {}).get("__name__", "")
            full = resolve_name("." * level + name, package)
        if full not in self._modules:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if fromlist:
            return self._modules[full]
        return self._modules[name.partition(".")[0] if not level else full]


# -- what pickles call, by the names in which pickling.py writes them down ---------------------------


def make_family() -> GuestFamily:
    """The family of a payload."""
    return GuestFamily()


def module_of(family: GuestFamily, name: str, facts: Mapping[str, Any]) -> types.ModuleType:
    """A guest module."""
    return family.module(name, facts)


def fill_module(module: types.ModuleType, values: Mapping[str, Any]) -> None:
    """Give a guest module everything it has at home."""
    vars(module).update(values)


def make_function(
    family: GuestFamily,
    space: str | int,
    facts: Mapping[str, Any],
    imports: bool,
    code: types.CodeType,
    closure: tuple[types.CellType, ...] | None,
) -> types.FunctionType:
    """A function with the names of its module around it.

    Args:
        imports: it has import statements for guests.
    """
    names = family.names(space, facts)
    if imports:
        names["__builtins__"] = family.builtins
    return types.FunctionType(code, names, None, None, closure)


def fill_function(function: types.FunctionType, state: tuple[Any, dict[str, Any]]) -> None:
    """Give a function what it uses: its own names, and those of other guests."""
    attributes, slots = state
    for module, values in slots.pop("__reached__"):
        vars(module).update(values)
    slots.pop("__whole__")
    mine = function.__globals__["__builtins__"]
    cloudpickle._function_setstate(function, (attributes, slots))
    function.__globals__["__builtins__"] = mine


def fill_names(module: types.ModuleType, values: Mapping[str, Any]) -> None:
    """Give a guest module what its functions use, after all of them were made."""
    vars(module).update(values)


def first_of(items: Sequence[Any]) -> Any:
    """What was sent; the other items have done their work by being made."""
    return items[0]


def make_class(
    home: tuple[str, str], make: Callable[..., type], arguments: tuple[Any, ...]
) -> type:
    """A class: the one that is known here, or a new one, still empty.

    Args:
        home: module and name of a class that was sent back by whoever had it as a guest; ("", "") of others.
    """
    known = cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
    tracker = arguments[-2]
    if tracker not in known and home[0] and not _hosting and (found := _at_home(*home)):
        return found
    new = tracker not in known
    kind = make(*arguments)
    if new:
        _CLASSES.add(kind)
    return kind


def _at_home(module: str, name: str) -> type | None:
    with contextlib.suppress(
        Exception
    ):  # whatever importing it raises, the class can be made of what came
        found: Any = importlib.import_module(module)
        if own_modules.own(found) is None:
            return None
        for part in name.split("."):
            found = getattr(found, part)
        return found if isinstance(found, type) else None
    return None


def fill_class(kind: type, state: Any) -> None:
    """Give a guest class what it has at home now; one that is at home here stays as it is."""
    if kind in _CLASSES:
        cloudpickle._class_setstate(kind, state)


def make_cached(function: Callable[..., Any], most: int | None, typed: bool) -> Any:
    """A function with a cache, empty."""
    return functools.lru_cache(most, typed)(function)


def from_server(module: str, name: str, fingerprint: str, why: str) -> Any:
    """Something of a module that cannot travel, from the same version of it that is here.

    Raises:
        MissingModule: there is none, or another one.
    """
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
    except ImportError as error:
        raise MissingModule(
            f"{why}, and the server cannot import {module} itself ({error}).",
            "Make that inside the function that uses it, or install the module where the server runs.",
        ) from None
    if own_modules.fingerprint(found) != fingerprint:
        raise MissingModule(
            f"{why}, and the server has another version of {module}.",
            "Make that inside the function that uses it, or launch the server anew.",
        )
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    return found


class Absent:
    """Stands for a value that could not travel with its module, for whoever never asks for it."""

    def __init__(self, what: str) -> None:
        self.__dict__["_what"] = what

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise CannotTravel(
            f"{self.__dict__['_what']}, so it is not here.",
            "Make it inside the function that uses it.",
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._refuse()

    def __reduce__(self) -> Any:
        return Absent, (self.__dict__["_what"],)

    __call__ = __enter__ = __exit__ = __iter__ = __next__ = __len__ = __bool__ = _refuse
    __getitem__ = __setitem__ = __contains__ = __setattr__ = _refuse
